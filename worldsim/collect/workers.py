"""Recording many episodes, on all cores, resumable at any moment."""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process

import cloudpickle
from tqdm import tqdm

from worldsim.data.dataset import DatasetError
from worldsim.data.native import NativeDataset, NativeWriter, load_episode

from .policies import Behaviour
from .recorder import CollectConfig, describe, episode_name, record


def collect(config: CollectConfig, behaviours: Sequence[Behaviour]) -> NativeDataset:
    """Record every episode of `config` that is not yet there, whole and readable.

    Each episode's behaviour and randomness follow from its seed alone: recording it again gives the
    same bytes, in any order, with any number of workers. A kill loses only the episodes under way.
    Episodes already there are kept, whatever policy acted in them. With several workers a script
    needs the usual ``if __name__ == "__main__":`` around this call.
    Raises CollectError or DatasetError where the environment or the folder does not fit, and
    RuntimeError if a worker dies.
    """
    writer = NativeWriter(config.folder, describe(config))
    jobs = [(split, seed) for split, span in config.seeds.items() for seed in range(*span)]
    results = _in_processes if config.workers > 1 else _in_this_process
    with tqdm(unit="frame", total=len(jobs) * config.max_frames, file=sys.stderr) as bar:
        kept = 0
        for frames, recorded in results(writer, config, tuple(behaviours), jobs):
            kept += not recorded
            bar.total += frames - config.max_frames if recorded else -config.max_frames
            bar.update(frames if recorded else 0)
            bar.set_postfix(already_there=kept)
    return writer.dataset()


Job = tuple[str, int]
Result = tuple[int, bool]  # frames, whether they were recorded now


def _run_job(
    writer: NativeWriter, config: CollectConfig, behaviours: Sequence[Behaviour], job: Job
) -> Result:
    split, seed = job
    path = writer.path(split, episode_name(seed))
    if path.exists():
        try:
            return len(load_episode(path).frames[:]), False
        except DatasetError:  # broken: set aside, and recorded again
            path.replace(path.with_suffix(".broken"))
    try:
        episode = record(config, behaviours, seed)
    except Exception as error:
        error.add_note(f"while recording seed {seed} of {split}")
        raise
    writer.write(split, episode)
    return len(episode.frames), True


def _in_this_process(
    writer: NativeWriter,
    config: CollectConfig,
    behaviours: Sequence[Behaviour],
    jobs: Sequence[Job],
) -> Iterator[Result]:
    for job in jobs:
        yield _run_job(writer, config, behaviours, job)


def _in_processes(
    writer: NativeWriter,
    config: CollectConfig,
    behaviours: Sequence[Behaviour],
    jobs: Sequence[Job],
) -> Iterator[Result]:
    # cloudpickle: behaviours may be lambdas and closures, which plain pickle refuses
    task = cloudpickle.dumps((writer, config, behaviours))
    pool = ProcessPoolExecutor(config.workers, get_context("spawn"), initializer=_start_worker)
    with pool:
        futures = [pool.submit(_worker_job, task, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a worker process died (out of memory, or the calling script lacks "
                '`if __name__ == "__main__":`); episodes that were finished are kept: run again'
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _worker_job(task: bytes, job: Job) -> Result:
    writer, config, behaviours = cloudpickle.loads(task)
    return _run_job(writer, config, behaviours, job)


def _start_worker() -> None:
    """Ctrl-C is the parent's to handle: the episode under way is finished and kept. A worker whose
    parent was killed ends, too; nothing else would tell it."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # no window, where there is no screen
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
