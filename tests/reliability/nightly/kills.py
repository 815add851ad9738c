"""D1: kill -9 at any moment loses nothing that was acknowledged, and leaves nothing that is torn.

`D1` kills at random moments; `D1-faults` at every step on the way to the disk, before it and after
it, or lets it fail as a full or a broken disk would.
"""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count as count_up
from pathlib import Path
from typing import Any
from unittest.mock import patch

import safetensors.torch
from tqdm import tqdm

from tests.reliability.nightly.forks import Child
from tests.reliability.nightly.rows import Outcome, Row, main
from tests.reliability.nightly.writers import WRITERS, Writer, undisturbed
from tests.reliability.nightly.writers_kept import KEPT, recorded
from worldsim.train import checkpoint

PACES = 2.0  # versions that a writer lives for, at most
FIRST_PACE = 0.1  # seconds that a version is taken to take before one was seen
SIGNS = (*[signal.SIGKILL] * 5, signal.SIGTERM)  # in turn
WARM = 600.0  # seconds in which a writer's first acknowledgement comes, on a busy machine, too


def kills(count: int) -> Outcome:
    """Kill writers `count` times at random moments, each going on from what the last one left."""
    draw, failures, moments, sent = random.Random(0), [], Counter(), Counter()
    pace: dict[str, float] = {}
    undisturbed()  # before the first child asks
    recorded()
    writers = WRITERS | KEPT
    with tempfile.TemporaryDirectory() as root:
        for case in tqdm(range(count), desc="kills", leave=False):
            turn, place = divmod(case, len(writers))
            name, sign = list(writers)[place], SIGNS[turn % len(SIGNS)]
            sent[f"{name}, {sign.name}"] += 1
            folder = Path(root) / name
            folder.mkdir(exist_ok=True)
            try:
                live = partial(draw.uniform, 0, PACES * pace.get(name, FIRST_PACE))
                versions, seconds = _kill_once(writers[name], folder, live, sign)
                moments[name] += versions
                if versions or seconds > pace.get(name, FIRST_PACE):
                    pace[name] = seconds / max(1, versions)
            except Exception as error:
                failures.append(f"kill {case}, {name}: {error!r}"[:300])
                shutil.rmtree(folder)
    figures = {"kills": dict(sent), "new versions between kills": dict(moments)}
    return Outcome(failures=failures, figures=figures)


def _kill_once(
    writer: Writer, folder: Path, live: Callable[[], float], sign: signal.Signals
) -> tuple[int, float]:
    """Let a writer live for a moment; how many versions it wrote, and in how many seconds.

    Raises if something is lost.
    """
    killed, since, now, lived = False, -1, -1, 0.0
    while not killed:
        since = writer.read(folder) if any(folder.iterdir()) else -1
        with Child(lambda child: writer.write(folder, child.tell)) as child:
            if since < 0:  # nothing is there before the first is whole
                since = _first(child)
            begun = time.monotonic()
            time.sleep(live())
            killed = child.kill(sign)
            if not killed and child.wait() != 0:
                raise RuntimeError("the writer fell over what was left by the last one")
            least, lived = max(since, child.told), time.monotonic() - begun
        now = writer.read(folder)
        if now < least:
            raise RuntimeError(f"version {now} is older than {least}, which was acknowledged")
        _tidy(writer, folder, now)
    return max(0, now - since), lived


def _first(child: Child) -> int:
    """The first version that a writer tells of, if it lives so long."""
    until = time.monotonic() + WARM
    while child.told < 0 and child.running():
        if time.monotonic() > until:
            raise RuntimeError(f"the writer hangs: nothing is written after {WARM:.0f} s")
        time.sleep(0.001)
    return child.told


