"""Recording many episodes, on all cores, resumable at any moment."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import cloudpickle
from tqdm import tqdm

from worldsim.data.dataset import DatasetError, Episode
from worldsim.data.native import NativeDataset, NativeWriter, load_episode

from .errors import CollectError
from .policies import CollectPolicy
from .recorder import describe, record
from .source import Source

PIECE = 256  # frames that are read together when an episode is checked


@dataclass(frozen=True, kw_only=True)
class Job:
    """One episode to record: where it goes, the environment's seed, the name of who acts."""

    split: str
    name: str
    seed: int
    policy: str


@dataclass(frozen=True)
class Task:
    """What all jobs share."""

    source: Source
    writer: NativeWriter
    policies: tuple[CollectPolicy, ...]

    def policy(self, name: str) -> CollectPolicy:
        """The policy of that name."""
        return next(policy for policy in self.policies if policy.name == name)


Result = tuple[int, bool]  # frames, whether they were recorded now


def collect_jobs(
    source: Source, out: Path, jobs: Sequence[Job], policies: Sequence[CollectPolicy], workers: int
) -> NativeDataset:
    """Record every job that is not yet in the folder `out`, whole and readable.

    Raises CollectError or DatasetError where the environment or the folder does not fit. An error
    or Ctrl-C stops all workers within a step; episodes that were finished are kept.
    """
    names = [policy.name for policy in policies]
    if len(set(names)) < len(names):
        raise CollectError(f"policy: expected another name for each policy, got {names}")
    task = Task(source, NativeWriter(out, describe(source, out.name)), tuple(policies))
    results = _in_processes if workers > 1 else _in_this_process
    most = source.spec.max_frames
    with tqdm(unit="frame", total=len(jobs) * most, file=sys.stderr) as bar:
        kept = 0
        for frames, recorded in results(task, jobs, workers):
            kept += not recorded
            bar.total += frames - most if recorded else -most
            bar.update(frames if recorded else 0)
            bar.set_postfix(already_there=kept)
    return task.writer.dataset()


def run_job(task: Task, job: Job, stopped: Callable[[], bool] = lambda: False) -> Result:
    """Record one episode unless it is there."""
    path = task.writer.path(job.split, job.name)
    if path.exists():
        if (frames := _whole(path)) is not None:
            return frames, False
        aside = set_aside(path)
        print(f"{path}: damaged; set aside as {aside.name}, recording it again", file=sys.stderr)
    try:
        episode = record(
            task.source, task.policy(job.policy), seed=job.seed, name=job.name, stopped=stopped
        )
    except Exception as error:
        error.add_note(f"while recording {job.name}, seed {job.seed}")
        raise
    _write(task.writer, job.split, episode, path)
    return len(episode.frames), True


def _write(writer: NativeWriter, split: str, episode: Episode, path: Path) -> None:
    try:
        writer.write(split, episode)
    except OSError as error:
        raise CollectError(
            f"{path}: could not be written ({error.strerror or error}); make room or choose "
            "another folder; what was finished is kept: run the same again"
        ) from error


def _whole(path: Path) -> int | None:
    """Frames of an episode that was recorded before, None if its file is provably damaged.

    Raises DatasetError where it cannot be read just now: nothing is said about the file then.
    """
    try:
        episode = load_episode(path)
        for first in range(0, len(episode.frames), PIECE):
            episode.frames[first : first + PIECE]  # which verifies their checksums
        return len(episode.frames)
    except DatasetError as error:
        if isinstance(error.__cause__, OSError):
            raise CollectError(
                f"{path}: cannot be read ({error.__cause__}); it was left as it is: mend the disk "
                "or move the file away, and run the same again"
            ) from error
        return None


def set_aside(path: Path) -> Path:
    """Give a damaged file another name beside the old one; nothing is deleted or replaced."""
    number, aside = 1, path.with_name(f"{path.name}.damaged")
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{number}")
    return path.rename(aside)


def _in_this_process(task: Task, jobs: Sequence[Job], workers: int) -> Iterator[Result]:
    for job in jobs:
        yield run_job(task, job)


def _in_processes(task: Task, jobs: Sequence[Job], workers: int) -> Iterator[Result]:
    # cloudpickle: policies and makers may be lambdas and closures, which plain pickle refuses
    context, rest = get_context("spawn"), iter(jobs)
    stop = context.Event()
    parcel = cloudpickle.dumps(task)
    pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(parcel, stop))
    waiting: set[Future[Result]] = set()
    try:
        while True:
            for job in rest:  # no more than workers at a time: what is queued cannot be called off
                waiting.add(_submit(pool, job))
                if len(waiting) >= workers:
                    break
            if not waiting:
                return
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        raise CollectError(
            "workers: a process died (out of memory, or a crash of the environment); episodes that "
            "were finished are kept: run the same again, with fewer workers"
        ) from error
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, job: Job) -> Future[Result]:
    with _hidden_main(), _deaf():
        return pool.submit(_worker_job, job)


@contextmanager
def _deaf() -> Iterator[None]:
    """Children that start within do not hear Ctrl-C while they import: their parent stops them.

    It waits meanwhile, and reaches this process afterwards.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _hidden_main() -> Iterator[None]:
    """Children that start within do not run the caller's script again, as they otherwise would to
    find its functions: those come by value. So a script needs no `if __name__ == "__main__":`."""
    names = vars(sys.modules["__main__"])
    kept = {name: names[name] for name in ("__spec__", "__file__") if name in names}
    names.update(__spec__=None)
    names.pop("__file__", None)
    try:
        yield
    finally:
        names.update(kept)


_parcel: Any = None
_stop: Any = None


def _worker_job(job: Job) -> Result:
    task = cloudpickle.loads(_parcel)  # anew for each episode: policies may remember things
    return run_job(task, job, _stop.is_set)


def _start(parcel: bytes, stop: Any) -> None:
    """Ctrl-C is the parent's to handle. A worker whose parent was killed ends, too; nothing else
    would tell it."""
    global _parcel, _stop
    _parcel, _stop = parcel, stop
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # no window, where there is no screen
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")  # it would swallow SIGTERM
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    parent = parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
