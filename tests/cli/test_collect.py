"""`worldsim collect`."""

from pathlib import Path

import pytest

from worldsim.cli import main
from worldsim.cli.collect import keywords
from worldsim.collect import CollectError
from worldsim.data.native import NativeDataset


def test_every_flag_arrives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "tests.collect.fakes:make --episodes 2 --val 1 --test 0 --chunk 4 --size 8 16 "
        "--crop 0 12 0 24 --source render --warmup 1 --max-frames 8 --env-kwarg action=box "
        "--env-kwarg length=20 --wrapper tests.collect.fakes:brighter --noise 0 --seed 3 "
        "--prefix more --workers 1 --state --policy tests.cli.test_collect:still"
    )
    assert main(["collect", *words.split(), "--folder", str(tmp_path / "data")]) == 0
    data = NativeDataset(tmp_path / "data")
    spec = data.spec.environment
    assert spec is not None and spec.kwargs == {"action": "box", "length": 20}
    assert (spec.chunk, spec.size, spec.crop, spec.warmup) == (4, (8, 16), (0, 12, 0, 24), 1)
    assert spec.wrappers == ("tests.collect.fakes:brighter",) and spec.max_frames == 8
    assert list(data.names) == ["more-train-000000", "more-train-000001", "more-val-000000"]
    assert data.episode(0).policy == "tests.cli.test_collect:still" and data.lengths[0] == 2
    assert "2 train, 1 val episodes, 24 frames of 8x16" in capsys.readouterr().out


def still(obs: object) -> int:
    return 0


def test_keywords_are_json() -> None:
    assert keywords(["a=1", "b=[true, null]", "c=8x8", 'd="1"', "e=x=y"]) == {
        "a": 1, "b": [True, None], "c": "8x8", "d": "1", "e": "x=y"
    }  # fmt: skip
    for wrong in (["a"], ["a=1", "a=2"], ["a=False"], ["a-b=1"]):
        with pytest.raises(CollectError, match="env-kwarg: expected"):
            keywords(wrong)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("Shows-v9", "env: expected an environment that is registered here"),
        ("pendulum --chunk 4", "chunk: expected none, as the recipe pendulum settles it"),
        ("CartPole-v1 --size 50 50", "size: expected"),
        ("CartPole-v1 --policy os:nothing", "policy: expected an importable"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    words: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["collect", *words.split(), "--folder", str(tmp_path / "data")]) == 2
    assert f"error: {sentence}" in capsys.readouterr().err
