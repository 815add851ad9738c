"""Repeated flags are refused, or all of them count; none is forgotten in silence."""

import re
from pathlib import Path

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


ROOT = Path(__file__).parents[1]
PARSERS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("worldsim", "benchmarks", "docs/examples", "tests/reliability")
    for path in (ROOT / folder).rglob("*.py")
    if re.search(r"tyro\.cli\(|\.parse_args\(", path.read_text())
)


def test_every_command_line_refuses_them():
    unguarded = [name for name in PARSERS if "refuse_repeated(" not in (ROOT / name).read_text()]
    assert len(PARSERS) > 30 and not unguarded
