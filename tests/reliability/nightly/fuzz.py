"""E1: whatever bytes lie in a file that worldsim reads, they are read or refused in our words.

Coverage-guided (atheris, libFuzzer) and aware of the formats (`changes.py`): each reader of
`fuzz_targets.py` gets a good file changed, and changed again where that reached new code. Anything
but success or a typed, printable error is a fault, and so is a case of more than 2 seconds or 256
MiB, code that runs, and a file touched elsewhere.

    python -m tests.reliability.nightly.fuzz --full           # every reader
    python -m tests.reliability.nightly.fuzz --reader film.csv --count 240

What was tried adds up in `benchmarks/results/fuzz.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tests.reliability.nightly.rows import Outcome, Row, main
from worldsim.files import write_text
from worldsim.flags import refuse_repeated
from worldsim.store.provenance import provenance

KEPT = 20  # faults that a reader's line tells of
ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "benchmarks" / "results" / "fuzz.json"
Line = dict[str, Any]


def lines(seconds: float, only: Sequence[str]) -> Iterator[tuple[str, Line]]:
    """What came of each reader, one after the other, in a process of their own."""
    command = [sys.executable, "-m", "tests.reliability.nightly.fuzz_child", str(seconds), *only]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:
        for text in process.stdout or ():
            line = json.loads(text)
            yield line.pop("reader"), line
    if process.returncode:
        raise RuntimeError(f"the fuzzer itself broke: exit {process.returncode}")


def keep(lines: dict[str, Line], path: Path = RESULTS) -> None:
    """Add what was tried to what was tried before; faults are the last run's."""
    known = json.loads(path.read_text())["readers"] if path.exists() else {}
    for name, line in lines.items():
        past = known.get(name, {})
        total = {k: round(past.get(k, 0) + line[k], 1) for k in ("cpu_seconds", "executions")}
        known[name] = total | {"faults": line["faults"], "commit": provenance()["commit"]}
    told = {"readers": dict(sorted(known.items())), "provenance": provenance()}
    write_text(path, json.dumps(told, indent=1) + "\n")


def fuzzed(count: float, only: Sequence[str] = ()) -> Outcome:
    """`count` CPU-seconds for every reader."""
    failures, figures = [], {}
    for name, line in tqdm(lines(count, only), desc="readers"):
        keep({name: line})
        failures += [f"{name}: {fault}" for fault in line["faults"]]
        figures[name] = f"{line['executions']} in {line['cpu_seconds']:.0f} s"
        for fault in line["faults"]:
            tqdm.write(f"{name}: {fault}", file=sys.stderr)
    return Outcome(failures=failures, figures=figures)


ROWS = (
    Row(name="E1", promise="changed bytes in any file that is read: read or refused, typed, small",
        unit="CPU-seconds a reader", ci=0, full=1800, attempt=fuzzed),
)  # fmt: skip


def cli(given: Sequence[str]) -> None:
    """Some readers only."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--reader", action="append", default=[], help="all without")
    parser.add_argument("--count", type=float, default=60, help="CPU-seconds of each")
    asked = parser.parse_args(refuse_repeated(given, several=("--reader",)))
    sys.exit(bool(fuzzed(asked.count, asked.reader).failures))


if __name__ == "__main__":
    if find_spec("atheris") is None:
        sys.exit("pip install atheris: what the fuzzer is made of")
    if "--full" in sys.argv or "--row" in sys.argv:
        main(ROWS)
    cli(sys.argv[1:])
