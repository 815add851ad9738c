"""The worlds that ship with the library, as a newcomer meets them."""

import json
from pathlib import Path

import gymnasium
import pytest
import torch

import worldsim
from worldsim import worlds
from worldsim.core import WorldState, row_keys
from worldsim.envs import WorldSimEnv
from worldsim.world.diffusion import DiffusionWorld

LIMIT, LIMIT_OF_ALL = 16_000_000, 40_000_000  # bytes


@pytest.fixture(scope="module", params=["car-racing", "car-racing-state"])
def world(request: pytest.FixtureRequest):
    return worldsim.load(request.param)


def held(world: DiffusionWorld, state: WorldState, action: list[float], steps: int) -> WorldState:
    """The state after some steps of the same action in every row."""
    for _ in range(steps):
        state, _ = world.step(state, torch.tensor([action]).expand(len(state), -1))
    return state


def newest(world: DiffusionWorld, state: WorldState) -> torch.Tensor:
    """The last frame of every row, (B, H, W, 3) float."""
    return world.decode(state)[:, -1].float()


def test_the_default_is_the_world_that_the_manual_calls_so(root: Path):
    page = (root / "docs" / "reference" / "worlds" / f"{worlds.DEFAULT}.md").read_text()
    assert page.startswith(f"# The default world: `{worlds.DEFAULT}`\n")
    assert f"The default world, `{worlds.DEFAULT}`," in (root / "README.md").read_text()
    env = gymnasium.make("WorldSim-v0").unwrapped
    assert isinstance(env, WorldSimEnv) and env.world.spec.name == worlds.DEFAULT
    env.close()


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
    state = world.reset(row_keys(range(4)))
    left, straight, right = (
        newest(world, held(world, state, [steer, 0.2, 0.0], 8)) for steer in (-0.6, 0.0, 0.6)
    )
    apart = (left - right).abs().mean()
    assert apart > (left - straight).abs().mean() > 2.0
    assert apart > (right - straight).abs().mean() > 2.0


def test_gas_moves_the_world_and_a_standing_car_stands(world):
    state = world.reset(row_keys(range(4)))
    change = {}
    for name, action in {"gas": [0.0, 1.0, 0.0], "brake": [0.0, 0.0, 1.0]}.items():
        now = held(world, state, action, 16)
        before = world.decode(now).float()
        after = held(world, now, action, 1)
        change[name] = float((world.decode(after).float() - before).abs().mean())
    assert change["gas"] > 2 * change["brake"]


def test_the_car_feels_what_the_pedals_do():
    """A second of gas raises the speed, a second of brake stops the car, the wheel goes along."""
    world = worldsim.load("car-racing-state")
    assert world.spec.state is not None
    speed, wheel = (world.spec.state.names.index(name) for name in ("speed", "wheel_angle"))
    state = world.reset(row_keys(range(8)))
    gas, brake, left, right = (
        held(world, state, action, 25).states[:, -1]
        for action in ([0.0, 0.6, 0.0], [0.0, 0.0, 0.6], [-0.5, 0.1, 0.0], [0.5, 0.1, 0.0])
    )
    assert gas[:, speed].mean() > 2 * brake[:, speed].mean() and (brake[:, speed] >= 0).all()
    assert (left[:, wheel] > 0.1).all() and (right[:, wheel] < -0.1).all()


def test_the_quick_world_is_driven_by_the_torque():
    """Full torque one way and the other swing the pendulum apart."""
    pendulum = worldsim.load("pendulum")
    state = pendulum.reset(row_keys(range(8)))
    ends = [held(pendulum, state, [torque], 8) for torque in (-2.0, 2.0, 2.0)]
    for end in ends:
        _, said = pendulum.step(end, torch.zeros(8, 1))
        assert (said.continue_prob > 0.9).all()  # nothing ever ends there
    left, right, again = (newest(pendulum, end) for end in ends)
    assert torch.equal(right, again) and (left - right).abs().mean() > 2.0


def test_words_change_the_scenery():
    """From the same state day is brighter than night, and the wheel parts what follows."""
    scenery = worldsim.load("scenery")
    start = scenery.reset(row_keys(range(8)))
    seen = {}
    for text in ("day breaks", "night falls"):
        told = start.prompted(scenery.prompt([text]))
        seen[text] = newest(scenery, held(scenery, told, [0.0, 0.2, 0.0], 12)).mean((1, 2, 3))
    day, night = seen.values()
    assert ((day - night) > 30).float().mean() > 0.8
    left, right = (
        newest(scenery, held(scenery, start, [steer, 0.2, 0.0], 8)) for steer in (-0.8, 0.8)
    )
    assert (left - right).abs().mean() > 1.5
