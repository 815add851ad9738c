"""Clips in batches: windows that never cross an episode's end, drawn by a generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from .columns import columns_of
from .dataset import Dataset


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


def load_recording(data: Dataset, places: Sequence[int] | None = None) -> Recording:
    """Read episodes into memory, all if `places` is None."""
    frames, columns = [], []
    chosen = range(len(data)) if places is None else places
    for place in tqdm(chosen, desc="reading episodes", leave=False):
        episode = data.episode(place)
        flat = torch.from_numpy(np.asarray(episode.frames[:]))
        frames.append(flat.unflatten(0, (-1, data.spec.chunk)))
        columns.append(columns_of(episode, data.spec.action))
    actions, rewards, continue_prob = (
        torch.cat([getattr(c, name) for c in columns])
        for name in ("actions", "rewards", "continue_prob")
    )
    lengths = tuple(len(f) for f in frames)
    return Recording(torch.cat(frames), actions, rewards, continue_prob, Windows(lengths))
