"""The quick world: Pendulum-v1 from its pixels, and who swings it while it is recorded."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldsim.collect.environment import RecordedEnv
from worldsim.collect.policies import CollectPolicy, Policy
from worldsim.core import EnvironmentSpec

from .recipe import Recipe

TORQUE = 2.0  # the most that the motor gives
UPRIGHT = 5.0  # energy of standing upright, where swinging counts speed**2 / 6 + 5 cos(angle)


def swing_up(env: Any) -> NDArray[np.float32]:
    """Torque (1,) that swings the pendulum up and holds it: energy pumping, then PD control."""
    angle, speed = env.unwrapped.state
    angle = (angle + np.pi) % (2 * np.pi) - np.pi
    energy = speed**2 / 6 + 5 * np.cos(angle)
    torque = -9 * angle - 2 * speed  # hold
    if abs(angle) > 0.6:
        torque = TORQUE * np.sign(speed or 1.0) * np.sign(UPRIGHT - energy)
    return np.array([np.clip(torque, -TORQUE, TORQUE)], np.float32)


def swing(env: RecordedEnv, rng: np.random.Generator, sigma: float) -> Policy:
    """The skilled one, under Ornstein-Uhlenbeck noise of volatility `sigma`."""
    noise = 0.0

    def policy(obs: Any) -> NDArray[np.float32]:
        nonlocal noise
        noise = 0.85 * noise + sigma * rng.standard_normal()
        return (swing_up(env) + noise).astype(np.float32)

    return policy


def wander(env: RecordedEnv, rng: np.random.Generator) -> Policy:
    """Open loop: the torque wanders at random."""
    torque = 0.0

    def policy(obs: Any) -> NDArray[np.float32]:
        nonlocal torque
        torque = float(np.clip(0.9 * torque + 0.8 * rng.standard_normal(), -TORQUE, TORQUE))
        return np.array([torque], np.float32)

    return policy


SWINGERS = (
    CollectPolicy(name="swing", make=partial(swing, sigma=0.0), share=0.15),
    CollectPolicy(name="swing-ou-0.5", make=partial(swing, sigma=0.5), share=0.25),
    CollectPolicy(name="swing-ou-1.2", make=partial(swing, sigma=1.2), share=0.25),
    CollectPolicy(name="wander", make=wander, share=0.35),
)
"""The mix recorded for Pendulum: skill, skill under noise, and open loop."""


def pendulum() -> Recipe:
    """Pendulum-v1 as it renders itself: the middle half of the picture, 32x32, 15 actions/s."""
    environment = EnvironmentSpec(
        id="Pendulum-v1", source="render", crop=(114, 386, 114, 386), size=(32, 32), chunk=2
    )
    seeds = {"train": range(160), "val": range(1000, 1016), "test": range(5000, 5020)}
    return Recipe(environment=environment, seeds=seeds, policies=SWINGERS)


def pendulum_state() -> Recipe:
    """The same with its state beside the pixels: cosine and sine of the angle, and its velocity."""
    return pendulum().seen(state=("observation",))
