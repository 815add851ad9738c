"""B3: faults planted in a copy of the source are noticed by the tests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.reliability.mutants.faults import FAULTS
from tests.reliability.nightly.rows import Outcome, Row, main

ROOT = Path(__file__).resolve().parents[3]


def noticed(count: int) -> Outcome:
    """Plant `count` faults; what an earlier run found of the same source counts."""
    names = [fault.name for fault in FAULTS[:count]]
    command = [sys.executable, "-W", "ignore", "-m", "tests.reliability.mutants", *names]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if not done.stdout.strip():
        raise RuntimeError(
            f"tests.reliability.mutants ended with {done.returncode} and said nothing"
        )
    told = json.loads(done.stdout.splitlines()[-1])
    return Outcome(failures=[f"survived: {name}" for name in told["survivors"]], tried=len(names))


ROWS = (
    Row(name="B3", promise="a fault planted in the source is noticed by the tests",
        unit="faults", ci=1, full=len(FAULTS), attempt=noticed),
)  # fmt: skip

if __name__ == "__main__":
    main(ROWS)
