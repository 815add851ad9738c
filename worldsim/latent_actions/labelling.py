"""A whole recording labelled with latent actions, and a world that can be stepped by them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from worldsim.core import ActionSpec, WorldError
from worldsim.data.dataset import Dataset
from worldsim.data.labelled import CodedDataset, LabelledDataset, LatentLabels
from worldsim.models.conditioning import ActionMap
from worldsim.models.dynamics import Dynamics
from worldsim.models.latent_actions import LatentActionModel
from worldsim.store.latent_actions import load_latent_actions
from worldsim.world.diffusion import DiffusionWorld

PIECE = 256  # chunks looked at together
REACH = 2.5
"""Standard deviations of a latent action to which it is stepped at most."""


def label(data: Dataset, model: LatentActionModel) -> LatentLabels:
    """Latent actions of every chunk, and how sure they are; frames are read in pieces.

    Raises WorldError for a recording of other chunks than the model's.
    """
    if data.spec.chunk != model.config.chunk:
        raise WorldError(
            f"data: expected chunks of {model.config.chunk} frames, as the latent action model "
            f"saw, got {data.spec.chunk} in {data.spec.name}; open it with that chunk"
        )
    latent, confidence = {}, {}
    for place in tqdm(range(len(data)), desc="labelling", leave=False):
        name = data.names[place]
        latent[name], confidence[name] = label_episode(data.episode(place), model)
    return LatentLabels(model.config.dim, latent, confidence)


def label_episode(episode: Any, model: LatentActionModel) -> tuple[Tensor, Tensor]:
    """Latent actions (N, L) of an episode's chunks, and how sure they are (N,)."""
    before, chunk = model.config.window - 1, episode.chunk
    latent = [torch.zeros(min(before, len(episode)), model.config.dim)]
    sure = [torch.zeros(min(before, len(episode)))]
    for first in range(before, len(episode), PIECE):
        span = slice((first - before) * chunk, (first + PIECE) * chunk)
        found = model.infer(torch.from_numpy(np.array(episode.frames[span]))[None])
        latent.append(found.latent[0, before:].cpu())
        sure.append(found.confidence[0, before:].cpu())
    return torch.cat(latent), torch.cat(sure)


def opened_model(given: LatentActionModel | DiffusionWorld | str | Path) -> LatentActionModel:
    """The model, one of a file, or that of a world; WorldError where a world has none."""
    if isinstance(given, LatentActionModel):
        return given
    if isinstance(given, DiffusionWorld):
        if given.latent_actions is None:
            raise WorldError(f"world: expected one that infers actions, got {given.spec.name}")
        return given.latent_actions
    return load_latent_actions(given)


def interface(model: LatentActionModel) -> ActionSpec:
    """The actions of a world that is stepped by latent ones: its codes, or a box of numbers."""
    if model.config.levels:
        return ActionSpec(kind="discrete", n=model.config.codes)
    ends = (REACH * model.spread).tolist()
    return ActionSpec(kind="continuous", low=tuple(-e for e in ends), high=tuple(ends))


def coded(data: LabelledDataset, model: LatentActionModel) -> CodedDataset:
    """The recording as one that was made under its latent actions, see `interface`."""
    book = model.codebook() if model.config.levels else None
    return CodedDataset(data.data, data.labels, interface(model), book)


def interface_map(model: LatentActionModel) -> ActionMap:
    """Actions of `interface` to the latent ones that they stand for."""
    action = interface(model)
    found = ActionMap(action, model.config.dim, 0)
    with torch.no_grad():
        if action.is_discrete:
            found.table.weight.copy_(model.codebook())
        else:
            (line,) = found.lines
            line.weight.copy_(torch.diag(torch.tensor(action.high)))
            line.bias.zero_()
    return found


def with_model(world: DiffusionWorld, model: LatentActionModel) -> DiffusionWorld:
    """The world with the model that infers its latent actions; one that has no actions of its own
    is stepped by these from then on."""
    config = replace(world.config, latent_actions=model.config)
    same = DiffusionWorld(config, world.vae, world.dynamics, world.starts, world.card, world.trust,
                          model)  # fmt: skip
    if world.spec.action.kind != "none":
        return same
    return mapped_world(same, interface(model), interface_map(model))


def mapped_world(world: DiffusionWorld, action: ActionSpec, to_latent: ActionMap) -> DiffusionWorld:
    """The world stepped by other actions, which `to_latent` maps to its latent ones; without trust
    and card, which were of its old ones."""
    old = world.dynamics
    said = replace(world.config.conditioning, action=action, action_map=to_latent.hidden)
    config = replace(world.config, spec=replace(world.spec, action=action), conditioning=said)
    dynamics = Dynamics(config.dit, config.heads, config.vae.channels, said)
    own = {k: v for k, v in old.state_dict().items()
           if not k.startswith(("conditioning.action.", "conditioning.action_map."))}  # fmt: skip
    own |= {f"conditioning.action_map.{k}": v for k, v in to_latent.state_dict().items()}
    dynamics.load_state_dict(own)
    clips, context = len(world.starts.frames), world.spec.context
    unknown = torch.zeros(clips, context, dtype=torch.bool)
    starts = replace(world.starts, actions=action.blank(clips, context), known=unknown)
    made = DiffusionWorld(config, world.vae, dynamics, starts, latent_actions=world.latent_actions)
    return made.to(world.device)
