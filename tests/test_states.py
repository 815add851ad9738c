"""State vectors beside pixels: measured, held, told to a world, predicted and handed out."""

from __future__ import annotations

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch

from tests.contracts import assert_same, same
from tests.worlds import SPEED, tiny_dynamics, tiny_world
from worldsim.config import from_json, to_json
from worldsim.core import WorldError, WorldSpec, WorldState, row_keys
from worldsim.diffusion.draws import Draws
from worldsim.states import StateSpec
from worldsim.store.folder import load, save
from worldsim.store.snapshot import load_state, save_state
from worldsim.train.begin import go_on
from worldsim.train.context import tell_states
from worldsim.world.fixed_batch import FixedBatch


def test_a_spec_is_measured_from_recordings():
    steps = np.array([[0, 5], [2, 5], [6, 5]], np.float32)
    spec = StateSpec.measured(("x", "still"), [steps, steps + [[10, 0]]])
    rows = np.concatenate([steps[:, 0], steps[:, 0] + 10])
    assert spec.mean == pytest.approx((rows.mean(), 5))
    assert spec.std == pytest.approx((rows.std(), 1))
    assert spec.change == pytest.approx((np.std([2, 4, 2, 4]), 1))  # never across two episodes
    assert spec.low == (0, 5) and spec.high == (16, 5)
    for wrong in (
        {"std": (1.0,)}, {"std": (0.0, 1.0)}, {"mean": (float("nan"), 0.0)}, {"low": ()},
        {"low": (17.0, 5.0)}, {"high": (float("inf"), 5.0)},
    ):  # fmt: skip
        with pytest.raises(WorldError, match="state: expected"):
            replace(spec, **wrong)


def test_no_dream_leaves_what_was_ever_recorded():
    """A speed is never below 0, however long a standing car is dreamt on."""
    bounded = replace(SPEED, low=(0.0, -1.0), high=(9.0, 1.0))
    head = tiny_dynamics(state=bounded).heads.state
    assert head is not None
    before, features = torch.tensor([[0.1, -0.9], [8.9, 0.9]]), torch.randn(2, 32)
    with torch.no_grad():
        head.change.bias.copy_(torch.tensor([-1e3, 1e3]))
    for known in (True, False):
        said = head(features, before, torch.full((2,), known))
        assert (said[:, 0] >= 0).all() and (said[:, 1].abs() <= 1).all()
    assert head(features, before, torch.ones(2, dtype=torch.bool)).tolist() == [[0, 1], [0, 1]]
    wide = tiny_dynamics(state=SPEED).heads.state  # of a world from before bounds were measured
    assert wide is not None
    with torch.no_grad():
        wide.change.bias.copy_(torch.tensor([-1e3, 1e3]))
    assert wide(features, before, torch.ones(2, dtype=torch.bool))[0].tolist() == [-19, 4]


def test_a_world_without_states_says_in_json_what_it_said_before():
    without, known = tiny_world().spec, tiny_world(state=SPEED).spec
    assert "state" not in to_json(without)
    assert from_json(WorldSpec, to_json(without)) == without
    assert from_json(WorldSpec, to_json(known)) == known and known.state == SPEED


@torch.no_grad()
def test_what_is_known_is_told_and_what_is_predicted_is_known_next():
    world, action = tiny_world(state=SPEED), torch.zeros(3, 3)
    frames, acts = world.starts.frames, world.starts.actions
    states = torch.randn(3, 3, 2)
    states[1] = torch.nan
    begun = world.encode(frames, acts, row_keys(range(3)), states=states)
    assert begun.states_known.tolist() == [[True] * 3, [False] * 3, [True] * 3]
    assert begun.states.isfinite().all()
    after, _ = world.step(begun, action)
    assert after.states_known[:, -1].all() and same(after.states[:, :-1], begun.states[:, 1:])
    other = world.encode(frames, acts, row_keys(range(3)), states=states + 1)
    differ = (world.step(other, action)[0].latent != after.latent).flatten(1).any(1)
    assert differ.tolist() == [True, False, True]
    none = world.encode(frames, acts, row_keys(range(3)))
    assert same(world.step(none, action)[0].latent[1], after.latent[1])
    # a change from what was known, and the state itself where nothing was
    head = world.dynamics.heads.state
    assert head is not None
    features, known = torch.randn(2, 32), torch.tensor([True, False])
    moved = head(features, torch.full((2, 2), 1.0), known)
    again = head(features, torch.full((2, 2), 2.0), known)
    assert torch.allclose(again[0] - moved[0], torch.ones(2), atol=1e-5)
    assert same(again[1], moved[1])
    with pytest.raises(WorldError, match=r"states: expected shape \(3, 3, 2\)"):
        world.encode(frames, acts, states=states[..., :1])
    with pytest.raises(WorldError, match="states: expected None, as tiny knows none"):
        tiny_world().encode(frames, acts, states=states)


