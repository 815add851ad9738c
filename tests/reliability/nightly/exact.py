"""A1 to A4, B2, B4: what is promised to the bit, and how the environments speak of it.

docs/explanation/exactness.md says what each promise means; `tests/reliability/exact/` holds the
checks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from tests.reliability.exact import batches, isolation, mistakes, programs, restore
from tests.reliability.nightly.rows import Outcome, Row, main

LATENT: dict[str, Any] = {"observation": "latent"}
FRAME: dict[str, Any] = {"observation": "frame"}
A1_RUNS = (  # group, face, world, share of the seeds, steps, options; a group agrees seed by seed
    ("point", "gym", "point", 1.0, 1000, LATENT),
    ("point", "vector", "point", 1.0, 1000, LATENT),
    ("point", "torchrl", "point", 1.0, 1000, LATENT),
    ("point frames", "gym", "point", 1.0, 100, FRAME),
    ("point frames", "vector", "point", 1.0, 100, FRAME),
    ("tiny, one batch", "vector", "tiny", 1.0, 1000, LATENT),
    ("tiny", "gym", "tiny", 0.1, 1000, FRAME | {"micro_batch": 1}),
    ("tiny", "vector", "tiny", 0.1, 1000, FRAME | {"micro_batch": 1}),
    ("tiny", "torchrl", "tiny", 0.1, 1000, FRAME | {"micro_batch": 1}),
    ("car-racing", "gym", "car-racing", 0.03, 30, FRAME | {"micro_batch": 1}),
    ("car-racing", "vector", "car-racing", 0.03, 30, FRAME | {"micro_batch": 1}),
)
A1_QUICK = tuple(run for run in A1_RUNS if run[0] == "tiny")
STRANGERS = 50  # steps after which another seed's life must have been another
LIVE = (
    "import json, sys, torch; torch.set_num_threads(1);"
    "from tests.reliability.exact.streams import digests;"
    "face, name, count, steps, options = json.loads(sys.argv[1]);"
    "print(json.dumps(digests(face, name, range(count), steps, **options)))"
)


def lives(face: str, name: str, count: int, steps: int, options: dict[str, Any]) -> list[str]:
    """Digests of the seeds 0..count-1, from a process of their own."""
    given = json.dumps([face, name, count, steps, options])
    command = [sys.executable, "-W", "ignore", "-c", LIVE, given]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def same_seed(seeds: int) -> Outcome:
    """Two new processes, every face; and other seeds live other lives."""
    groups: dict[str, list[str]] = {}
    failures, compared = [], 0
    runs = A1_RUNS if seeds >= 100 else A1_QUICK
    for group, face, name, share, most, options in tqdm(runs, "A1", disable=None):
        count, steps = max(1, round(seeds * share)), most if seeds >= 100 else min(most, 20)
        first, again = (lives(face, name, count, steps, options) for _ in range(2))
        known = groups.setdefault(group, first)
        for seed, three in enumerate(zip(known, first, again, strict=True)):
            compared += 1
            if len(set(three)) > 1:
                failures.append(f"{group} through {face}, seed {seed}: lives differ")
        if steps >= STRANGERS:
            others = lives(face, name, 2 * count, STRANGERS, options)
            if len(set(others)) < len(others):
                failures.append(f"{group} through {face}: two of {2 * count} seeds live alike")
    return Outcome(failures=failures, figures={"lives compared": compared})


def restored(points: int) -> Outcome:
    """Saved at any moment, restored here and in another process."""
    failures: list[str] = []
    steps = 200 if points >= 1000 else 20
    for name, share in (("point", 0.7), ("tiny", 0.3)):
        count = max(1, round(points * share))
        with tempfile.TemporaryDirectory() as folder:
            found = restore.run(count, name, Path(folder), steps)
            for differ in tqdm(found, f"A2 {name}", 2 * count, disable=None):
                failures += [f"{name}: {told}" for told in differ]
    return Outcome(failures=failures, figures={"steps after each": steps})


def isolated(cases: int) -> Outcome:
    """Neighbours act, reset, end, turn NaN, change places."""
    failures: list[str] = []
    for name, share in (("point", 0.8), ("tiny", 0.2)):
        for case in tqdm(range(round(cases * share)), f"A3 {name}", disable=None):
            if differ := isolation.differ(name, case):
                failures.append(f"{name}, case {case}: {differ}")
    return Outcome(failures=failures)


def micro_batched(rows: int) -> Outcome:
    """The same bits in batches of 1 to `rows`; and how far rows drift without micro-batches."""
    steps = 10 if rows >= 64 else 2
    runs = [("tiny", 8, steps), ("tiny", 3, steps), ("point", 8, 2 * steps)]
    runs += [("car-racing", 8, 3)] if rows >= 64 else []
    failures = [
        f"{name}, micro_batch={size}: {bits} bits differ"
        for name, size, count in runs
        if (bits := batches.differing_bits(name, size, count, rows))
    ]
    figures: dict[str, Any] = {"worlds and sizes": len(runs)}
    if rows >= 64:
        for name, most in (("tiny", 64), ("car-racing", 16)):
            figures[f"{name} without"] = batches.drift(name, 10, most)
            figures[f"{name}, 1 thread against 2"] = batches.across_threads(name, 10)
    return Outcome(failures=failures, figures=figures)


def spoken(count: int) -> Outcome:
    """Generated programs of resets, partial resets and steps against plain Python."""
    failures = []
    for seed in tqdm(range(count), "B2", disable=None):
        try:
            programs.run(seed)
        except AssertionError as error:
            failures.append(f"program {seed}: {str(error)[:200]}")
    return Outcome(failures=failures)


def mistaken(count: int) -> Outcome:
    """Bad inputs: a typed error, and not a byte of the state changed."""
    given = list(mistakes.cases())
    given = given[:: max(1, len(given) // count)]
    bar = tqdm(given, "B4", disable=None)
    return Outcome(failures=[t for case in bar if (t := mistakes.wrong(case))], tried=len(given))


ROWS = (
    Row(name="A1", promise="same seed, same bytes, in new processes and through every face",
        unit="seeds, up to 1,000 steps each", ci=1, full=100, attempt=same_seed),
    Row(name="A2", promise="saved at any moment, the future repeats, here and elsewhere",
        unit="restore points", ci=4, full=1000, attempt=restored),
    Row(name="A3", promise="a row does not know its neighbours",
        unit="cases", ci=10, full=5000, attempt=isolated),
    Row(name="A4", promise="micro-batched, a row does not know the size of the batch",
        unit="rows at most", ci=4, full=64, attempt=micro_batched),
    Row(name="B2", promise="resets, masks and ends are those of plain Python",
        unit="programs", ci=20, full=10_000, attempt=spoken),
    Row(name="B4", promise="bad input is a typed error and changes nothing",
        unit="mistakes", ci=30, full=300, attempt=mistaken),
)  # fmt: skip

if __name__ == "__main__":
    torch.set_num_threads(1)
    main(ROWS)
