"""A part that fails, hangs or lacks something ends no other, and leaves no process behind."""

import os
import sys
import time
from pathlib import Path

import pytest

from benchmarks import parts
from benchmarks.parts import Part


def part(code: str, limit: float = 20.0) -> Part:
    return Part("one", ("python", "-c", code), limit)


@pytest.mark.parametrize(
    ("code", "status", "told"),
    [
        ("print('noise'); print('{\"x\": 1.5}')", "measured", ("x", 1.5)),
        ('print(\'{"lacking": "a GPU"}\'); raise SystemExit(75)', "lacking", ("lacking", "a GPU")),
        ("raise ValueError('broken')", "failed", ("exit", 1)),
        ("print('no figures')", "failed", ("said", "no figures\n")),
        ("import os; os.kill(os.getpid(), 9)", "failed", ("exit", -9)),
    ],
)
def test_what_came_of_a_part(code: str, status: str, told: tuple[str, object]) -> None:
    found = parts.run(part(code))
    assert found["status"] == status and found[told[0]] == told[1]
    assert "one" in parts.table({"one": found})


def test_a_part_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    file = tmp_path / "child"
    code = (
        "import pathlib, subprocess, sys, time\n"
        f"child = subprocess.Popen([{sys.executable!r}, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(file)!r}).write_text(str(child.pid)); time.sleep(60)"
    )
    found = parts.run(part(code, limit=3.0))
    assert found["status"] == "timed out" and found["seconds"] < 30
    child = Path(f"/proc/{file.read_text()}/stat")
    for _ in range(100):
        if not child.exists() or child.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    os.kill(int(file.read_text()), 9)
    pytest.fail("its child lives on")
