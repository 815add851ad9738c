"""C1: an environment that runs for long holds no more memory and is no slower than at first.

A step is timed in CPU time, but a busy machine slows that too (caches, shared cores, clock). So a
young environment is stepped now and then as a yardstick: a tenth's time is its p99 by the young p99
of the same tenth.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from tests.reliability.nightly.rows import Outcome, Row, main
from tests.world_folders import tiny_world
from worldsim.envs import WorldSimEnv, WorldSimVectorEnv
from worldsim.world.diffusion import DiffusionWorld

ROWS_OF_VECTOR = 4
BLOCK, YOUNG = 100, 10  # steps between two looks, and of a young environment at each
WARM = 10_000  # steps before memory counts; a tenth of a shorter run
TIMED = 50_000  # steps from which on the p99 of a tenth, and of a tenth of that, says something
PAGE = os.sysconf("SC_PAGE_SIZE")

Step = Callable[[], float]
"""One step, resets and checks included: the CPU seconds of `env.step` alone."""


def world() -> DiffusionWorld:
    """Small, with ends: an episode lasts 50 steps."""
    whole = tiny_world()
    return whole.with_sampling(replace(whole.config.sampling, method="consistency", num_steps=1))


def single(shared: DiffusionWorld, seed: int) -> Step:
    """Steps of a Gymnasium environment, which is reset where an episode ends."""
    env = WorldSimEnv(shared)
    env.reset(seed=seed)
    env.action_space.seed(seed)

    def step() -> float:
        action = env.action_space.sample()
        start = time.thread_time()
        obs, reward, terminated, truncated, info = env.step(action)
        spent = time.thread_time() - start
        check_finite(obs, np.asarray([reward, info["continue_prob"]]))
        assert bool(env.get_state().episode.state.latent.isfinite().all())
        if terminated or truncated:
            env.reset()
        return spent

    return step


def vector(shared: DiffusionWorld, seed: int) -> Step:
    """Steps of a vector environment, which resets its rows itself."""
    env = WorldSimVectorEnv(ROWS_OF_VECTOR, shared)
    env.reset(seed=seed)
    env.action_space.seed(seed)
    count = 0

    def step() -> float:
        nonlocal count
        count += 1
        if count % 1000 == 0:  # and somebody else resets some, too
            env.reset(options={"reset_mask": np.arange(ROWS_OF_VECTOR) % 2 == 0})
        actions = env.action_space.sample()
        start = time.thread_time()
        obs, reward, _, _, info = env.step(actions)
        spent = time.thread_time() - start
        check_finite(obs, np.stack([reward, info["continue_prob"]]))
        return spent

    return step


def check_finite(frames: NDArray[Any], numbers: NDArray[Any]) -> None:
    """Frames are pictures and numbers are finite."""
    assert frames.dtype == np.uint8 and bool(np.isfinite(numbers).all()), numbers


def held() -> tuple[float, int, int]:
    """Resident memory in MB, open files and threads of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files, threads = (len(os.listdir(f"/proc/self/{x}")) for x in ("fd", "task"))
    return pages * PAGE / 1e6, files, threads


def soak(make: Callable[[DiffusionWorld, int], Step], rows: int, count: int) -> Outcome:
    """Take `count` steps of rows in all: what does the process hold, how long do steps last?"""
    shared, steps = world(), count // rows
    old, blocks = make(shared, 0), max(10, steps // BLOCK)
    looks = np.full(
        (blocks, 3), 1.0
    )  # written, not merely reserved: they must not look like a leak
    times, young_times = np.full((blocks, BLOCK), 1.0), np.full((blocks, YOUNG), 1.0)
    for block in tqdm(range(blocks), desc="soak", leave=False):
        times[block] = [old() for _ in range(BLOCK)]
        young = make(shared, block)
        young_times[block] = [young() for _ in range(YOUNG)]
        looks[block] = held()
    warm = max(1, min(blocks // 10, WARM // BLOCK))
    failures, figures = judge(looks[warm:])
    figures |= {"steps": blocks * BLOCK}
    if blocks * BLOCK >= TIMED:
        slower = ageing(times[warm:], young_times[warm:, 1:])
        figures |= slower
        if slower["by a young env's"] > 1.1:
            failures.append(f"steps grow slower: {slower}")
    return Outcome(failures=failures, figures=figures)


def judge(looks: NDArray[Any]) -> tuple[list[str], dict[str, Any]]:
    """What is wrong with memory, files and threads `(n, 3)`, looked at every BLOCK steps."""
    age = np.arange(len(looks)) * BLOCK
    slope = float(np.polyfit(age, looks[:, 0], 1)[0]) * 1e5
    spans = [f"{int(x.min())} to {int(x.max())}" for x in looks.T[1:]]
    figures = {"MB per 1e5 steps": slope, "open files": spans[0], "threads": spans[1]}
    failures = []
    if slope * min(1.0, age[-1] / 1e5) >= 1:  # in a short run: 1 MB in all
        failures.append(f"memory grows by {slope:.2f} MB per 1e5 steps")
    if bool((looks[:, 1:] != looks[0, 1:]).any()):
        failures.append(f"open files {spans[0]}, threads {spans[1]}")
    return failures, figures


def ageing(old: NDArray[Any], young: NDArray[Any]) -> dict[str, float]:
    """How much longer steps of the last tenth last than those of the first, at their p99."""
    tenth = max(1, len(old) // 10)
    first, last = (np.percentile(x, 99) for x in (old[:tenth], old[-tenth:]))
    base, late = (np.percentile(x, 99) for x in (young[:tenth], young[-tenth:]))
    return {
        "p99 last tenth / first": float(last / first),
        "by a young env's": float((last / late) / (first / base)),
        "p99 ms": float(last * 1e3),
    }


PROMISE = "memory grows by < 1 MB in 1e5 steps, files and threads stay, p99 <= 1.1x, all is finite"
ROWS = (
    Row(name="C1-env", promise=PROMISE, unit="steps", ci=1_000, full=1_000_000,
        attempt=partial(soak, single, 1)),
    Row(name="C1-vector", promise=PROMISE, unit="steps of rows", ci=4_000, full=4_000_000,
        attempt=partial(soak, vector, ROWS_OF_VECTOR)),
)  # fmt: skip

if __name__ == "__main__":
    main(ROWS)
