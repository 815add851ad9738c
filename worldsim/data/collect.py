"""Recording many episodes, on all cores, resumable at any moment."""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context, parent_process
from pathlib import Path

import cloudpickle
from tqdm import tqdm

from worldsim.files import clear_leftovers

from .behaviours import Behaviour, car_racing_mix, from_path, uniform
from .dataset import SPLITS, Dataset, DatasetError, DatasetInfo
from .episodes import EpisodeError, save_episode
from .pendulum import pendulum, pendulum_mix
from .record import CollectConfig, CollectError, describe, record

__all__ = [
    "RECIPES",
    "CollectConfig",
    "CollectError",
    "car_racing",
    "car_racing_panel",
    "collect",
    "main",
    "pendulum",
]


def car_racing(folder: Path = Path("data/car-racing")) -> CollectConfig:
    """CarRacing-v3 as the bundled world saw it: the score bar cropped away, 56x64, 25 actions/s.

    The first 50 frames are the camera's zoom and are dropped.
    """
    return CollectConfig(
        env_id="CarRacing-v3",
        folder=folder,
        source="observation",
        crop=(0, 84, 0, 96),
        size=(56, 64),
        chunk=2,
        warmup=50,
        train=(0, 300),
        val=(1000, 1050),
        test=(5000, 5050),
    )


def car_racing_panel(folder: Path = Path("data/car-racing-panel")) -> CollectConfig:
    """The same with the panel below the picture: 64x64.

    The panel shows the speed, which a moving picture alone shows too roughly to be dreamt on: its
    latest chunk tells it to 1.4 units a second, six without the panel to 3.7 (docs/log.md).
    """
    return replace(car_racing(folder), crop=None, size=(64, 64))


RECIPES = {
    "car-racing": car_racing,
    "car-racing-panel": car_racing_panel,
    "pendulum": pendulum,
}
"""What is recorded for the worlds of this house, by name."""

MIXES = {"CarRacing-v3": car_racing_mix, "Pendulum-v1": pendulum_mix}
"""Who acts meanwhile, by environment."""


def main(config: CollectConfig, policy: str | None = None) -> Dataset:
    """Record `config` with the policy at "module:function"; without one, with the environment's mix
    of behaviours if there is one, else with uniformly random actions."""
    if policy is not None:
        return collect(config, (from_path(policy),))
    if config.env_id in MIXES:
        return collect(config, MIXES[config.env_id]())
    return collect(config, (Behaviour(name="uniform", make=uniform),))


def collect(config: CollectConfig, behaviours: Sequence[Behaviour]) -> Dataset:
    """Record every episode of `config` that is not yet there, whole and readable.

    Each episode's behaviour and randomness follow from its seed alone: recording it again gives the
    same bytes, in any order, with any number of workers. A kill loses only the episodes under way.
    Episodes already there are kept, whatever policy acted in them. With several workers a script
    needs the usual ``if __name__ == "__main__":`` around this call.
    Raises CollectError or DatasetError where the environment or the folder does not fit, and
    RuntimeError if a worker dies.
    """
    dataset = _prepare(config)
    jobs = [(split, seed) for split, span in config.seeds.items() for seed in range(*span)]
    results = _in_processes if config.workers > 1 else _in_this_process
    with tqdm(unit="frame", total=len(jobs) * config.max_frames, file=sys.stderr) as bar:
        kept = 0
        for frames, recorded in results(dataset, config, tuple(behaviours), jobs):
            kept += not recorded
            bar.total += frames - config.max_frames if recorded else -config.max_frames
            bar.update(frames if recorded else 0)
            bar.set_postfix(already_there=kept)
    return dataset


def _prepare(config: CollectConfig) -> Dataset:
    info = describe(config)
    for split in SPLITS:
        (config.folder / split).mkdir(parents=True, exist_ok=True)
    if (config.folder / "dataset.json").exists():
        found = DatasetInfo.load(config.folder)
        if found != info:
            raise DatasetError(
                f"{config.folder}: holds another recording; expected {info}, got {found}; "
                "choose another folder, or the settings that it was recorded with"
            )
    else:
        info.save(config.folder)
    return Dataset(folder=config.folder, info=info)


Job = tuple[str, int]
Result = tuple[int, bool]  # frames, whether they were recorded now


def _run_job(
    dataset: Dataset, config: CollectConfig, behaviours: Sequence[Behaviour], job: Job
) -> Result:
    path = dataset.path(*job)
    if path.exists():
        try:
            return len(dataset.load(path).frames), False
        except EpisodeError:
            path.unlink()  # broken: record it again
    clear_leftovers(path)  # of a recording that was killed
    try:
        episode = record(config, behaviours, job[1])
    except Exception as error:
        error.add_note(f"while recording seed {job[1]} of {job[0]}")
        raise
    save_episode(path, episode)
    return len(episode.frames), True


def _in_this_process(
    dataset: Dataset, config: CollectConfig, behaviours: Sequence[Behaviour], jobs: Sequence[Job]
) -> Iterator[Result]:
    for job in jobs:
        yield _run_job(dataset, config, behaviours, job)


def _in_processes(
    dataset: Dataset, config: CollectConfig, behaviours: Sequence[Behaviour], jobs: Sequence[Job]
) -> Iterator[Result]:
    # cloudpickle: behaviours may be lambdas and closures, which plain pickle refuses
    task = cloudpickle.dumps((dataset, config, behaviours))
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
    dataset, config, behaviours = cloudpickle.loads(task)
    return _run_job(dataset, config, behaviours, job)


def _start_worker() -> None:
    """Ctrl-C is the parent's to handle: the episode under way is finished and kept. A worker whose
    parent was killed ends, too; nothing else would tell it."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # no window, where there is no screen
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
