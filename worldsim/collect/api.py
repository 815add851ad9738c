"""`worldsim.collect`: record episodes of any Gymnasium environment into a dataset."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from worldsim.core import EnvironmentSpec
from worldsim.data.dataset import Dataset

from .environment import Env
from .errors import CollectError
from .policies import CollectPolicy, as_policies, choose
from .source import Source, named_source, source_of
from .workers import Job, collect_jobs

SPLITS = ("train", "val", "test")
SMALL = 20_000  # frames, at most, that are recorded in this process unless the user says
SEEDS = 2**31  # most environments take no larger ones


def collect(
    env: str | Env | EnvironmentSpec | Any,
    *,
    out: Path | str,
    policy: Any = None,
    episodes: int = 100,
    val: int | None = None,
    test: int | None = None,
    chunk: int = 2,
    size: tuple[int, int] | None = None,
    crop: tuple[int, int, int, int] | None = None,
    source: Literal["observation", "render"] | None = None,
    image: str = "",
    state: Sequence[str] | bool | None = None,
    warmup: int = 0,
    max_frames: int = 1000,
    env_kwargs: Mapping[str, Any] | None = None,
    wrappers: Sequence[Any] = (),
    noise: float = 0.25,
    seed: int = 0,
    prefix: str = "",
    workers: int | None = None,
    trust_code: bool = False,
) -> Dataset:
    """Record every episode that is not yet in the folder, whole and readable; returns the dataset.

        data = worldsim.collect("LunarLander-v3", policy=drive, out="data/lander", episodes=200)

    Each episode's policy and randomness follow from its name and `seed`: recording it again gives
    the same bytes, in any order, with any number of workers. A kill loses only the episodes under
    way; the same call goes on. Episodes already there are kept; a damaged one is set aside under
    another name and recorded again.

    Args:
        env: a Gymnasium id ("module:Name-v0" imports a module first), "module:function" or a
            function that returns an environment, an environment, which is then used in this
            process, or the `EnvironmentSpec` of a dataset or world, which is recorded as before:
            chunk to wrappers are then not looked at. Actions may be Discrete, a bounded Box,
            MultiDiscrete or MultiBinary.
        out: the folder.
        policy: a function ``obs -> action`` of the environment's own observations, its
            "module:function", a stable-baselines3 model or TorchRL actor, one or several
            `CollectPolicy`, or None: random actions, each held for a while. Actions out of a box
            are clipped.
        episodes: of the training split. val, test: of the others, a tenth by default, at least 2.
        chunk: frames an action is repeated for.
        size: (height, width) of frames, divisible by 8; by default a small one, which is printed.
        crop: (top, bottom, left, right) in pixels kept of a picture.
        source: whether frames are the environment's "observation" or what it "render"s; by default
            observations where those are pictures.
        image: key of the picture in a dict observation that has several.
        state: what of the observation is recorded as the state vector: keys of a dict; all vectors
            by default, nothing if False.
        warmup: frames dropped after a reset. max_frames: an episode is cut here, at the latest.
        env_kwargs: keywords for `gymnasium.make` or the function.
        wrappers: functions of an environment, or their "module:function", innermost first.
        noise: share of the episodes in which random actions interrupt a policy, and as much again
            of random actions alone; 0 for none. `CollectPolicy` objects are taken as they are.
        seed: another one gives other episodes.
        prefix: of the episodes' names: another one adds episodes to those of the folder.
        workers: processes; by default one for each core, and this one alone for small recordings.
        trust_code: import what an `EnvironmentSpec` names.

    Raises CollectError, DatasetError or WorldError where environment, settings or folder do not
    fit, before anything is recorded.
    """
    if isinstance(env, EnvironmentSpec):
        seen = named_source(env, trust_code=trust_code)
    else:
        seen = source_of(
            env, env_kwargs=env_kwargs or {}, wrappers=wrappers, source=source, image=image,
            state=state, size=size, crop=crop, chunk=chunk, warmup=warmup, max_frames=max_frames,
        )  # fmt: skip
    counts = split_counts(episodes, val, test)
    policies = as_policies(policy, noise)
    jobs = plan(counts, policies, seed, prefix)
    return collect_jobs(seen, Path(out), jobs, policies, process_count(seen, len(jobs), workers))


def split_counts(episodes: int, val: int | None, test: int | None) -> dict[str, int]:
    """Episodes of each split; a tenth of the training split, at least 2, where not given."""
    if episodes < 1 and val is None and test is None:
        raise CollectError(f"episodes: expected 1 or more, got {episodes}")
    tenth = max(2, round(episodes / 10))
    val, test = (tenth if count is None else count for count in (val, test))
    counts: dict[str, int] = {"train": episodes, "val": val, "test": test}
    for name, count in zip(("episodes", "val", "test"), counts.values(), strict=True):
        if count < 0:
            raise CollectError(f"{name}: expected a whole number from 0 up, got {count}")
    return counts


def plan(
    counts: Mapping[str, int], policies: Sequence[CollectPolicy], seed: int, prefix: str
) -> list[Job]:
    """The episodes of each split: name, environment seed and policy.

    Splits take turns in the seeds, so that no two episodes share one, however many there are.
    """
    first = 0
    if seed or prefix:
        first = int.from_bytes(sha256(f"{seed}/{prefix}".encode()).digest()[:4])
    stem = f"{prefix}-" if prefix else ""
    return [
        Job(
            split=split,
            name=f"{stem}{split}-{i:06d}",
            seed=(first + len(SPLITS) * i + place) % SEEDS,
            policy=choose(policies, i).name,
        )
        for place, split in enumerate(SPLITS)
        for i in range(counts.get(split, 0))
    ]


def process_count(source: Source, episodes: int, workers: int | None) -> int:
    """Processes for so many episodes; an environment given as an object stays in this one."""
    if workers is not None and workers < 1:
        raise CollectError(f"workers: expected at least 1, got {workers}")
    if source.shared:
        if workers is not None and workers > 1:
            raise CollectError(
                f"workers: expected 1 for an environment given as an object, got {workers}; give a "
                "function that makes it"
            )
        return 1
    if workers is None:
        small = episodes * source.spec.max_frames <= SMALL
        workers = 1 if small else os.cpu_count() or 1
    return max(1, min(workers, episodes))
