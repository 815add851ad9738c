"""Clips in batches: windows that never cross an episode's end, drawn by a generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from worldsim.core import WorldError, WorldSpec

from .native import Dataset, DatasetInfo


def check_kind(info: DatasetInfo, spec: WorldSpec) -> None:
    """Raises WorldError where episodes are not of the kind that the world was made of."""
    ours, theirs = spec.action, info.action
    expected = (spec.frame_shape, spec.chunk, ours.kind, ours.low, ours.high, ours.n)
    got = (info.frame_shape, info.chunk, theirs.kind, theirs.low, theirs.high, theirs.n)
    if expected != got:
        raise WorldError(
            f"data: expected (frame_shape, chunk, kind, low, high, n) of {spec.name}, {expected}, "
            f"got {got}; give a folder of the world's own kind"
        )


@dataclass(frozen=True)
class Windows:
    """Episodes laid end to end; `lengths[e]` chunks each."""

    lengths: tuple[int, ...]

    def starts(self, length: int, episodes: tuple[int, int] | None = None) -> Tensor:
        """Every first chunk of a window of `length` chunks inside one episode, (M,) int64.

        episodes: [first, stop) of those that count; all if None.
        """
        ends = np.cumsum(self.lengths)
        spans = list(zip(ends - np.asarray(self.lengths), ends, strict=True))
        spans = spans[slice(*episodes)] if episodes else spans
        parts = [np.arange(a, b - length + 1) for a, b in spans if b - a >= length]
        if not parts:
            which = f"of episodes {episodes} in {len(self.lengths)}" if episodes else ""
            raise ValueError(
                f"length: no episode has {length} chunks{which and ' '}{which}; "
                f"longest {max(self.lengths)}"
            )
        return torch.from_numpy(np.concatenate(parts))

    def sample(
        self,
        count: int,
        length: int,
        generator: torch.Generator,
        episodes: tuple[int, int] | None = None,
    ) -> Tensor:
        """Indices of `count` random windows, (count, length) int64; see `starts`."""
        starts = self.starts(length, episodes)
        first = starts[torch.randint(len(starts), (count,), generator=generator)]
        return first[:, None] + torch.arange(length)


@dataclass(frozen=True)
class Recording:
    """Whole episodes in memory, N chunks in all.

    Attributes:
        frames: (N, c, H, W, 3) uint8.
        actions: (N, *action), the action that led into each chunk.
        rewards: (N,) float32, summed over the chunk.
        continue_prob: (N,) float32, 0 where the episode terminated with this chunk, else 1.
        windows: which chunks belong together.
    """

    frames: Tensor
    actions: Tensor
    rewards: Tensor
    continue_prob: Tensor
    windows: Windows


def digest(recording: Any) -> str:
    """SHA-256 of a recording, of frames or of latents: which data a run was trained on."""
    whole = sha256()
    for field in fields(recording):
        value = getattr(recording, field.name)
        told = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        whole.update(f"{field.name} {told}\n".encode())
        if isinstance(value, Tensor):
            whole.update(value.contiguous().numpy().data)
    return whole.hexdigest()


def load_recording(data: Dataset, paths: Sequence[Path]) -> Recording:
    """Read episodes of `data` into memory; raises `EpisodeError` for one that does not fit it."""
    chunk = data.info.chunk
    frames, actions, rewards, continue_prob, lengths = [], [], [], [], []
    for path in tqdm(paths, desc="reading episodes", leave=False):
        episode = data.load(path)
        n = len(episode.actions)
        frames.append(episode.frames.reshape(n, chunk, *episode.frames.shape[1:]))
        actions.append(episode.actions)
        rewards.append(episode.rewards)
        ends = np.ones(n, np.float32)
        ends[-1] = 0.0 if episode.terminated else 1.0
        continue_prob.append(ends)
        lengths.append(n)
    if not lengths:
        raise ValueError("paths: expected at least one episode; collect some first")
    columns = (frames, actions, rewards, continue_prob)
    f, a, r, c = (torch.from_numpy(np.concatenate(x)) for x in columns)
    return Recording(f, a, r, c, Windows(tuple(lengths)))
