"""The process that tries one reader: `python -m tests.reliability.nightly.fuzz_child`.

Told the reader's name, CPU-seconds, a seed and a folder, it writes FOLDER/line.json as it goes on.
A crash leaves the case that caused it in the folder.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

atheris: Any = import_module("atheris")  # in C++, and without types

with atheris.instrument_imports(include=["worldsim"], enable_loader_override=False):
    from tests.reliability.nightly.judge import Judge
    from worldsim.files import write_text

MAX_INPUT = 2**17  # bytes


def child(name: str, seconds: float, seed: int, place: Path) -> None:
    """Try one reader for so many CPU-seconds; what came of it goes into PLACE/line.json."""
    judge = Judge(name, place / "files")
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
        draw = random.Random(number)
        if draw.random() < 0.3:
            return atheris.Mutate(data, most)
        return draw.choice(judge.target.changes)(data or judge.good, draw)[:most]

    corpus = place / "corpus"
    corpus.mkdir()
    (corpus / "good").write_bytes(judge.good)
    tell()
    options = [f"-seed={seed}", f"-max_len={MAX_INPUT}", "-timeout=1200", "-rss_limit_mb=0",
               "-malloc_limit_mb=0", f"-artifact_prefix={place}/", str(corpus)]  # fmt: skip
    atheris.Setup([name, *options], one, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    child(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
