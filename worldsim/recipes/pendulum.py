"""The quick world: Pendulum-v1 from its pixels, and who swings it while it is recorded."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from worldsim.collect.policies import Behaviour, Policy
from worldsim.collect.recorder import CollectConfig

TORQUE = 2.0  # the most that the motor gives
UPRIGHT = 5.0  # energy of standing upright, where swinging counts speed**2 / 6 + 5 cos(angle)


def pendulum(folder: Path = Path("data/pendulum")) -> CollectConfig:
    """Pendulum-v1 as it renders itself: the middle half of the picture, 32x32, 15 actions/s."""
    return CollectConfig(
        env_id="Pendulum-v1",
        folder=folder,
        source="render",
        crop=(114, 386, 114, 386),
        size=(32, 32),
        chunk=2,
        train=(0, 160),
        val=(1000, 1016),
        test=(5000, 5020),
    )


def swing_up(env: Any) -> NDArray[np.float32]:
    """Torque (1,) that swings the pendulum up and holds it: energy pumping, then PD control."""
    angle, speed = env.unwrapped.state
    angle = (angle + np.pi) % (2 * np.pi) - np.pi
    energy = speed**2 / 6 + 5 * np.cos(angle)
    torque = -9 * angle - 2 * speed  # hold
    if abs(angle) > 0.6:
        torque = TORQUE * np.sign(speed or 1.0) * np.sign(UPRIGHT - energy)
    return np.array([np.clip(torque, -TORQUE, TORQUE)], np.float32)


def swing(env: gymnasium.Env[Any, Any], rng: np.random.Generator, sigma: float) -> Policy:
    """The skilled one, under Ornstein-Uhlenbeck noise of volatility `sigma`."""
    noise = 0.0

    def policy(obs: Any) -> NDArray[np.float32]:
        nonlocal noise
        noise = 0.85 * noise + sigma * rng.standard_normal()
        return (swing_up(env) + noise).astype(np.float32)

    return policy


def wander(env: gymnasium.Env[Any, Any], rng: np.random.Generator) -> Policy:
    """A blind one: the torque wanders at random."""
    torque = 0.0

    def policy(obs: Any) -> NDArray[np.float32]:
        nonlocal torque
        torque = float(np.clip(0.9 * torque + 0.8 * rng.standard_normal(), -TORQUE, TORQUE))
        return np.array([torque], np.float32)

    return policy


def pendulum_mix() -> tuple[Behaviour, ...]:
    """The mix recorded for Pendulum: skill, skill under noise, and blindness."""
    return (
        Behaviour(name="swing", make=partial(swing, sigma=0.0), share=0.15),
        Behaviour(name="swing-ou-0.5", make=partial(swing, sigma=0.5), share=0.25),
        Behaviour(name="swing-ou-1.2", make=partial(swing, sigma=1.2), share=0.25),
        Behaviour(name="wander", make=wander, share=0.35),
    )
