"""L1: the tests that take too long for every day."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.reliability.nightly.rows import Outcome, Row, main

ROOT = Path(__file__).resolve().parents[3]


def passed(count: int) -> Outcome:
    """Run all tests that are marked `nightly`, but for the rows that a night tries in full."""
    places = ["tests", "--deselect", "tests/reliability/test_nightly.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "nightly", *places]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    lines = done.stdout.splitlines()
    failures = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    if done.returncode and not failures:
        failures = [f"pytest ended with {done.returncode}: {' '.join(lines[-1:])}"]
    return Outcome(failures=failures, figures={"result": " ".join(lines[-1:])}, tried=count)


ROWS = (
    Row(name="L1", promise="the tests that are marked `nightly` pass", unit="runs", ci=0, full=1,
        attempt=passed),
)  # fmt: skip

if __name__ == "__main__":
    main(ROWS)
