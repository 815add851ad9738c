"""A captioner learns from some captions and labels the rest."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.measured_data import stored
from worldsim.cli import caption as command
from worldsim.cli import main
from worldsim.core import ActionSpec, WorldError
from worldsim.data.dataset import Caption, DatasetSpec, Episode
from worldsim.data.native import NativeDataset
from worldsim.models.captioner import SIDE, Captioner, Vocabulary
from worldsim.train.captioner import CaptionerTraining, look, read_examples, words_right

SMALL = {"batch": 8, "lr": 3e-3, "dim": 48}
COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


def episode(number: int) -> tuple[Episode, tuple[Caption, ...]]:
    """Two stretches of a colour each."""
    rng = np.random.default_rng(number)
    names = [str(x) for x in rng.choice(list(COLOURS), 2)]
    parts = [np.full((4, 16, 16, 3), COLOURS[name], np.uint8) for name in names]
    frames = np.concatenate(parts) + rng.integers(0, 30, (8, 16, 16, 3), np.uint8)
    captions = tuple(
        Caption(first=2 * i, stop=2 * i + 2, text=f"{word} is {name}, here.")
        for i, name in enumerate(names) for word in ("all", "it")
    )  # fmt: skip
    return Episode(name=f"e{number:02d}", frames=frames, chunk=2, fps=10.0), captions


def test_few_captions_label_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "CaptionerTraining", partial(CaptionerTraining, **SMALL))
    spec = DatasetSpec(
        name="colours", frame_shape=(16, 16, 3), fps=10.0, chunk=2, action=ActionSpec(kind="none")
    )
    made = [episode(i) for i in range(24)]
    stored(tmp_path / "data", spec, train=[e for e, _ in made])
    rows = [f'{e.name},{c.first},{c.stop},"{c.text}"' for e, cs in made[:10] for c in cs]
    table = tmp_path / "captions.csv"
    table.write_text("file,first,stop,text\n" + "\n".join(rows))
    call = ["caption", str(tmp_path / "data"), "--examples", str(table), "--out"]
    assert main([*call, str(tmp_path / "out"), "--steps", "30", "--wordings", "1"]) == 0
    assert "10 of 24 episodes had captions" in capsys.readouterr().out
    told = NativeDataset(tmp_path / "out")
    for i, (_, captions) in enumerate(made):
        said, true = (
            {(one.first, one.stop): one.text.partition(" is ")[2] for one in some}
            for some in (told.episode(i).captions, captions)
        )
        assert said == true
    assert main([*call, str(tmp_path / "out")]) == 2  # nothing is written over
    for line, wrong in (("nobody,0,2,x", "row 2"), ("e00,0,9,x", "chunks from 0 to 4"),
                        ("e00,0,2,", "words in column text")):  # fmt: skip
        table.write_text(f"file,first,stop,text\n{line}")
        with pytest.raises(WorldError, match=wrong):
            read_examples(table, NativeDataset(tmp_path / "data"))


def test_a_captioner_sees_what_moves_between_frames() -> None:
    """Every moment is a frame and the one after it; a clip of a single frame stands still."""
    frames = np.arange(12, dtype=np.uint8)[:, None, None, None].repeat(SIDE, 1).repeat(SIDE, 2)
    clip = Episode(name="e", frames=frames.repeat(3, 3), chunk=1, fps=10.0)
    seen = look(clip, 0, 12)
    assert seen[:, 0, 0, 0].tolist() == [0, 3, 7, 10]
    assert (seen[..., 3:] == seen[..., :3] + 1).all()
    still = look(clip, 11, 12)
    assert (still[..., 3:] == still[..., :3]).all() and (still == 11).all()
    model, other = Captioner(10, dim=24).eval(), seen.copy()
    other[..., 3:] += 5
    a, b = (model.see(torch.from_numpy(x)[None]) for x in (seen, other))
    assert not torch.allclose(a, b)


def test_words_come_back() -> None:
    words = Vocabulary.of(["a red car, fast!", "night"])
    ids = words.encode(["a red car, fast!", "night unknown"])
    assert words.decode(ids[0, 1:].tolist()) == "a red car, fast!"
    assert words.decode(ids[1, 1:].tolist()) == "night"
    assert words_right(["a red car"], ["a blue car"]) == pytest.approx(2 / 3)
