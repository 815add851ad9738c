"""Which real clips a world is measured on: starts spread evenly over every test episode."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from worldsim.core import Rows, WorldError, WorldSpec
from worldsim.data.episode import Episode
from worldsim.data.loader import check_kind
from worldsim.data.native import Dataset


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
    length = len(episode.actions)
    return [length - s for s in steps if episode.terminated and length - s >= context]


def cut_clips(
    episode: Episode, place: int, starts: Sequence[int], context: int, horizon: int
) -> Clips | None:
    """Clips of one episode, None if there are no starts."""
    if not starts:
        return None
    count = len(episode.actions)
    frames = rearrange(torch.from_numpy(episode.frames), "(n c) ... -> n c ...", n=count)
    actions, rewards = torch.from_numpy(episode.actions), torch.from_numpy(episode.rewards)
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


def episodes_for(data: Dataset, spec: WorldSpec, most: int) -> list[Path]:
    """The first `most` test episodes; WorldError if there are none or they do not fit the world."""
    paths = data.episodes("test")[:most]
    if not paths:
        raise WorldError(f"data: expected test episodes in {data.folder}/test, got none; "
                         "record them with the collect command")  # fmt: skip
    check_kind(data.info, spec)
    return paths


def data_hash(paths: Sequence[Path]) -> str:
    """SHA-256 over the names and bytes of episode files, in order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
