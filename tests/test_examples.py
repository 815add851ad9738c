"""The scripts of docs/examples train what they say, on a world that is quick: PointWorld."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
WORLD = "worldsim.world.point:PointWorld"


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / name))


def test_cleanrls_ppo_learns_on_the_vector_environment() -> None:
    parts = example("cleanrl_ppo.py")
    args = parts["Args"](world=WORLD, steps=16_384, num_steps=32, learning_rate=3e-3)
    rewards = parts["main"](args)
    assert np.mean(rewards[-8:]) > np.mean(rewards[:2]) + 0.01


def test_torchrls_ppo_learns_on_worldsimtorchrl() -> None:
    rewards = example("torchrl_ppo.py")["main"](WORLD, steps=12_288)
    assert np.mean(rewards[-4:]) > np.mean(rewards[:2]) + 0.01


def test_stable_baselines_trains_on_the_environment() -> None:
    pytest.importorskip("stable_baselines3")
    mean = example("sb3_ppo.py")["main"](WORLD, steps=2_000, envs=2, limit=20)
    assert -20 < mean < 2  # a dream can win the distance to the goal, at most some 1.8
