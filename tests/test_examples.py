"""The scripts of docs/examples train what they say, on a world that is quick: PointWorld."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldsim.world.point import PointWorld

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
WORLD = "worldsim.world.point:PointWorld"


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / name))


def test_cleanrls_ppo_learns_on_the_vector_environment() -> None:
    parts = example("cleanrl_ppo.py")
    args = parts["Args"](world=WORLD, steps=12_288, num_steps=32, learning_rate=3e-3)
    rewards = parts["main"](args)
    assert np.mean(rewards[-4:]) > np.mean(rewards[:2]) + 0.01


def test_torchrls_ppo_trains_on_worldsimtorchrl() -> None:
    rewards = example("torchrl_ppo.py")["main"](WORLD, steps=1_024)
    assert len(rewards) == 2 and np.isfinite(rewards).all()


@pytest.mark.nightly
def test_torchrls_ppo_learns_on_worldsimtorchrl() -> None:
    rewards = example("torchrl_ppo.py")["main"](WORLD, steps=12_288)
    assert np.mean(rewards[-4:]) > np.mean(rewards[:2]) + 0.01


def test_stable_baselines_trains_on_the_environment() -> None:
    pytest.importorskip("stable_baselines3")
    mean = example("sb3_ppo.py")["main"](WORLD, steps=400, envs=2, limit=20)
    assert -20 < mean < 2  # a dream can win the distance to the goal, at most some 1.8


def test_stable_baselines_trains_on_small_pictures() -> None:
    """Of 32 pixels a side, which its own network does not take."""
    pytest.importorskip("stable_baselines3")
    world = PointWorld(size=32)
    assert -20 < example("sb3_cnn_ppo.py")["main"](world, steps=100, envs=2, limit=10) < 2