def _tidy(writer: Writer, folder: Path, version: int) -> None:
    """Begin what is finished anew, after a look at how it ended; delete what may be deleted."""
    for leftover in folder.rglob(".*.tmp"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    if writer.over(folder, version):
        shutil.rmtree(folder)
        folder.mkdir()


# --- every step on the way to the disk ---

CALLS: tuple[tuple[Any, str], ...] = (
    (os, "fsync"), (os, "replace"), (os, "rename"), (os, "mkdir"), (shutil, "rmtree"),
    (checkpoint, "save_file"), (safetensors.torch, "save_file"), (Path, "open"),
)  # fmt: skip
KINDS = ("before", "after", "ENOSPC", "EIO", "torn")
REACHED, DONE, REFUSED = 1, 2, 3  # what a child told


class _Done(BaseException):
    """The first version is acknowledged."""


class Disk:
    """Lets the n-th call on the way to the disk go wrong."""

    def __init__(self, kind: str, n: int, reached: Callable[[], None]) -> None:
        self.kind, self.left, self.reached = kind, n, reached

    def wrap(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """The call, which goes wrong when its turn has come."""

        def call(*given: Any, **named: Any) -> Any:
            self.left -= 1
            if self.left != -1:
                return real(*given, **named)
            self.reached()
            if self.kind == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.kind in ("ENOSPC", "EIO"):
                code = getattr(errno, self.kind)
                raise OSError(code, os.strerror(code))
            result = real(*given, **named)
            os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call


def _attempt(writer: Writer, folder: Path, kind: str, n: int, child: Child) -> None:
    """In the child: write one version on a disk that goes wrong at call n."""
    told = {"reached": False}

    def acknowledge(version: int) -> None:
        raise _Done

    if kind == "torn":  # the system's own refusal, in the middle of a file
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n, n))
    disk = Disk(kind, n if kind != "torn" else -1, lambda: told.update(reached=True))
    patches = [patch.object(place, name, disk.wrap(getattr(place, name))) for place, name in CALLS]
    for each in patches:
        each.start()
    try:
        writer.write(folder, acknowledge)
    except _Done:
        child.tell(DONE if told["reached"] or kind == "torn" else 0)
    except Exception:
        child.tell(REFUSED)


def faults(count: int) -> Outcome:
    """Every fault at every call of every writer, of which `count` at most are tried."""
    failures, tried = [], Counter()
    undisturbed()
    recorded()
    with tempfile.TemporaryDirectory() as root:
        cases = _cases(Path(root), count)
        for name, kind, n, wrong, ended in tqdm(cases, desc="faults", total=count, leave=False):
            tried[f"{name} {ended}"] += 1
            failures += [f"{name}, {kind} at {n}: {x}" for x in wrong]
    return Outcome(failures=failures, figures=dict(tried), tried=sum(tried.values()))


def _cases(root: Path, count: int) -> Iterator[tuple[str, str, int, list[str], str]]:
    """Writer, kind and place of each fault, what is wrong after it, and how the writer ended."""
    left = count
    for kind in KINDS:
        for name, writer in (WRITERS | KEPT).items():
            first = root / name
            if not first.exists():
                _write_one(writer, first)
            for n in count_up():
                place = 331 * n + 1 if kind == "torn" else n
                folder = root / "harmed"
                shutil.copytree(first, folder)
                ended = _ended(partial(_attempt, writer, folder, kind, place))
                if ended != "missed":
                    yield name, kind, place, _wrong(writer, first, folder, ended), ended
                    left -= 1
                shutil.rmtree(folder)
                through = ended == "went on" if kind == "torn" else ended == "missed"
                if through or left <= 0 or n > 200:
                    break
        if left <= 0:
            return


def _ended(work: Callable[[Child], None]) -> str:
    with Child(work) as child:
        child.wait()
        return {DONE: "went on", REFUSED: "refused", 0: "missed"}.get(child.told, "killed")


def _write_one(writer: Writer, folder: Path) -> None:
    folder.mkdir()

    def stop(version: int) -> None:
        raise _Done

    try:
        writer.write(folder, stop)
    except _Done:
        return


def _wrong(writer: Writer, first: Path, folder: Path, ended: str) -> list[str]:
    """What a fault broke."""
    try:
        old, now = writer.read(first), writer.read(folder)
    except Exception as error:
        return [f"unloadable: {error!r}"[:300]]
    wrong = [] if now in (old, old + 1) else [f"version {now} after {old}"]
    if ended == "went on" and now != old + 1:
        wrong.append("acknowledged, but not there")
    if ended == "refused" and (strays := sorted(p.name for p in folder.rglob(".*.tmp"))):
        wrong.append(f"left behind: {strays}")
    return wrong


ROWS = (
    Row(name="D1", promise="killed at any moment (-9, TERM): all loads, nothing acknowledged lost",
        unit="kills", ci=18, full=2_160, attempt=kills),
    Row(name="D1-faults", promise="killed or refused at each call on the way to the disk: the same",
        unit="faults", ci=12, full=1_000, attempt=faults),
)  # fmt: skip

if __name__ == "__main__":
    main(ROWS)
