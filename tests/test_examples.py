"""The scripts of docs/examples train what they say, on a world that is quick: PointWorld."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.worlds import tiny_world
from worldsim.core import row_keys
from worldsim.world.fixed_batch import FixedBatch
from worldsim.world.point import PointWorld

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
WORLD = "worldsim.world.point:PointWorld"


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / name))


def test_every_script_has_the_names_that_it_uses() -> None:
    """Those, too, whose packages are not installed here."""
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "F"]
    folders = ("docs/examples", "benchmarks", "worldsim", "tests")
    root = EXAMPLES.parent.parent
    found = subprocess.run([*command, *folders], cwd=root, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_cleanrls_ppo_trains_on_the_vector_environment() -> None:
    parts = example("cleanrl_ppo.py")
    rewards = parts["main"](parts["Args"](world=WORLD, steps=1_024, num_steps=16))
    assert len(rewards) and np.isfinite(rewards).all()


@pytest.mark.nightly
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


def test_torchrls_inference_server_serves_one_world_to_many() -> None:
    """Each client sees what it would see alone, to the bit."""
    parts = example("torchrl_server.py")
    frames, batch = parts["_threads"](parts["Served"](tiny_world(), 4), clients=3, steps=4, rows=4)
    world = FixedBatch(tiny_world(), 4)
    for seed, frame in frames.items():
        episode, state = 0, world.reset(row_keys([seed]))
        for _ in range(4):
            state, said = world.step(state, world.spec.action.blank(1))
            if said.continue_prob < 0.5:
                state = world.reset(row_keys([seed], episode := episode + 1))
        assert torch.equal(frame, world.decode(state)[0, -1])
    assert len(frames) == 3 and batch >= 1


@pytest.mark.nightly
def test_torchrls_inference_server_serves_processes() -> None:
    frames = example("torchrl_server.py")["main"]("pendulum", clients=2, steps=3, processes=True)
    assert sorted(frames) == [0, 1]


@pytest.mark.nightly
def test_torchrls_distributed_collector_dreams_what_one_process_dreams() -> None:
    found = example("torchrl_distributed.py")["main"]("pendulum", steps=256, batch=128)
    assert found["equal"] and found["steps"] == 256


@pytest.mark.nightly
def test_rllibs_ppo_trains_on_the_vector_environment() -> None:
    pytest.importorskip("ray.rllib")
    assert len(example("rllib_ppo.py")["main"](WORLD, iterations=1, rows=2, horizon=16)) == 1


@pytest.mark.nightly
def test_ray_data_makes_what_one_process_makes(tmp_path: Path) -> None:
    pytest.importorskip("ray.data")
    from benchmarks.scale_out_rows import shards_ray

    assert shards_ray(quick=True)["equal"]
