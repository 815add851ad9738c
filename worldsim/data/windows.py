"""Windows of chunks that never cross an episode's end, drawn by a generator."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """Episodes laid end to end; `lengths[e]` chunks each.

    counts: which of them count, all if None; no part of what a recording is.
    """

    lengths: tuple[int, ...]
    counts: tuple[bool, ...] | None = field(default=None, repr=False)

    def starts(self, length: int, episodes: tuple[int, int] | None = None) -> Tensor:
        """Every first chunk of a window of `length` chunks inside one episode, (M,) int64.

        episodes: [first, stop) of those that count; all if None.
        """
        ends = np.cumsum(self.lengths)
        counts = self.counts or (True,) * len(self.lengths)
        spans = list(zip(ends - np.asarray(self.lengths), ends, counts, strict=True))
        spans = spans[slice(*episodes)] if episodes else spans
        parts = [np.arange(a, b - length + 1) for a, b, here in spans if here and b - a >= length]
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
