"""Which real clips a world is measured on: starts spread evenly over every test episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from einops import rearrange
from torch import Tensor

from worldsim.core import ActionSpec, Rows, WorldError, WorldSpec
from worldsim.data.columns import check_kind, columns_of
from worldsim.data.dataset import Dataset, Episode


@dataclass(frozen=True)
class Clips(Rows):
    """N clips of test episodes: a context and what really followed, T steps.

    Attributes:
        episode: (N,) int64, the place of the clip's episode among the test episodes.
        context: (N, K * c, H, W, 3) uint8 and context_actions: (N, K, *action).
        frames: (N, T, c, H, W, 3) uint8; after the episode's end its last chunk is repeated.
        actions: (N, T, *action). rewards: (N, T).
        ends: (N, T) bool, the step with which the episode terminated.
        valid: (N, T) bool, False after the episode's end.
        start: (N,) int64, chunk of the episode that step 1 should bring.
    """

    episode: Tensor
    context: Tensor
    context_actions: Tensor
    frames: Tensor
    actions: Tensor
    rewards: Tensor
    ends: Tensor
    valid: Tensor
    start: Tensor

    def upto(self, steps: int) -> Clips:
        """The same clips, cut after `steps` steps."""
        cut = ("frames", "actions", "rewards", "ends", "valid")
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Clips(**values | {name: values[name][:, :steps] for name in cut})


def even_starts(length: int, context: int, horizon: int, count: int) -> list[int]:
    """`count` first steps, evenly from the earliest to the latest that leaves `horizon` steps."""
    last = length - horizon
    if last < context:
        return []
    return sorted({int(x) for x in torch.linspace(context, last, count).round().tolist()})


def ending_starts(episode: Episode, context: int, steps: Sequence[int]) -> list[int]:
    """First steps from which a terminated episode ends with the given steps."""
    length = len(episode)
    return [length - s for s in steps if episode.terminated and length - s >= context]


def cut_clips(
    episode: Episode,
    place: int,
    starts: Sequence[int],
    context: int,
    horizon: int,
    action: ActionSpec,
) -> Clips | None:
    """Clips of one episode, None if there are no starts."""
    if not starts:
        return None
    count = len(episode)
    frames = rearrange(torch.from_numpy(episode.frames[:]), "(n c) ... -> n c ...", n=count)
    columns = columns_of(episode, action)
    actions, rewards = columns.actions, columns.rewards
    first = torch.tensor(starts)[:, None]
    before, after = first + torch.arange(-context, 0), first + torch.arange(horizon)
    valid, after = after < count, after.clamp(max=count - 1)
    return Clips(
        episode=torch.full((len(starts),), place),
        context=frames[before].flatten(1, 2),
        context_actions=actions[before],
        frames=frames[after],
        actions=actions[after],
        rewards=rewards[after],
        ends=valid & (after == count - 1) & episode.terminated,
        valid=valid,
        start=first[:, 0],
    )


def episodes_for(data: Dataset, spec: WorldSpec, most: int) -> list[Episode]:
    """The first `most` test episodes; WorldError if there are none or they do not fit the world."""
    check_kind(data.spec, spec)
    if "test" not in data.splits:
        raise WorldError(f"data: expected test episodes in {data.spec.name}, got none; "
                         "record them with the collect command")  # fmt: skip
    test = data.split("test")
    return [test.episode(i) for i in range(min(most, len(test)))]
