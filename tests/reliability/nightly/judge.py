"""Reads changed files and says what was wrong: an error of no type of ours, time, memory, code."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from tests.reliability.nightly.audit import Audit
from tests.reliability.nightly.fuzz_target import Target
from worldsim.core import WorldError

SECONDS, MEBIBYTES = 2.0, 256  # that a refusal may take
LEARNED = 40  # first cases, in which Python loads what refusals need
KEPT = 20  # faults that are told of
ROOT = Path(__file__).resolve().parents[3]
LIBRARIES = (
    sys.prefix,
    sys.base_prefix,
    str(ROOT),
    "/usr/lib",
    "<frozen",
    "<string>",
    "/proc/self",
)
NATIVE = re.compile(r"'(av|h5py|pyarrow)/")  # Cython makes a code object for each traceback
HARMLESS = {*sys.stdlib_module_names, *packages_distributions(), "worldsim", "tests"}


class Judge:
    """Reads one changed file after the other and keeps what was wrong with that."""

    def __init__(self, target: Target, root: Path) -> None:
        self.target, self.root = target, root
        self.good = self.target.path.read_bytes()
        self.audit, self.tried = Audit().__enter__(), 0
        self.faults: dict[str, str] = {}  # kind of fault: the case that showed it, in hex
        with self.audit.learning():
            self.target.read()

    def __call__(self, data: bytes) -> None:
        """Read a file of these bytes."""
        self.target.put(data)
        self.tried += 1
        watched = self.tried > LEARNED
        with self.audit.watching(self.root) if watched else self.audit.learning():
            wrong = judged(self.target.read)
        wrong += _ran(self.audit.found())
        for fault in wrong:
            if len(self.faults) < KEPT:
                self.faults.setdefault(fault, data[:4096].hex())


def judged(read: Callable[[], Any], *, successes: bool = True) -> list[str]:
    """What is wrong with how `read` ended: only to succeed, or a typed error, small and soon.

    successes: whether one that succeeds, too, is to be small and soon.
    """
    wrong: list[str] = []
    refused, limits = False, []
    with limited(limits):
        try:
            read()
        except WorldError as error:
            refused = True
            text = str(error)
            if not text.isprintable() or len(text) > 4000:
                wrong.append(f"unprintable: {text[:200]!r}")
        except Exception as error:
            wrong.append(f"untyped: {type(error).__name__} {_where(error)}: {error!s:.100}")
    return wrong + (limits if refused or successes else [])


def _where(error: BaseException) -> str:
    """The innermost line of worldsim that the error came through."""
    trace, place = error.__traceback__, "?"
    while trace:
        path = Path(trace.tb_frame.f_code.co_filename)
        if "tests" not in path.parts and "site-packages" not in path.parts:
            place = f"{path.name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _ran(events: list[str]) -> list[str]:
    """What was run or touched, beyond Python loading a part of what is installed."""
    left = [event for event in events if not _harmless(event)]
    left = [x for x in left if not (x.startswith("code.__new__") and NATIVE.search(x))]
    loading = any(event.startswith("import ") and _harmless(event) for event in events)
    return [event for event in left if not (loading and event.startswith("marshal.loads"))]


def _harmless(event: str) -> bool:
    if event.startswith("import "):
        return event.removeprefix("import ('").partition("'")[0].partition(".")[0] in HARMLESS
    return event.startswith(
        tuple(f"{kind} {place}" for kind in ("exec", "opened") for place in LIBRARIES)
    )


@contextmanager
def limited(found: list[str]) -> Iterator[None]:
    """Says what took more time or memory than a refusal may."""
    _forget_peak()
    memory, start = _memory("VmRSS"), time.process_time()
    yield
    seconds, grown = time.process_time() - start, _memory("VmHWM") - memory
    if seconds > SECONDS:
        found.append(f"{seconds:.0f} s")
    if grown > MEBIBYTES:
        found.append(f"{grown // 64 * 64:.0f} MiB or more")


_STATUS = os.open("/proc/self/status", os.O_RDONLY)  # kept: to open them takes longer than a case
_PEAK = os.open("/proc/self/clear_refs", os.O_WRONLY)


def _forget_peak() -> None:
    os.pwrite(_PEAK, b"5", 0)


def _memory(kind: str) -> float:
    text = os.pread(_STATUS, 4096, 0).decode()
    return int(text.partition(f"{kind}:")[2].split()[0]) / 2**10
