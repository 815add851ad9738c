"""Random numbers of a training step, each row's from a stream of its own.

A row of the global batch is named by its number there, and (seed, step, row, draw) says every
number of it: whichever process holds the row, and whichever others lie beside it, it is the same.
So one process and a hundred train on the same batches and the same noise.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from .rng import normal_rows, uniform_rows, words_rows

SHARED = 2**32 - 1
"""The row that stands for what is drawn once for the whole batch."""

TRAINING = 1 << 40
"""Sets the streams of trainings apart from those of dreams with the same seed."""


class Draws:
    """The random numbers of some rows at one step; every call is another draw.

    Args:
        seed, step: of the training.
        rows: numbers of the rows that are here, of the global batch, rising.
        total: rows of the global batch; as many as are here by default.
        device: where the numbers are made.
    """

    def __init__(
        self, seed: int, step: int, rows: Sequence[int] | Tensor, total: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        self.rows = torch.as_tensor(rows, dtype=torch.int64, device=device)
        self.seed, self.step, self.device = seed, step, torch.device(device)
        self.total = len(self.rows) if total is None else total
        self._draw = itertools.count()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, some: slice) -> Draws:
        """Some of the rows; the count of draws goes on in both."""
        part = Draws(self.seed, self.step, self.rows[some], self.total, self.device)
        part._draw = self._draw
        return part

    @property
    def shared(self) -> Draws:
        """One row of numbers that are the same wherever the batch is split."""
        part = Draws(self.seed, self.step, [SHARED], self.total, self.device)
        part._draw = self._draw
        return part

    def first(self, share: float) -> int:
        """How many of the rows here are among the first `share` of the global batch."""
        return int((self.rows < round(share * self.total)).sum())

    def last(self, share: float) -> int:
        """How many of the rows here are among the last `share` of the global batch."""
        return int((self.rows >= self.total - round(share * self.total)).sum())

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Uniform in (0, 1), float32 `(rows, ...)`."""
        flat = uniform_rows(*self._next(), _count(shape))
        return flat.reshape(tuple(shape))

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal, float32 `(rows, ...)`."""
        return normal_rows(*self._next(), tuple(shape[1:]))

    def integers(self, most: int, shape: Sequence[int]) -> Tensor:
        """Uniform in 0 to `most` - 1, int64 `(rows, ...)`."""
        words = words_rows(*self._next(), _count(shape))
        return (words & (2**62 - 1)).remainder(most).reshape(tuple(shape))

    def _next(self) -> tuple[Tensor, Tensor, int]:
        seed = torch.full_like(self.rows, self.seed ^ TRAINING)
        key = torch.stack([seed, self.rows], 1)
        return key, torch.full_like(self.rows, self.step), next(self._draw)


def _count(shape: Sequence[int]) -> int:
    """Numbers a row."""
    count = 1
    for side in shape[1:]:
        count *= side
    return count
