"""Micro-batches keep every promise of a world, and one more."""

from typing import Any

import gymnasium
import pytest
import torch

from tests.contracts import WorldContract, assert_same
from tests.worlds import tiny_world, with_doubts
from worldsim.core import WorldError, WorldModel, row_keys
from worldsim.envs import WorldSimEnv, WorldSimTorchRL
from worldsim.world.fixed_batch import FixedBatch
from worldsim.world.point import PointWorld


class TestMicroBatched(WorldContract):
    tolerance = 0.0  # between batches of different sizes: none
    many_steps = 30

    def make_world(self) -> WorldModel:
        return FixedBatch(tiny_world(), 4)


def test_a_whole_group_is_the_world_itself() -> None:
    world, keys = tiny_world(), row_keys(range(4))
    grouped, action = FixedBatch(world, 4), torch.zeros(4, 3)
    assert_same(grouped.reset(keys), world.reset(keys))
    a, b = grouped.step(world.reset(keys), action), world.step(world.reset(keys), action)
    for x, y in zip(a, b, strict=True):
        assert_same(x, y)


def test_every_face_takes_it() -> None:
    world: Any = PointWorld()
    faces = [
        WorldSimEnv(world, micro_batch=3).core,
        gymnasium.make("WorldSim-v0", world=world, micro_batch=3).unwrapped.core,  # type: ignore[attr-defined]
        gymnasium.make_vec("WorldSim-v0", 2, world=world, micro_batch=3).unwrapped.core,  # type: ignore[attr-defined]
        WorldSimTorchRL(world, (2,), micro_batch=3).core,
    ]
    for face in faces:
        assert isinstance(face.world, FixedBatch) and face.world.rows == 3
        assert face.world.world is world


def test_whether_trust_is_known_goes_through() -> None:
    judged = with_doubts(tiny_world())
    WorldSimEnv(judged, trust="truncate", micro_batch=2)
    for world in (tiny_world(), judged.with_num_steps(2)):
        with pytest.raises(WorldError, match="trust: expected a calibrated world"):
            WorldSimEnv(world, trust="truncate", micro_batch=2)
    assert FixedBatch(PointWorld(), 2).calibrated


def test_sampler_steps_go_through() -> None:
    env = WorldSimEnv(tiny_world(), num_steps=2, micro_batch=2)  # type: ignore[arg-type]
    assert env.world.world.config.sampling.num_steps == 2  # type: ignore[attr-defined]
    again: Any = FixedBatch(tiny_world(), 2).with_num_steps(3)
    assert again.rows == 2 and again.world.config.sampling.num_steps == 3


@pytest.mark.parametrize("rows", [0, -1, 1.5, True, "8"])
def test_a_bad_number_of_rows_is_named(rows: Any) -> None:
    with pytest.raises(WorldError, match="micro_batch: expected"):
        WorldSimEnv(PointWorld(), micro_batch=rows)  # type: ignore[arg-type]
    with pytest.raises(WorldError, match="micro_batch: expected"):
        FixedBatch(PointWorld(), rows)
