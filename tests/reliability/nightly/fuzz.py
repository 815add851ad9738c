"""E1: whatever bytes lie in a file that worldsim reads, they are read or refused in our words.

Coverage-guided (atheris, libFuzzer) and aware of the formats (`changes.py`): each reader of
`fuzz_targets.py` gets a good file changed, and changed again where that reached new code. Anything
but success or a typed, printable error is a fault, and so is a case of more than 2 seconds or 256
MiB, code that runs, and a file touched elsewhere. Each reader is tried in a process of its own
(`fuzz_child.py`), so that a crash of FFmpeg, HDF5 or Arrow is a fault among others.

    python -m tests.reliability.nightly.fuzz --full           # every reader
    python -m tests.reliability.nightly.fuzz --reader film.mp4 --count 240

What was tried adds up in `benchmarks/results/fuzz.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tests.reliability.nightly.rows import Outcome, Row, main
from worldsim.files import write_text
from worldsim.store.provenance import provenance

KEPT = 20  # faults that a reader's line tells of
GRACE = 60  # seconds more than its own that a reader may take, twice over
ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "benchmarks" / "results" / "fuzz.json"
Line = dict[str, Any]


def tried(name: str, seconds: float, seed: int) -> Line:
    """One reader's line: CPU-seconds, executions, faults; again where its process broke."""
    whole: Line = {"cpu_seconds": 0.0, "executions": 0, "faults": {}}
    while whole["cpu_seconds"] < seconds - 1 and len(whole["faults"]) < KEPT:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            left = seconds - whole["cpu_seconds"]
            broken = _ended([name, str(left), str(seed), folder], place, left)
            line = {"cpu_seconds": left, "executions": 0, "faults": {}}
            if (told := place / "line.json").exists():
                line = json.loads(told.read_text())
            cases = sorted(p for p in place.glob("*-*") if p.is_file())
            if broken:
                line["faults"][broken] = cases[0].read_bytes()[:4096].hex() if cases else ""
        whole["cpu_seconds"] += line["cpu_seconds"]
        whole["executions"] += line["executions"]
        whole["faults"] |= line["faults"]
        seed += 1
    return whole


def _ended(asked: list[str], place: Path, seconds: float) -> str:
    """Run a child to its end; how it broke, "" if it did not."""
    command = [sys.executable, "-m", "tests.reliability.nightly.fuzz_child", *asked]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
        try:
            code = process.wait(10 * (seconds + GRACE))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return "hangs"
    if code == 0:
        return ""
    name = signal.Signals(-code).name if code < 0 else f"exit {code}"
    told = (place / "log").read_text(errors="replace").splitlines()
    return (
        f"crash: {name}: {next((x for x in told if 'ERROR' in x), told[-1] if told else '')[:200]}"
    )


def keep(lines: dict[str, Line], path: Path = RESULTS) -> None:
    """Add what was tried to what was tried before; faults are the last run's."""
    known = json.loads(path.read_text())["readers"] if path.exists() else {}
    for name, line in lines.items():
        past = known.get(name, {})
        total = {k: round(past.get(k, 0) + line[k], 1) for k in ("cpu_seconds", "executions")}
        known[name] = total | {"faults": line["faults"], "commit": provenance()["commit"]}
    told = {"readers": dict(sorted(known.items())), "provenance": provenance()}
    write_text(path, json.dumps(told, indent=1) + "\n")


def readers() -> list[str]:
    """Names of all readers."""
    from tests.reliability.nightly.fuzz_targets import targets

    with tempfile.TemporaryDirectory() as folder:
        return list(targets(Path(folder) / "files"))


def fuzzed(count: int, only: Sequence[str] = (), each: Callable[[str, Line], Any] | None = None,
           ) -> Outcome:  # fmt: skip
    """`count` CPU-seconds for every reader."""
    failures, figures = [], {}
    for name in tqdm(only or readers(), desc="readers"):
        line = tried(name, count, random.randrange(2**31))
        keep({name: line})
        failures += [f"{name}: {fault}" for fault in line["faults"]]
        figures[name] = f"{line['executions']} in {line['cpu_seconds']:.0f} s"
        for fault in line["faults"]:
            tqdm.write(f"{name}: {fault}")
        if each is not None:
            each(name, line)
    return Outcome(failures=failures, figures=figures)


ROWS = (
    Row(name="E1", promise="changed bytes in any file that is read: read or refused, typed, small",
        unit="CPU-seconds a reader", ci=0, full=1800, attempt=fuzzed),
)  # fmt: skip


def cli(given: Sequence[str]) -> None:
    """Some readers only."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--reader", action="append")
    parser.add_argument("--count", type=float, default=60)
    asked = parser.parse_args(given)
    sys.exit(bool(fuzzed(asked.count, asked.reader).failures))


if __name__ == "__main__":
    if find_spec("atheris") is None:
        sys.exit("pip install atheris: what the fuzzer is made of")
    if "--reader" in sys.argv:
        cli(sys.argv[1:])
    main(ROWS)
