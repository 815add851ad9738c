"""Environments across processes: pickled, forked, spawned; and what happens when one is killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from tests.reliability.exact.streams import Digest, actions
from worldsim.envs import WorldSimEnv, WorldSimVectorEnv

WORLD: Any = "tests.worlds:make_tiny"
PATIENCE = 60.0  # seconds, of a busy machine; a hang would last for ever


def future(env: Any, steps: int = 5) -> str:
    told = Digest()
    for action in actions(env.core.world, steps):
        many = np.stack([action] * env.num_envs) if isinstance(env, WorldSimVectorEnv) else action
        told.add(*env.step(many)[:4])
    return str(told)


def live(envs: list[Any], answers: Any) -> None:
    answers.put([future(env) for env in envs])


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.nightly)])
def test_an_environment_lives_on_in_another_process(start: str) -> None:
    """Forked or pickled in the middle of an episode, it goes on to the bit."""
    envs: list[Any] = [WorldSimEnv(WORLD), WorldSimVectorEnv(3, WORLD)]
    for env in envs:
        env.reset(seed=3)
        future(env, 2)
    context = multiprocessing.get_context(start)
    answers = context.Queue()
    worker = context.Process(target=live, args=(envs, answers), daemon=True)
    worker.start()
    try:
        assert answers.get(timeout=PATIENCE) == [future(env) for env in envs]
        worker.join(PATIENCE)
        assert worker.exitcode == 0
    finally:
        worker.kill()


def test_a_fork_of_a_process_that_used_threads_does_not_hang(root: Path) -> None:
    """OpenMP's threads do not survive a fork; whoever waits for them waits for ever. A child that
    uses no environment keeps its threads."""
    code = (
        "import os, torch, worldsim.envs; torch.set_num_threads(2)\n"
        "env = worldsim.envs.WorldSimEnv('worldsim.world.point:PointWorld')\n"
        "env.reset(seed=0)\n"
        "wide = lambda: torch.rand(10**6).exp().sum()\n"
        "wide()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    kept = torch.get_num_threads()\n"
        "    env.step(env.noop); wide()\n"
        "    os._exit((kept, torch.get_num_threads()) != (2, 1))\n"
        "os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-W", "ignore", "-c", code]
    both = subprocess.Popen(command, cwd=root, env=environment, start_new_session=True)
    try:
        assert both.wait(timeout=PATIENCE) == 0
    finally:
        if both.poll() is None:
            os.killpg(both.pid, signal.SIGKILL)
            both.wait()


def test_gymnasiums_processes_say_what_one_process_says() -> None:
    options: dict[str, Any] = {"world": WORLD, "time_limit": 3, "micro_batch": 2}
    mine = gymnasium.make_vec("WorldSim-v0", 2, **options)
    theirs = gymnasium.make_vec(
        "WorldSim-v0", 2, "async",
        vector_kwargs={"context": "fork", "autoreset_mode": mine.metadata["autoreset_mode"]},
        **options,
    )  # fmt: skip
    try:
        np.testing.assert_array_equal(mine.reset(seed=1)[0], theirs.reset(seed=1)[0])
        for action in actions(mine.unwrapped.world, 5):  # type: ignore[attr-defined]
            a, b = (e.step(np.stack([action] * 2)) for e in (mine, theirs))
            for x, y in zip(a[:4], b[:4], strict=True):
                np.testing.assert_array_equal(x, y)
    finally:
        theirs.close(terminate=True)


def test_a_killed_worker_is_reported(root: Path) -> None:
    """At once, by an error; not by waiting for what will never come."""
    env = gymnasium.make_vec(
        "WorldSim-v0", 2, "async", vector_kwargs={"context": "fork"}, world=WORLD
    )
    env.reset(seed=0)
    workers: Any = env.unwrapped.processes  # type: ignore[attr-defined]
    os.kill(workers[1].pid, signal.SIGKILL)
    workers[1].join(PATIENCE)
    start = time.monotonic()
    with pytest.raises((EOFError, OSError)):
        env.step(np.zeros((2, 3), np.float32))
    assert time.monotonic() - start < PATIENCE / 2
    env.close(terminate=True)
