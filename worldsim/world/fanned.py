"""A state fanned out for a planner: candidates that share their past instead of copying it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from worldsim.core import WorldState


@dataclass(frozen=True)
class FannedState(WorldState):
    """B states of n rows each, beside each other, as `WorldState.repeat(n)` has them.

    What a group's rows remember of the time before they parted is held once for all of them, as
    the prefix of prompts served in batches is (Juravsky et al. 2024, Hydragen, 2402.05099). Each
    step drops the oldest shared chunk and adds one of the row's own, so after `context` steps
    nothing is shared and `step` returns a `WorldState`. Taking rows out of it (`state[rows]`,
    `where`, `cat`, `repeat`, `to`) gives a `WorldState` too, with copies.

    Attributes:
        cache: (B n, layers, 2, own, S, heads, dim) keys and values since the rows parted.
        prefix: (B, layers, 2, shared, S, heads, dim) those from before.
    """

    prefix: Tensor

    def plain(self) -> WorldState:
        """The same with the shared part copied into every row."""
        times = len(self.latents) // len(self.prefix)
        older = self.prefix.repeat_interleave(times, 0)
        parts = {f.name: getattr(self, f.name) for f in fields(WorldState)}
        return WorldState(**{**parts, "cache": torch.cat([older, self.cache], 3)})

    def map(self, fn: Callable[[Tensor], Tensor]) -> WorldState:  # type: ignore[override]
        """Apply `fn` to every tensor of the plain state."""
        return self.plain().map(fn)

    def where(self, mask: Tensor, other: WorldState) -> WorldState:  # type: ignore[override]
        """Rows of `self` where `mask` `(B,)`, else of `other`; no host sync."""
        if isinstance(other, FannedState):
            other = other.plain()
        return self.plain().where(mask, other)

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> WorldState:  # type: ignore[override]
        """Rows of all parts, in order."""
        return WorldState.cat([part.plain() for part in parts])
