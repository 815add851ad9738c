"""What an episode says of each chunk besides its frames, with masks for what it does not say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from worldsim.core import ActionSpec, WorldError, WorldSpec

from .dataset import DatasetSpec, Episode


@dataclass(frozen=True, kw_only=True)
class Columns:
    """One entry a chunk, N in all; a value counts only where its mask is True.

    Attributes:
        actions: (N, *action) float32 or int64, 0 or the least choice where unknown.
        known: (N,) bool, of `actions`.
        rewards: (N,) float32.
        rewards_known: (N,) bool.
        continue_prob: (N,) float32, 0 where the episode terminated with this chunk, else 1.
        continue_known: (N,) bool; all False for video that tells of no end.
        states: (N, D) float32 at each chunk's end; D is 0 where the data have none.
        states_known: (N,) bool.
    """

    actions: Tensor
    known: Tensor
    rewards: Tensor
    rewards_known: Tensor
    continue_prob: Tensor
    continue_known: Tensor
    states: Tensor
    states_known: Tensor


def columns_of(episode: Episode, action: ActionSpec, state: int = 0) -> Columns:
    """The columns of one checked episode; `state` is the width D of state vectors, 0 for none."""
    count = len(episode)
    actions = torch.full((count, *action.shape), float(action.least)).to(action.dtype)
    known = torch.zeros(count, dtype=torch.bool)
    if episode.actions is not None:
        known = ~known if episode.known is None else torch.from_numpy(np.array(episode.known))
        actions[known] = torch.from_numpy(np.array(episode.actions))[known]
    rewards, continue_prob = torch.zeros(count), torch.ones(count)
    if episode.rewards is not None:
        rewards = torch.from_numpy(np.array(episode.rewards, np.float32))
    states, told = torch.zeros(count, state), bool(state) and episode.state is not None
    if told:
        states = torch.from_numpy(np.array(episode.state, np.float32))
    continue_prob[-1] = 0.0 if episode.terminated else 1.0
    ends = episode.terminated or episode.truncated
    return Columns(
        actions=actions,
        known=known,
        rewards=rewards,
        rewards_known=torch.full((count,), episode.rewards is not None),
        continue_prob=continue_prob,
        continue_known=torch.full((count,), ends),
        states=states,
        states_known=torch.full((count,), told),
    )


def state_width(data: DatasetSpec, world: WorldSpec) -> int:
    """Entries of the state vectors that these data can tell this world, 0 where they are others."""
    known = world.state is not None and world.state.names == data.state
    return len(data.state) if known else 0


def state_in(episode: Episode, world: WorldSpec) -> int:
    """`state_width` of an episode whose dataset is the world's own."""
    width = 0 if episode.state is None else episode.state.shape[1]
    return width if world.state is not None and len(world.state) == width else 0


def check_kind(data: DatasetSpec, world: WorldSpec) -> None:
    """Raises WorldError where episodes are not of the kind that the world was made of."""
    for field in ("frame_shape", "chunk", "action"):
        expected, got = getattr(world, field), getattr(data, field)
        if expected != got:
            raise WorldError(
                f"data: {field}: expected {expected} of the world {world.name}, got {got} in "
                f"{data.name}; give recordings of the world's own kind"
            )
