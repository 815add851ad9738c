"""Repeated flags are refused, or all of them count; none is forgotten in silence."""

import pytest

from worldsim.flags import refuse_repeated


@pytest.mark.parametrize(
    "line",
    [
        "--data a --data b",
        "--data=a --data b",
        "train --fit.steps 3 --fit.steps=4",
        "--max-frames 3 --max_frames 4",
        "--compile --no-compile",
        "-v --size 8 8 -v",
    ],
)
def test_a_repeated_flag_is_refused(line: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        refuse_repeated(line.split())
    assert caught.value.code == 2 and "expected once" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "--peer diamond=a --peer delta-iris=b",
        "--size 8 8 --data --low -1.5 -1.5",
        "--data a -- --data b",
        "--fit.steps 3 --steps 3",
    ],
)
def test_other_lines_pass_as_they_are(line: str):
    assert refuse_repeated(line.split(), several=("--peer",)) == line.split()
