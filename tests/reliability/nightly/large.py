"""E1-large: what is refused, is refused in 2 seconds and 256 MiB, however large a file is.

Fuzzing changes small files. Here each file that worldsim reads is blown up, in the ways that its
format has: values by the million, nothing but brackets, long strings, many members, what unpacks to
more, rows without end; and in its place lies what is no file.
"""

from __future__ import annotations

import io
import json
import os
import signal
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tests.reliability.nightly.forks import Child
from tests.reliability.nightly.fuzz_target import Target
from tests.reliability.nightly.fuzz_targets import targets
from tests.reliability.nightly.judge import judged
from tests.reliability.nightly.rows import Outcome, Row, main

MIB = 2**20
HUNG = 30  # seconds until a reader counts as hanging
Case = tuple[str, Callable[[], bytes]]

STRINGS = ("x" * (4 * MIB), "\U0001f600" + "x" * (15 * MIB), "1," * (2 * MIB))
LISTS = ([0] * MIB, [[]] * MIB, [{}] * (MIB // 2), ["x"] * MIB, [1.5] * MIB)


def cases(good: bytes) -> Iterator[Case]:
    """A file of this kind blown up, in each way by its name."""
    yield "zeros", lambda: bytes(64 * MIB)
    yield "itself and zeros", lambda: good + bytes(64 * MIB)
    yield "itself again and again", lambda: good * (16 * MIB // len(good))
    if good[:2] == b"PK":
        yield from _zips(good)
    elif good[8:9] == b"{" and good[:1] not in b"{[":
        yield from _headers(good)
    elif good.count(b"\n") > 1 and good[:1] == b"{" and not good.startswith(b"{\n"):
        yield from _lines(good.splitlines()[0])
    elif good[:1] in (b"{", b"["):
        yield from _texts(good)
    elif b"," in good[:40]:
        yield from _tables(good)


def _texts(good: bytes) -> Iterator[Case]:
    for size in (MIB, 4 * MIB, 16 * MIB, 64 * MIB):
        for part in (b"{},", b"[],", b'{"a":1},', b"1,", b'"ab",', b"[[[[]]]],"):
            yield f"{size // MIB} MiB of {part!r}", lambda p=part, n=size: _filled(p, n)
    yield "deep", lambda: b"[" * MIB
    yield "one key", lambda: b"{" + b",".join([b'"a":1'] * MIB) + b"}"
    raw = json.loads(good)
    for path in _paths(raw):
        for value in (*STRINGS, *LISTS):
            told = f"{'.'.join(map(str, path))} with {len(value)} of {str(value[:1])[:9]}"
            yield told, lambda p=path, v=value: _with(raw, p, v)


def _filled(part: bytes, size: int) -> bytes:
    return b"[" + part * (size // len(part)) + b"0]"


def _paths(raw: Any, most: int = 40) -> list[tuple[Any, ...]]:
    """Places in JSON, outer ones first."""
    found: list[tuple[Any, ...]] = []
    queue: list[tuple[tuple[Any, ...], Any]] = [((), raw)]
    while queue and len(found) < most:
        path, value = queue.pop(0)
        keys = value if isinstance(value, dict) else range(len(value))
        for key in list(keys)[:20]:
            found.append((*path, key))
            if isinstance(value[key], dict | list):
                queue.append(((*path, key), value[key]))
    return found


def _with(raw: Any, path: tuple[Any, ...], value: Any) -> bytes:
    whole = deepcopy(raw)
    *parents, last = path
    place = whole
    for key in parents:
        place = place[key]
    place[last] = value
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()


def _lines(line: bytes) -> Iterator[Case]:
    for size in (4 * MIB, 64 * MIB):
        for part in (line, b"{}", b"", b'{"a": 1}', b"["):
            told = f"{size // MIB} MiB of lines {part[:20]!r}"
            yield told, lambda p=part, n=size: (p + b"\n") * (n // (len(p) + 1))
    yield "one line", lambda: b'{"a": "' + b"x" * (16 * MIB) + b'"}'
    yield "a line of brackets", lambda: b"[" * (16 * MIB)


def _headers(good: bytes) -> Iterator[Case]:
    size = int.from_bytes(good[:8], "little")
    header, data = json.loads(good[8 : 8 + size]), good[8 + size :]

    def told(more: Any) -> bytes:
        text = json.dumps(header | more, separators=(",", ":")).encode()
        return len(text).to_bytes(8, "little") + text + data

    none = {"dtype": "F32", "shape": [], "data_offsets": [0, 0]}
    empty = none | {"shape": [0]}
    for count in (10_000, 60_000, 300_000):
        for kind in (none, empty):
            name = f"{count} tensors {kind['shape']}"
            yield name, lambda c=count, k=kind: told({f"t{i}": k for i in range(c)})
    yield "many sides", lambda: told({"t": none | {"shape": [1] * MIB}})
    yield "a long name", lambda: told({"t" * (3 * MIB): empty})
    yield "a long metadata", lambda: told({"__metadata__": {"a": "x" * (3 * MIB)}})
    yield "a length", lambda: (2**62).to_bytes(8, "little") + good[8:]
    yield "brackets", lambda: (3 * MIB).to_bytes(8, "little") + b"[" * (3 * MIB)


def _zips(good: bytes) -> Iterator[Case]:
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def packed(more: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method, compresslevel=1) as archive:
            for name, content in (members | more).items():
                archive.writestr(name, content)
        return stream.getvalue()

    def array(dtype: str, shape: tuple[int, ...]) -> bytes:
        stream = io.BytesIO()
        text = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, text)
        return stream.getvalue() + bytes(np.dtype(dtype).itemsize * int(np.prod(shape)))

    for name in members:
        for dtype, shape in (("|u1", (200 * MIB,)), ("<f4", (40 * MIB,)), ("<i8", (MIB, 8)),
                             ("<U4000000", ()), ("<U16000", ())):  # fmt: skip
            told = f"{name}: {dtype} {shape}"
            yield told, lambda n=name, d=dtype, s=shape: packed({n: array(d, s)})
        yield f"{name}: no array", lambda n=name: packed({n: bytes(200 * MIB)})
    yield "many members", lambda: packed({f"{i}.npy": b"" for i in range(60_000)})
    bomb = {next(iter(members)): bytes(64 * MIB)}
    yield "bzip2", lambda: packed(bomb, zipfile.ZIP_BZIP2)
    yield "lzma", lambda: packed(bomb, zipfile.ZIP_LZMA)


def _tables(good: bytes) -> Iterator[Case]:
    head, row, *_ = good.splitlines()
    for size in (4 * MIB, 32 * MIB, 64 * MIB, 300 * MIB):
        for part in (row, b"", b"1", b",", b'"', row.replace(b"left", b"l" * 1000)):
            told = f"{size // MIB} MiB of rows {part[:20]!r}"
            yield told, lambda p=part, n=size: head + b"\n" + (p + b"\n") * (n // (len(p) + 1))
    yield "many columns", lambda: b",".join(b"%d" % i for i in range(10_000)) + b"\n"


def places(path: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What may lie in a file's place that is none."""
    yield "a pipe", lambda: os.mkfifo(path)
    yield "a folder", lambda: path.mkdir()
    yield "a sparse file", lambda: (path.touch(), os.truncate(path, 3 * 2**30))
    yield "an endless one", lambda: path.symlink_to("/dev/zero")
    yield "a link to itself", lambda: path.symlink_to(path)
    yield "nothing", lambda: None


def _remove(path: Path) -> None:
    """Whatever lies there; a pipe is not opened for it."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)


def tried(target: Target, good: bytes, few: bool) -> Iterator[tuple[str, list[str]]]:
    """Each case by its name, and what was wrong with it."""
    for number, (name, make) in enumerate(cases(good)):
        if few and number % 5:
            continue
        target.put(make())
        yield name, timed(target.read)
    for name, put in places(target.path):
        _remove(target.path)
        put()
        yield name, timed(target.read)


def timed(read: Callable[[], Any]) -> list[str]:
    """What was wrong; also where it does not end."""

    def hung(*_: Any) -> None:
        raise TimeoutError("hangs")

    signal.signal(signal.SIGALRM, hung)
    signal.alarm(HUNG)
    try:
        return judged(read, successes=False)
    finally:
        signal.alarm(0)


def large(count: int, only: tuple[str, ...] = ()) -> Outcome:
    """Every reader; a `count` of less than 100 tries a fifth of what it can be blown up to."""
    failures, total = [], 0
    with tempfile.TemporaryDirectory() as folder:
        found = targets(Path(folder) / "files")
        for name in tqdm(only or found, desc="readers", leave=False):
            target, out = found[name], Path(folder) / "told"

            def work(child: Child, target: Target = target, out: Path = out) -> None:
                good = target.path.read_bytes()
                with out.open("w") as file:
                    for case in tried(target, good, count < 100):
                        file.write(json.dumps(case) + "\n")
                        file.flush()

            with Child(work) as child:
                if (code := child.wait()) != 0:
                    failures.append(f"{name}: the reader ended with {code}")
            lines = [json.loads(line) for line in out.read_text().splitlines()]
            total += len(lines)
            failures += [f"{name}: {case}: {x}" for case, wrong in lines for x in wrong]
    return Outcome(failures=failures, tried=total, figures={"readers": len(only or found)})


ROWS = (
    Row(name="E1-large", promise="files blown up: refused or read, typed; refused in 2 s, 256 MiB",
        unit="files", ci=1, full=100, attempt=large),
)  # fmt: skip

if __name__ == "__main__":
    main(ROWS)
