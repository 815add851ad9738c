"""The worlds that ship with the library, as a newcomer meets them."""

import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import worldsim
from worldsim import worlds
from worldsim.core import row_keys

WORLD = "car-racing"
LIMIT, LIMIT_OF_ALL = 16_000_000, 40_000_000  # bytes
SPEED_BAR = (slice(59, 63), slice(8, 10))  # rows and columns of the panel's white bar


@pytest.fixture(scope="module")
def world():
    return worldsim.load(WORLD)


def test_the_readmes_first_lines():
    env = gymnasium.make("WorldSim-v0")
    obs, info = env.reset(seed=0)
    assert obs.shape == (56, 64, 3) and obs.dtype == np.uint8
    env.action_space.seed(0)
    total = 0.0
    for _ in range(30):
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        total += float(reward)
        assert not terminated and not truncated
    assert obs in env.observation_space
    assert np.isfinite(total)


@pytest.mark.filterwarnings("error")
def test_both_checkers_are_silent():
    check_env(gymnasium.make("WorldSim-v0").unwrapped)
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    checker.check_env(gymnasium.make("WorldSim-v0", render_mode="rgb_array"), warn=True)


def test_they_ship_within_their_limits():
    sizes = [sum(f.stat().st_size for f in (worlds.ROOT / n).iterdir()) for n in worlds.names()]
    assert max(sizes) <= LIMIT and sum(sizes) <= LIMIT_OF_ALL


@pytest.mark.parametrize("name", worlds.names())
def test_a_card_is_the_measured_one(name: str, root: Path):
    """README and docs quote the results, people read the card."""
    shipped = worldsim.load(name)
    results = json.loads((root / "benchmarks" / "results" / f"fidelity-{name}.json").read_text())
    assert shipped.card == results and shipped.calibrated


def test_the_wheel_steers_the_dream(world):
    """Left and right from the same state must part, and mirror each other in the car's turning."""
    state = world.reset(row_keys(range(8)))
    frames = []
    for steer in (-0.6, 0.0, 0.6):
        now = state
        for _ in range(8):
            now, _ = world.step(now, torch.tensor([[steer, 0.2, 0.0]]).expand(8, -1))
        frames.append(world.decode(now)[:, -1].float())
    left, straight, right = frames
    apart = (left - right).abs().mean()
    assert apart > (left - straight).abs().mean() > 2.0
    assert apart > (right - straight).abs().mean() > 2.0


def test_gas_moves_the_world_and_a_standing_car_stands(world):
    state = world.reset(row_keys(range(8)))
    change = {}
    for name, action in {"gas": [0.0, 1.0, 0.0], "brake": [0.0, 0.0, 1.0]}.items():
        now = state
        for _ in range(20):
            now, _ = world.step(now, torch.tensor([action]).expand(8, -1))
        before = world.decode(now).float()
        after, _ = world.step(now, torch.tensor([action]).expand(8, -1))
        change[name] = float((world.decode(after).float() - before).abs().mean())
    assert change["gas"] > 2 * change["brake"]


def test_the_panel_tells_what_the_pedals_do():
    """A second of gas raises the panel's bar of speed, a second of brake takes it down."""
    panel = worldsim.load("car-racing-panel")
    state = panel.reset(row_keys(range(8)))
    height = {}
    for name, action in {"gas": [0.0, 0.6, 0.0], "brake": [0.0, 0.0, 0.6]}.items():
        now = state
        for _ in range(25):
            now, _ = panel.step(now, torch.tensor([action]).expand(8, -1))
        height[name] = panel.decode(now)[:, -1][:, *SPEED_BAR].float().mean()
    assert height["gas"] > 2 * height["brake"]


def test_the_quick_world_is_driven_by_the_torque():
    """Full torque one way and the other swing the pendulum apart."""
    pendulum = worldsim.load("pendulum")
    state, frames = pendulum.reset(row_keys(range(8))), []
    for torque in (-2.0, 2.0, 2.0):
        now = state
        for _ in range(8):
            now, said = pendulum.step(now, torch.full((8, 1), torque))
        frames.append(pendulum.decode(now)[:, -1].float())
        assert (said.cont > 0.9).all()  # nothing ever ends there
    left, right, again = frames
    assert torch.equal(right, again) and (left - right).abs().mean() > 2.0
