"""Real actions stand for latent ones, and the mapped world is a world like any other."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.latent_actions.pushes import pushes
from tests.train.films import FORCE
from tests.worlds import DIT, scramble, tiny_world
from worldsim.core import ActionSpec, WorldError, row_keys
from worldsim.latent_actions.labelling import label, with_model
from worldsim.latent_actions.mapping import (
    FEWEST,
    Pairs,
    check_aligned,
    fit_map,
    map_actions,
    map_quality,
)
from worldsim.models.dynamics import Dynamics
from worldsim.models.latent_actions import LatentActionConfig, LatentActionModel
from worldsim.store.folder import load, save
from worldsim.world.diffusion import DiffusionWorld

NONE = ActionSpec(kind="none")


class Displacement(LatentActionModel):
    """Reads the true push off the pictures: how far the square's centre went."""

    def infer(self, frames: Tensor):
        bright = frames.float()[0, :, 5:11, :, 0].mean(1) - 30
        centre = (bright * torch.arange(bright.shape[-1])).sum(-1) / bright.sum(-1)
        moved = (centre[1::2] - torch.cat([centre[:1], centre[1:-1:2]]))[None, :, None]
        sure = torch.ones(moved.shape[:2])
        sure[:, 0] = 0
        found = super().infer(frames)
        latent = torch.cat([moved, 0 * moved], -1)
        return type(found)(latent * sure[..., None], sure)


def model(levels: tuple[int, ...] = (), kind=LatentActionModel) -> LatentActionModel:
    torch.manual_seed(0)
    config = LatentActionConfig(chunk=2, size=(16, 16), dim=len(levels) or 2, levels=levels)
    made = kind(config)
    scramble(made)
    made.fit_basis(made.prepared(torch.from_numpy(pushes().episode(0).frames)[None]))
    return made


def world_of(inferring: LatentActionModel) -> DiffusionWorld:
    """A small world that is told latent actions and nothing else."""
    base = tiny_world(NONE, size=(16, 16))
    said = replace(base.config.conditioning, latent_action=inferring.config.dim)
    dynamics = Dynamics(DIT, base.config.heads, 4, said)
    scramble(dynamics)
    config = replace(base.config, conditioning=said)
    return with_model(DiffusionWorld(config, base.vae, dynamics, base.starts), inferring)


@pytest.mark.parametrize(
    "spec",
    [
        ActionSpec(kind="discrete", n=3, start=2),
        ActionSpec(kind="multi_discrete", nvec=(2, 3)),
        ActionSpec(kind="continuous", low=(-2.0, 0.0), high=(2.0, 1.0)),
    ],
)
def test_a_map_is_found_from_some_hundred_pairs(spec: ActionSpec) -> None:
    g = torch.Generator().manual_seed(0)
    space = spec.space(seed=0)
    actions = torch.stack([torch.as_tensor(space.sample()) for _ in range(400)])
    flat = actions.reshape(400, -1).float()
    true = torch.sin(flat @ torch.randn(flat.shape[1], 3, generator=g))
    if spec.kind == "multi_discrete":  # entries add up
        true = flat @ torch.randn(2, 3, generator=g)
    latent = true + 0.1 * torch.randn(true.shape, generator=g)
    place = torch.zeros(400, dtype=torch.int64)
    found = Pairs(actions, latent, place, torch.arange(400))
    made = fit_map(spec, found.rows(torch.arange(200)))
    assert map_quality(made, found.rows(torch.arange(200, 400)))["r2"] > 0.9
    with pytest.raises(WorldError, match=f"expected {FEWEST} transitions with known actions"):
        fit_map(spec, found.rows(torch.arange(3)))


@torch.no_grad()
@pytest.mark.parametrize("levels", [(), (2, 2, 2)])
def test_a_mapped_action_is_the_latent_one_it_stands_for(tmp_path: Path, levels) -> None:
    """Stepped by codes, by a box, or by real actions: all go through the latent action."""
    world = world_of(model(levels))
    mapped = map_actions(world, pushes(), card=False)
    for made in (world, mapped):
        state = made.reset(row_keys([1, 2]))
        space = made.spec.action.space(seed=0)
        action = torch.stack([torch.as_tensor(space.sample()) for _ in range(2)])
        to_latent = made.dynamics.conditioning.action_map
        assert to_latent is not None
        by_action, _ = made.step(state, action)
        by_latent, _ = made.step(state, latent_action=to_latent(action))
        other, _ = made.step(state, latent_action=to_latent(action) + 1)
        # on some processors float32 products of other shapes differ in the last bits: 3e-7 here
        torch.testing.assert_close(by_action.latent, by_latent.latent, rtol=0, atol=1e-5)
        assert not torch.allclose(other.latent, by_latent.latent, atol=0.1)
    assert mapped.spec.action == FORCE
    save(mapped, tmp_path / "mapped")
    with pytest.warns(UserWarning, match="no fidelity card"):
        loaded = load(tmp_path / "mapped")
    clip = torch.from_numpy(pushes().episode(0).frames[:6])[None]
    assert torch.equal(loaded.infer_actions(clip), mapped.infer_actions(clip))
    assert loaded.config == mapped.config


def test_codes_to_keys() -> None:
    from worldsim.play.session import Session

    session = Session(world_of(model((2, 2, 2))))
    assert len(session.controls.keys) == 8
    futures = []
    for key in session.controls.keys:
        session.rewind(0)
        futures.append(torch.from_numpy(session.step((key.key,)).frames.copy()).float())
    assert torch.pdist(torch.stack(futures).flatten(1)).min() > 0


def test_labels_beside_the_wrong_chunks_are_refused() -> None:
    seeing = model(kind=Displacement)
    check_aligned(FORCE, seeing, pushes())
    with pytest.raises(WorldError, match=r"chunks 1 earlier .*; shift them by -1"):
        check_aligned(FORCE, seeing, pushes(shift=1))


def test_what_cannot_be_mapped_is_refused() -> None:
    world = world_of(model())
    with pytest.raises(WorldError, match="labelled: expected actions in pushes, got none"):
        map_actions(world, pushes(NONE))
    with pytest.raises(WorldError, match="labelled: frame_shape: expected"):
        map_actions(replaced_frames(world), pushes())
    plain = tiny_world(size=(16, 16))
    with pytest.raises(WorldError, match="expected one that infers actions, got tiny"):
        map_actions(plain, pushes())
    with pytest.raises(WorldError, match="expected a world that infers actions, got tiny"):
        plain.infer_actions(torch.zeros(1, 4, 16, 16, 3, dtype=torch.uint8))


def replaced_frames(world: DiffusionWorld) -> DiffusionWorld:
    base = tiny_world(NONE, size=(24, 32))
    said = replace(base.config.conditioning, latent_action=2)
    config = replace(base.config, conditioning=said)
    dynamics = Dynamics(DIT, base.config.heads, 4, said)
    assert world.latent_actions is not None
    return with_model(DiffusionWorld(config, base.vae, dynamics, base.starts), world.latent_actions)


def test_every_chunk_of_a_recording_is_labelled() -> None:
    data, seeing = pushes(), model()
    found = label(data, seeing)
    assert [len(found.latent[n]) for n in data.names] == list(data.lengths)
    frames = torch.from_numpy(data.episode(3).frames)[None]
    assert torch.allclose(found.latent[data.names[3]], seeing.infer(frames).latent[0], atol=1e-5)
    with pytest.raises(WorldError, match="expected chunks of 1 frames"):
        label(data, LatentActionModel(LatentActionConfig(chunk=1, window=3)))