def test_a_state_survives_the_disk_and_groups_of_rows(tmp_path):
    world = tiny_world(state=SPEED)
    save(world, tmp_path / "world", dtype=torch.float32, card={"none": 0})
    loaded = load(tmp_path / "world")
    assert loaded.spec == world.spec
    start = world.reset(row_keys([3, 4]))
    assert_same(loaded.reset(row_keys([3, 4])), start)
    walked, _ = world.step(start, torch.zeros(2, 3))
    save_state(tmp_path / "state", walked, world)
    assert_same(load_state(tmp_path / "state", WorldState, loaded), walked)
    clip = world.starts.frames[:2], world.starts.actions[:2], row_keys([1, 2])
    states = torch.randn(2, 3, 2)
    both = FixedBatch(world, 1).encode(*clip, states=states)
    one = FixedBatch(world, 1).encode(*(x[1:] for x in clip), states=states[1:])
    assert_same(both[[1]], one)


def test_clips_know_states_from_some_chunk_on():
    rows, count = 4000, 6
    states = torch.arange(count).float().expand(rows, -1)[..., None]
    known = torch.ones(rows, count, dtype=torch.bool)
    told, there = tell_states(states, known, torch.ones(1), 0.4, 0.2, Draws(0, 0, range(rows)))
    assert not there[:, 0].any() and (there[:, 1:].int().diff(dim=1) >= 0).all()
    assert abs(float((~there[:, 1:].all(1)).float().mean()) - 0.4 * 6 / 7) < 0.03
    error = (told[..., 0] - (states[..., 0] - 1))[:, 1:]
    exact = (error == 0).all(1).float().mean()
    assert abs(float(exact) - 0.5) < 0.03 and 0.03 < float(error.std()) < 0.12


def test_a_state_joins_a_trained_network_without_a_say():
    old = tiny_dynamics()
    new = tiny_dynamics(state=SPEED)
    fresh = type(new)(new.dit.config, new.heads.config, 4, new.conditioning.config)
    go_on(fresh, old)
    world = tiny_world()
    begun = tiny_world(state=SPEED)
    plain = type(world)(world.config, world.vae, old, world.starts)
    joined = type(world)(begun.config, world.vae, fresh, begun.starts)
    action = torch.ones(2, 3)
    a, said = plain.step(plain.reset(row_keys([1, 2])), action)
    start = joined.reset(row_keys([1, 2]))
    b, says = joined.step(start, action)
    assert same(a.latents, b.latents) and same(said.reward, says.reward)
    assert same(b.states[:, -1], start.states[:, -1])  # and nothing changes before it is trained
    with pytest.raises(WorldError, match="begin: expected weights"):
        go_on(old, new)


def test_three_faces_show_one_state():
    options = {"world": tiny_world(state=SPEED), "observation": "dict", "micro_batch": 1}
    env = gymnasium.make("WorldSim-v0", disable_env_checker=True, **options)
    many = gymnasium.make_vec("WorldSim-v0", 2, output="numpy", **options)
    env.action_space.seed(0)
    assert isinstance(env.observation_space, gymnasium.spaces.Dict)
    seen, rows = env.reset(seed=7)[0], many.reset(seed=7)[0]
    for _ in range(3):
        action = env.action_space.sample()
        assert env.observation_space.contains(seen) and many.observation_space.contains(rows)
        assert np.array_equal(seen["frame"], rows["frame"][0])
        assert np.allclose(seen["state"], rows["state"][0], atol=1e-5)
        seen = env.step(action)[0]
        rows = many.step(np.stack([action, action]))[0]
    states = np.full((1, 2), 3, np.float32)
    begun = env.reset(options={"frames": seen["frame"][None], "states": states})[0]
    assert begun["state"].tolist() == [3, 3]
    with pytest.raises(WorldError, match="knows no state vector"):
        gymnasium.make("WorldSim-v0", world=tiny_world(), observation="dict")


def test_torchrl_shows_it_too():
    pytest.importorskip("torchrl")
    from torchrl.envs.utils import check_env_specs

    from worldsim.envs import WorldSimTorchRL

    env = WorldSimTorchRL(tiny_world(state=SPEED), batch_size=[2], observation="dict")
    check_env_specs(env)
    rows = env.rollout(3)
    assert rows["frame"].shape == (2, 3, 24, 32, 3) and rows["state"].shape == (2, 3, 2)
    assert same(rows["next", "state"], rows["next", "world", "states"][:, :, -1])
