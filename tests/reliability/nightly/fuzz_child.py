"""The process that tries readers: `python -m tests.reliability.nightly.fuzz_child SECONDS NAME...`.

Everything is imported and every good file made once; each reader is then tried in a fork of it, so
that a crash of FFmpeg, HDF5 or Arrow is a fault among others. A line of JSON for each goes out.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

atheris: Any = import_module("atheris")  # in C++, and without types

with atheris.instrument_imports(include=["worldsim"], enable_loader_override=False):
    from tests.reliability.nightly.forks import Child
    from tests.reliability.nightly.fuzz import KEPT, Line
    from tests.reliability.nightly.fuzz_target import Target
    from tests.reliability.nightly.fuzz_targets import targets
    from tests.reliability.nightly.judge import Judge
    from worldsim.files import write_text

MAX_INPUT = 2**17  # bytes
GRACE = 60  # seconds more than its own that a reader may take, ten times over


def tried(target: Target, files: Path, seconds: float) -> Line:
    """One reader's line: CPU-seconds, executions, faults; again where its process broke."""
    good = files.with_name("good")
    whole: Line = {"cpu_seconds": 0.0, "executions": 0, "faults": {}}
    while whole["cpu_seconds"] < seconds - 1 and len(whole["faults"]) < KEPT:
        shutil.rmtree(files)
        shutil.copytree(good, files, symlinks=True)
        with tempfile.TemporaryDirectory() as folder:
            place, left = Path(folder), seconds - whole["cpu_seconds"]
            broken = _ended(target, files, place, left)
            line = {"cpu_seconds": left, "executions": 0, "faults": {}}
            if (told := place / "line.json").exists():
                line = json.loads(told.read_text())
            cases = sorted(p for p in place.glob("*-*") if p.is_file())
            if broken:
                line["faults"][broken] = cases[0].read_bytes()[:4096].hex() if cases else ""
        whole["cpu_seconds"] += line["cpu_seconds"]
        whole["executions"] += line["executions"]
        whole["faults"] |= line["faults"]
    return whole


def _ended(target: Target, files: Path, place: Path, seconds: float) -> str:
    """Try a reader in a fork; how that broke, "" if it did not."""

    def work(child: Child) -> None:
        log = os.open(place / "log", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        _try(target, files, seconds, place)

    with Child(work) as child:
        until = time.monotonic() + 10 * (seconds + GRACE)
        while child.running() and time.monotonic() < until:
            time.sleep(0.05)
        if child.running():
            return "hangs"
        code = child.wait()
    if code == 0:
        return ""
    name = signal.Signals(-code).name if code < 0 else f"exit {code}"
    told = (place / "log").read_text(errors="replace").splitlines()
    why = next((line for line in told if "ERROR" in line), told[-1] if told else "")
    return f"crash: {name}: {why.partition('==')[2].partition('== ')[2][:200] or why[:200]}"


def _try(target: Target, files: Path, seconds: float, place: Path) -> None:
    """In the fork: what came of it goes into PLACE/line.json; a case that crashes stays there."""
    judge, draw = Judge(target, files), random.Random(os.getpid() + time.time_ns())
    begun = told = time.process_time()

    def tell() -> None:
        line = {"cpu_seconds": time.process_time() - begun, "executions": judge.tried}
        write_text(place / "line.json", json.dumps(line | {"faults": judge.faults}))

    def one(data: bytes) -> None:
        nonlocal told
        judge(data)
        now = time.process_time()
        if now - told > 5 or now - begun > seconds:
            told = now
            tell()
        if now - begun > seconds:
            os._exit(0)

    def change(data: bytes, most: int, number: int) -> bytes:
        drawn = random.Random(number)
        if drawn.random() < 0.3:
            return atheris.Mutate(data, most)
        return drawn.choice(target.changes)(data or judge.good, drawn)[:most]

    corpus = place / "corpus"
    corpus.mkdir()
    for number, seed in enumerate((judge.good, *target.seeds)):
        (corpus / f"good{number}").write_bytes(seed)
    tell()
    options = [f"-seed={draw.randrange(1, 2**31)}", f"-max_len={MAX_INPUT}", "-timeout=1200",
               "-rss_limit_mb=0", "-malloc_limit_mb=0", f"-artifact_prefix={place}/",
               str(corpus)]  # fmt: skip
    atheris.Setup(["fuzz", *options], one, custom_mutator=change)
    atheris.Fuzz()


def main(seconds: float, names: list[str]) -> None:
    """Try these readers, all without names."""
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "files"
        found = targets(files)
        if unknown := set(names) - found.keys():
            sys.exit(f"unknown: {sorted(unknown)}; there are {sorted(found)}")
        shutil.copytree(files, files.with_name("good"), symlinks=True)
        for name in names or found:
            line = tried(found[name], files, seconds)
            print(json.dumps({"reader": name} | line), flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
