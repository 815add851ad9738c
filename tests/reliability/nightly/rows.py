"""A row of the reliability table: a promise, how often it is tried, and what came of it.

A module of this folder declares its rows as `ROWS` and ends with

    if __name__ == "__main__":
        main(ROWS)

`python -m tests.reliability.nightly.NAME` tries the counts of CI, `--full` those of the table; it
prints a JSON line a row and fails if a row failed. `python -m tests.reliability.nightly` runs
all modules.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from worldsim.flags import refuse_repeated
from worldsim.store.provenance import provenance

KEPT = 20  # failures that a line tells of


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What trying a row gave.

    Attributes:
        failures: what broke the promise, a line each with what it takes to repeat it; none is well.
        figures: what was measured, by name: JSON values, short ones first.
        tried: how many were tried, where there are fewer than were asked for.
    """

    failures: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    tried: int | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One promise.

    Attributes:
        name: as the catalogue has it, "D1"; with a word where a row has parts, "D1-world".
        promise: what must hold, a sentence for the table.
        unit: what `count` counts, for the table: "kills", "steps".
        ci, full: how many of them in CI and in the nightly run; ci 0: at night only.
        attempt: tries so many; raises only if the test itself is broken.
    """

    name: str
    promise: str
    unit: str
    ci: int
    full: int
    attempt: Callable[[int], Outcome]


def measure(row: Row, count: int) -> dict[str, Any]:
    """Try a row: its line of JSON."""
    start = time.monotonic()
    outcome = row.attempt(count)
    return {
        "row": row.name,
        "passed": not outcome.failures,
        "promise": row.promise,
        "count": count if outcome.tried is None else outcome.tried,
        "unit": row.unit,
        "figures": outcome.figures,
        "failed": len(outcome.failures),
        "failures": outcome.failures[:KEPT],
        "seconds": round(time.monotonic() - start, 1),
        **provenance(),
    }


def main(rows: Sequence[Row]) -> None:
    """Run rows from the command line; the exit status says whether all promises held."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--full", action="store_true", help="the counts of the table, not CI's")
    parser.add_argument("--row", action="append", choices=[r.name for r in rows], help="only these")
    parser.add_argument("--count", type=int, help="another count")
    asked = parser.parse_args(refuse_repeated(sys.argv[1:], several=("--row",)))
    passed = True
    for row in rows:
        if asked.row is None or row.name in asked.row:
            line = measure(row, asked.count or (row.full if asked.full else row.ci) or row.full)
            print(json.dumps(line), flush=True)
            passed &= line["passed"]
    sys.exit(not passed)
