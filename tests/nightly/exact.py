"""The full counts of what is promised exactly: `python -m tests.nightly.exact [A1 A2 ...]`.

Prints a JSON line for every row of the catalogue (goal: 0 mismatches) with the machine, and ends
with 1 if anything was not as promised. Takes about an hour of one core; `--share 0.1` takes a tenth
of the cases of A1, A2, A3 and B2.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch  # noqa: E402
from tqdm import tqdm  # noqa: E402

from tests.exact import batches, isolation, mistakes, programs, restore  # noqa: E402
from worldsim.fidelity.provenance import provenance  # noqa: E402

Row = dict[str, Any]
SHARE = 1.0  # of the cases
A1_RUNS = (  # face, world, seeds, steps, options; runs of one group must agree seed by seed
    ("point", "gym", "point", 100, 1000, {"observation": "latent"}),
    ("point", "vector", "point", 100, 1000, {"observation": "latent"}),
    ("point", "torchrl", "point", 100, 1000, {"observation": "latent"}),
    ("point frames", "gym", "point", 100, 100, {"observation": "frame"}),
    ("point frames", "vector", "point", 100, 100, {"observation": "frame"}),
    ("tiny, batch 100", "vector", "tiny", 100, 1000, {"observation": "latent"}),
    ("tiny", "gym", "tiny", 10, 1000, {"observation": "frame", "micro_batch": 1}),
    ("tiny", "vector", "tiny", 10, 1000, {"observation": "frame", "micro_batch": 1}),
    ("tiny", "torchrl", "tiny", 10, 1000, {"observation": "frame", "micro_batch": 1}),
    ("car-racing", "gym", "car-racing", 3, 30, {"observation": "frame", "micro_batch": 2}),
    ("car-racing", "vector", "car-racing", 3, 30, {"observation": "frame", "micro_batch": 2}),
)
STRANGERS = 50  # steps after which another seed's life must have been another


def part(count: int) -> int:
    return max(1, round(count * SHARE))


def fresh(face: str, name: str, first: int, count: int, steps: int, options: Row) -> list[str]:
    """Digests from a process of their own."""
    code = (
        "import json, sys, torch; torch.set_num_threads(1);"
        "from tests.exact.streams import digests;"
        "face, name, first, count, steps, options = json.loads(sys.argv[1]);"
        "print(json.dumps(digests(face, name, range(first, first + count), steps, **options)))"
    )
    given = json.dumps([face, name, first, count, steps, options])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, given], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def a1() -> Row:
    """Same seed, two new processes, every face; other seeds differ."""
    groups: dict[str, list[str]] = {}
    wrong = alike = 0
    runs = [(*run[:3], part(run[3]), *run[4:]) for run in A1_RUNS]
    for group, face, name, count, steps, options in tqdm(runs, "A1", disable=None):
        twice = [fresh(face, name, 0, count, steps, options) for _ in range(2)]
        wrong += sum(a != b for a, b in zip(*twice, strict=True))
        first = groups.setdefault(group, twice[0])
        wrong += sum(a != b for a, b in zip(first, twice[0], strict=True))
        others = fresh(face, name, 0, 2 * count, STRANGERS, options) if steps == 1000 else twice[0]
        alike += len(others) - len(set(others))
    return {"runs": [run[1:] for run in runs], "mismatches": wrong, "other_seeds_alike": alike}


def a2() -> Row:
    """Saved at 1,000 moments, restored here and in another process, 200 steps each."""
    wrong: list[str] = []
    for name, points in (("point", part(700)), ("tiny", part(300))):
        with tempfile.TemporaryDirectory() as folder:
            found = restore.run(points, name, Path(folder))
            for differ in tqdm(found, f"A2 {name}", 2 * points, disable=None):
                wrong += differ
    return {
        "points": part(700) + part(300),
        "steps": 200,
        "mismatches": len(wrong),
        "which": wrong[:10],
    }


def a3() -> Row:
    """Neighbours act, reset, end, turn NaN, change places."""
    wrong: list[Any] = []
    for name, count in (("point", part(4000)), ("tiny", part(1000))):
        for case in tqdm(range(count), f"A3 {name}", disable=None):
            if differ := isolation.differ(name, case):
                wrong.append([name, case, differ])
    return {"cases": part(4000) + part(1000), "mismatches": len(wrong), "which": wrong[:10]}


def a4() -> Row:
    """Micro-batches; and, without them, how far rows drift with the batch."""
    bits = {
        f"{name}, micro_batch={rows}, {steps} steps": batches.differing_bits(name, rows, steps, n)
        for name, rows, steps, n in (("tiny", 8, 10, 64), ("tiny", 3, 10, 64), ("point", 8, 20, 64),
                                     ("car-racing", 8, 3, 64))
    }  # fmt: skip
    far = {name: batches.drift(name, 10, n) for name, n in (("tiny", 64), ("car-racing", 16))}
    threads = {name: batches.across_threads(name, 10) for name in ("tiny", "car-racing")}
    told = {"differing_bits": bits, "default_mode": far, "one_thread_against_two": threads}
    return {**told, "mismatches": sum(bits.values())}


def b2() -> Row:
    """Generated programs against plain Python."""
    wrong = []
    for seed in tqdm(range(part(10_000)), "B2", disable=None):
        try:
            programs.run(seed)
        except AssertionError as error:
            wrong.append([seed, str(error)[:200]])
    return {"programs": part(10_000), "mismatches": len(wrong), "which": wrong[:10]}


def b4() -> Row:
    """Bad inputs: typed errors, state bytes unchanged."""
    given = list(mistakes.cases())
    wrong = [told for case in tqdm(given, "B4", disable=None) if (told := mistakes.wrong(case))]
    return {"cases": len(given), "mismatches": len(wrong), "which": wrong[:10]}


ROWS: dict[str, Callable[[], Row]] = {"A1": a1, "A2": a2, "A3": a3, "A4": a4, "B2": b2, "B4": b4}


def main() -> int:
    global SHARE
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", nargs="*", help=f"some of {', '.join(ROWS)}; all if none is named")
    parser.add_argument("--share", type=float, default=SHARE, help="of the cases")
    asked = parser.parse_args()
    SHARE = asked.share
    torch.set_num_threads(1)
    failed = 0
    for name in asked.rows or ROWS:
        start = time.perf_counter()
        row = {"row": name, **ROWS[name](), "seconds": round(time.perf_counter() - start, 1)}
        about = provenance(f"python -m tests.nightly.exact {name} --share {SHARE:g}")
        print(json.dumps({**row, "provenance": about}), flush=True)
        failed += row["mismatches"] + row.get("other_seeds_alike", 0)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
