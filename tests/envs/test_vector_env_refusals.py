"""What the vector environment refuses, by name, with everything left as it was."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode

from tests.contracts import assert_same
from worldsim.core import WorldError
from worldsim.envs import NeedsReset, WorldSimVectorEnv
from worldsim.world.point import PointWorld

NOISY: Any = PointWorld(size=16, noise=0.3, time_limit=7)
BUTTONS: Any = PointWorld(size=16, discrete=True)
FINE = np.zeros((3, 2), np.float32)
FRAMES = np.zeros((4, 16, 16, 3), np.uint8)
FRAMES[:, 5, 5, 0] = 255
NAN = float("nan")


def make(world: Any = NOISY, **options: Any) -> WorldSimVectorEnv:
    env = gymnasium.make_vec("WorldSim-v0", 3, world=world, **options)
    assert isinstance(env, WorldSimVectorEnv)
    return env


def act(action: Any) -> Callable:
    return lambda env: env.step(action)


def one(value: float) -> np.ndarray:
    """Good actions but for a single entry."""
    actions = FINE.copy()
    actions[1, 1] = value
    return actions


def reset(**options: Any) -> Callable:
    return lambda env: env.reset(seed=3, options=options)


# Actions, clips and saved states of all shapes and kinds: tests/reliability/exact/mistakes.py.
CASES: dict[str, tuple[Callable, str]] = {
    "action out of range": (act(one(1.01)), "action: expected .* clip"),
    "action NaN in a tensor": (act(torch.tensor(one(NAN))), "action: expected finite"),
    "mask of numbers": (
        reset(reset_mask=np.ones(3)),
        "reset_mask: expected bool .*, got torch.float64",
    ),
    "mask too short": (reset(reset_mask=np.ones(2, bool)), r"reset_mask: .* got .* \(2,\)"),
    "mask in a column": (reset(reset_mask=np.ones((3, 1), bool)), r"got .* \(3, 1\)"),
    "mask empty": (reset(reset_mask=np.zeros(3, bool)), "at least one row"),
    "mask a word": (reset(reset_mask="all"), "reset_mask: expected an array of bool, got str"),
    "options a list": (lambda e: e.reset(options=[1]), "options: expected a dict"),
    "options misspelt": (reset(mask=np.ones(3, bool)), r"got \['mask'\]"),
    "clips of too many rows": (reset(frames=np.stack([FRAMES] * 4)), "frames: expected shape"),
    "clip foreign": (reset(frames=FRAMES * 0), "without a red point"),
    "clip's actions out of range": (
        reset(frames=FRAMES, actions=np.full((2, 2), 2.0)),
        "options: action: .* clip",
    ),
    "seed negative": (lambda e: e.reset(seed=-1), "seed: expected .* got -1"),
    "seed a half": (lambda e: e.reset(seed=0.5), "seed: expected .* 3 of these, got 0.5"),
    "seed boolean": (lambda e: e.reset(seed=True), "seed: expected"),
    "seeds too few": (lambda e: e.reset(seed=[1, 2]), r"seed: expected .* got \[1, 2\]"),
    "seeds of words": (lambda e: e.reset(seed=["a", "b", "c"]), "seed: expected"),
    "seed a word": (lambda e: e.reset(seed="abc"), "seed: expected"),
}


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_bad_input_is_named_and_changes_nothing(mode: AutoresetMode) -> None:
    env, twin = (make(autoreset_mode=mode) for _ in range(2))
    for each in (env, twin):
        each.reset(seed=0)
        for t in range(4):
            each.step(one(t / 4))
    before = env._live
    for name, (call, message) in CASES.items():
        with pytest.raises(WorldError, match=message):
            call(env)
        assert before is not None and env._live is before, name
    for t in range(9):
        a, b = env.step(one(t / 9)), twin.step(one(t / 9))
        for x, y in zip(a[:4], b[:4], strict=True):
            np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(env.reset()[0], twin.reset()[0])


@pytest.mark.parametrize("wrong", [np.zeros(3), np.array([0, 5, 0]), np.array([0, -1, 0])])
def test_bad_choices_are_named(wrong: np.ndarray) -> None:
    env = make(BUTTONS)
    env.reset(seed=0)
    with pytest.raises(WorldError, match="action: expected (an integer|0 to 4)"):
        env.step(wrong)
    env.step(np.array([0, 4, 2]))


def test_values_may_go_unchecked_only_on_a_device() -> None:
    env = make(check_actions=False)
    env.reset(seed=0)
    with pytest.raises(WorldError, match="finite"):
        env.step(torch.tensor(one(NAN)))


def test_nothing_goes_before_reset() -> None:
    env = make(render_mode="rgb_array")
    some = {"reset_mask": np.array([True, False, True])}
    for call in (lambda: env.step(FINE), env.render, lambda: env.reset(options=some)):
        with pytest.raises(NeedsReset, match="call env.reset"):
            call()
    env.reset(options={"reset_mask": np.ones(3, bool)})
    env.step(FINE)


def test_an_ended_row_is_not_stepped() -> None:
    """Where nobody resets it; a word of ours and of Gymnasium's."""
    env = make(autoreset_mode="DISABLED", time_limit=2)
    env.reset(seed=0)
    env.reset(options={"reset_mask": np.array([False, True, True])})
    env.step(FINE)
    env.reset(options={"reset_mask": np.array([True, False, False])})
    assert env.step(FINE)[3].tolist() == [False, True, True]
    present = env._live
    for error in (WorldError, ResetNeeded):
        with pytest.raises(error, match=r"rows \[1, 2\] are over"):
            env.step(FINE)
    assert env._live is present
    env.reset(options={"reset_mask": np.array([False, True, False])})
    with pytest.raises(NeedsReset, match=r"rows \[2\] are over"):
        env.step(FINE)


class Broken(PointWorld):
    def decode(self, state):
        raise MemoryError


@pytest.mark.parametrize("call", [lambda e: e.reset(seed=5), lambda e: e.reset(), act(FINE)])
def test_a_world_that_fails_leaves_the_environment_whole(call: Callable) -> None:
    env = make()
    env.reset(seed=0)
    present, rng = env._live, env.np_random.bit_generator.state
    assert present is not None
    state = present.observed.state.map(torch.clone)
    env.core.world = Broken(size=16, noise=0.3, time_limit=7)  # type: ignore[assignment]
    with pytest.raises(MemoryError):
        call(env)
    assert env._live is present and env.np_random.bit_generator.state == rng
    assert_same(present.observed.state, state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"autoreset_mode": "never"}, "autoreset_mode: expected one of .*SAME_STEP.* got 'never'"),
        ({"autoreset_mode": None}, "autoreset_mode: expected one of"),
        ({"output": "jax"}, "output: expected one of .* got 'jax'"),
        ({"observation": "pixels"}, "observation: expected one of"),
        ({"actions": "degrees"}, "actions: expected one of"),
        ({"render_mode": "human"}, "render_mode: expected one of"),
        ({"max_episode_steps": 0}, "max_episode_steps: expected"),
        ({"time_limit": 1.5}, "time_limit: expected"),
        ({"world": 3}, "world: expected a bundled name"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(WorldError, match=message):
        make(**{"world": NOISY, **options})


@pytest.mark.parametrize("rows", [0, -1, 2.0, True])
def test_a_bad_number_of_rows_is_named(rows: Any) -> None:
    with pytest.raises(WorldError, match="num_envs: expected"):
        WorldSimVectorEnv(rows, NOISY)
