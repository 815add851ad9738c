"""Prompts as tokens, and what is no prompt."""

import pytest
import torch

from worldsim.core import WorldError
from worldsim.models.text import TextConfig, TextEncoder, tokens_of

KINDS = ("static", "words", "ngrams")


def config(kind: str, **more: int) -> TextConfig:
    if kind == "static":
        pytest.importorskip("wordllama", reason="the extra text")
    return TextConfig(kind=kind, length=12, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_words_count_and_what_comes_after_the_end_does_not(kind: str) -> None:
    settings = config(kind)
    torch.manual_seed(0)
    encoder = TextEncoder(settings, 16, 3).eval()
    ids = tokens_of(["a Snowy road", "a snowy, road!", "a sandy road", "night"], settings)
    out = encoder(ids)
    assert ids.shape == (4, 12) and out.shape == (4, 3, 16)
    assert torch.equal(ids[0], ids[1])  # case and commas say nothing
    assert (out[0] - out[2]).abs().max() > 1e-3
    alone = encoder(ids[3:])
    assert torch.allclose(alone[0], out[3], atol=1e-6)
    assert out.isfinite().all() and encoder(torch.zeros(2, 12).long()).isfinite().all()


def test_what_is_no_prompt_is_refused_and_what_is_cut_is_said() -> None:
    words = TextConfig(kind="words", length=4)
    for text, got in (("", "''"), ("  ?! ", "?!"), ("дорога в снегу", "дорога"), ("雪の道", "雪")):
        with pytest.raises(WorldError, match="text: expected") as error:
            tokens_of([text], words)
        assert got in str(error.value)
    with pytest.raises(WorldError, match="expected words, got int"):
        tokens_of([3], words)  # type: ignore[list-item]
    with pytest.warns(UserWarning, match="text: 6 tokens, of which the first 4 are read"):
        assert tokens_of(["one two three four five six"], words).ne(0).sum() == 4
    with pytest.warns(UserWarning, match="hardly an English word"):
        tokens_of(["Straßenverkehrsordnung zweihundertfünfzig"], config("static"))
    assert tokens_of(["", "雪"], words, check=False).shape == (2, 4)  # captions are as they are


def test_near_words_are_near_in_the_frozen_table() -> None:
    from worldsim.models.text import static_table

    settings = config("static")

    def mean(text: str) -> torch.Tensor:
        ids = tokens_of([text], settings)[0]
        return static_table()[ids[ids > 0]].float().mean(0)

    def near(a: str, b: str) -> float:
        return torch.cosine_similarity(mean(a), mean(b), dim=0).item()

    assert near("crimson road", "red road") > near("crimson road", "green meadow") + 0.1
