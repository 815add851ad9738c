"""Actions come in normalised and reach the world in its own range."""

import numpy as np
import pytest
import torch

from tests.worlds import BUTTONS, CAR, tiny_world
from worldsim.core import WorldError
from worldsim.envs import WorldSimEnv


def test_both_ranges_drive_the_same_dream():
    world = tiny_world()
    native, unit = WorldSimEnv(world, actions="native"), WorldSimEnv(world)
    assert native.action_space.low.tolist() == [-1, 0, 0]
    assert unit.action_space.low.tolist() == [-1, -1, -1]
    native.reset(seed=1)
    unit.reset(seed=1)
    a = native.step(np.array([0.5, 0.75, 0.0], np.float32))
    b = unit.step(np.array([0.5, 0.5, -1.0], np.float32))
    np.testing.assert_array_equal(a[0], b[0])
    assert a[1:] == b[1:]
    assert torch.allclose(unit.get_state().episode.state.actions[0, -1],
                          torch.tensor([0.5, 0.75, 0.0]))  # fmt: skip


def test_the_range_is_that_of_the_actions_asked_for():
    below = np.array([0.0, -0.5, 0.0], np.float32)
    unit, native = WorldSimEnv(tiny_world()), WorldSimEnv(tiny_world(), actions="native")
    unit.reset(seed=0)
    native.reset(seed=0)
    unit.step(below)
    with pytest.raises(WorldError, match="action: expected finite values"):
        native.step(below)


def test_a_users_clip_has_actions_in_the_same_range():
    env = WorldSimEnv(tiny_world())
    frames = np.zeros((2, 24, 32, 3), np.uint8)
    acted = np.array([[0.0, -1.0, 1.0]], np.float32)
    env.reset(seed=0, options={"frames": frames, "actions": acted})
    assert env.get_state().episode.state.actions[0, -1].tolist() == [0.0, 0.0, 1.0]


def test_ends_are_exact_and_nothing_leaves_the_range():
    unit = CAR.normalized()
    assert unit.normalized() == unit
    ends = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
    assert torch.equal(CAR.from_normalized(ends), torch.tensor([CAR.low, CAR.high]))
    drawn = torch.rand(1000, 3) * 2 - 1
    CAR.check(CAR.from_normalized(drawn), (1000,))
    assert torch.equal(unit.from_normalized(drawn), drawn)
    torch.testing.assert_close(CAR.to_normalized(CAR.from_normalized(drawn)), drawn)
    assert torch.equal(unit.to_normalized(drawn), drawn)


def test_discrete_actions_have_no_range():
    env = WorldSimEnv(tiny_world(BUTTONS))
    env.reset(seed=0)
    env.step(3)
    assert BUTTONS.normalized() == BUTTONS


def test_an_unknown_range_is_refused():
    with pytest.raises(WorldError, match="actions"):
        WorldSimEnv(tiny_world(), actions="degrees")  # type: ignore[arg-type]
