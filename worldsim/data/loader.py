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
from .windows import Windows


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
        if value is None and field.metadata.get("absent"):
            continue
        told = getattr(value, "key", None) or repr(value)
        told = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else told
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
        flat = torch.from_numpy(np.array(episode.frames[:], order="C"))
        frames.append(flat.unflatten(0, (-1, data.spec.chunk)))
        columns.append(columns_of(episode, data.spec.action))
    actions, rewards, continue_prob = (
        torch.cat([getattr(c, name) for c in columns])
        for name in ("actions", "rewards", "continue_prob")
    )
    lengths = tuple(len(f) for f in frames)
    return Recording(torch.cat(frames), actions, rewards, continue_prob, Windows(lengths))
