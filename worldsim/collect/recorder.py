"""Recording one episode."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from worldsim.data.captions import merged
from worldsim.data.dataset import DatasetSpec, Episode

from .environment import RecordedEnv
from .policies import CollectPolicy, Policy
from .source import Source


class Stopped(Exception):
    """Recording was called off in the middle of an episode."""


def describe(source: Source, name: str) -> DatasetSpec:
    """What holds for every episode of `source`; makes and resets it once.

    Raises CollectError or WorldError where it cannot be recorded.
    """
    env = source.open()
    try:
        env.reset(seed=0)
        return DatasetSpec(
            name=name,
            frame_shape=(*source.spec.size, 3),
            fps=env.fps,
            chunk=source.spec.chunk,
            action=env.native,
            state=env.state_names,
            has_rewards=True,
            has_text=bool(env.texts),
            environment=source.spec if source.spec.id else None,
        )
    finally:
        _let_go(source, env)


def record(
    source: Source,
    policy: CollectPolicy,
    *,
    seed: int,
    name: str = "",
    stopped: Callable[[], bool] = lambda: False,
) -> Episode:
    """Play and record one episode, without writing it; all that is random follows from `seed`.

    stopped: asked before each step whether to raise Stopped.
    Raises CollectError where the episode ends within the warm-up, or an action is none.
    """
    env = source.open()
    try:
        with seeded(seed):
            env.env.action_space.seed(seed)
            act = policy.make(env, np.random.default_rng([seed, 0]))
            env.reset(seed=seed)
            return _play(env, act, policy.name, seed, name or str(seed), stopped)
    finally:
        _let_go(source, env)


def _let_go(source: Source, env: RecordedEnv) -> None:
    if not source.shared:
        env.close()


def _play(
    env: RecordedEnv, act: Policy, policy: str, seed: int, name: str, stopped: Callable[[], bool]
) -> Episode:
    chunks, actions, rewards, states, told = [], [], [], [], []
    terminated = truncated = False
    while not (terminated or truncated):
        if stopped():
            raise Stopped
        action = env.to_native(act(env.observed))
        chunk, reward, terminated, truncated, _ = env.step(action)
        chunks.append(chunk)
        actions.append(action)
        rewards.append(reward)
        states.append(env.state)
        told.append(env.texts)
    text = told[0][0] if len(set(told)) == 1 and len(told[0]) == 1 else ""
    return Episode(
        name=name,
        frames=np.concatenate(chunks),
        chunk=env.recording.chunk,
        fps=env.fps,
        actions=np.stack(actions),
        state=np.stack(states) if env.state_names else None,
        rewards=np.asarray(rewards, np.float32),
        terminated=terminated,
        truncated=truncated,
        text=text,
        captions=() if text else merged(told),
        policy=policy,
        seed=seed,
    )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The process's own generators seeded for a while: policies of others draw from them."""
    own: Any = np.random.get_state()
    plain = random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(own)
            random.setstate(plain)
