"""B3: faults planted in a copy of the source are noticed by the tests (`tests/mutants/`)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.mutants.faults import FAULTS
from tests.nightly.rows import Outcome, Row, main

ROOT = Path(__file__).resolve().parents[2]


def noticed(count: int) -> Outcome:
    """Plant `count` faults; what an earlier run found of the same source counts."""
    names = [fault.name for fault in FAULTS[:count]]
    command = [sys.executable, "-W", "ignore", "-m", "tests.mutants", *names]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if not done.stdout.strip():
        raise RuntimeError(f"tests.mutants ended with {done.returncode} and said nothing")
    told = json.loads(done.stdout.splitlines()[-1])
    return Outcome(failures=[f"survived: {name}" for name in told["survivors"]], tried=len(names))


ROWS = (
    Row(name="B3", promise="a fault planted in the source is noticed by the tests",
        unit="faults", ci=1, full=len(FAULTS), attempt=noticed),
)  # fmt: skip

if __name__ == "__main__":
    main(ROWS)
