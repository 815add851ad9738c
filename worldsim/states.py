"""State vectors beside pixels: what a sensor tells of a moment (proprioception).

LeRobot calls it `observation.state`. A picture shows speed and wheel angle badly, and a dream that
has to guess them at every step forgets them; where a recording holds a state vector, a world is
given it, predicts it, and is given what it predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf, isfinite
from typing import Any, Self

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .actions import as_tensor
from .errors import WorldError
from .fields import ABSENT

BOUND = 8.0
"""Standard deviations from the mean that states may have where no bounds are known."""

STILL = 1e-6
"""An entry that spreads less than this never changes: it is divided by 1 instead."""


@dataclass(frozen=True, kw_only=True)
class StateSpec:
    """The entries of a state vector, and their size in the recordings that a world was made of.

    Attributes:
        names: of its D entries.
        mean, std: of each, over all recorded chunks, in its own unit.
        change: standard deviation of what each changes by in one chunk.
        low, high: least and most that was recorded of each; () where that is not known.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    change: tuple[float, ...]
    low: tuple[float, ...] = field(default=(), metadata=ABSENT)
    high: tuple[float, ...] = field(default=(), metadata=ABSENT)

    def __post_init__(self) -> None:
        sizes = {len(getattr(self, name)) for name in ("names", "mean", "std", "change")}
        sizes |= {len(x) for x in (self.low, self.high) if self.low or self.high}
        if sizes != {len(self.names)} or not self.names:
            raise WorldError(f"state: expected a mean, std and change for each name, got {self}")
        if not all(isfinite(a) and a <= b < inf for a, b in zip(self.low, self.high, strict=True)):
            got = f"{self.low} and {self.high}"
            raise WorldError(f"state: expected finite low up to high, got {got}")
        if not all(map(isfinite, self.mean)):
            raise WorldError(f"state: expected finite means, got {self.mean}")
        for name in ("std", "change"):
            if not all(isfinite(x) and x > 0 for x in getattr(self, name)):
                got = getattr(self, name)
                raise WorldError(f"state: expected {name} above 0, got {got}")

    @classmethod
    def measured(cls, names: Sequence[str], episodes: Sequence[NDArray[np.float32]]) -> Self:
        """The spec of recorded episodes, each `(N, D)`."""
        rows = np.concatenate(list(episodes)).astype(np.float64)
        steps = np.concatenate([np.diff(one.astype(np.float64), axis=0) for one in episodes])

        def size(x: NDArray[np.float64]) -> tuple[float, ...]:
            spread = x.std(0) if len(x) else np.zeros(len(names))
            return tuple(np.where(spread > STILL, spread, 1.0).tolist())

        return cls(
            names=tuple(names), mean=tuple(rows.mean(0).tolist()), std=size(rows),
            change=size(steps), low=tuple(rows.min(0).tolist()), high=tuple(rows.max(0).tolist()),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.names)

    def space(self) -> gymnasium.spaces.Box:
        """Any finite vector `(D,)` of float32: nobody knows the bounds of a sensor."""
        most = np.finfo(np.float32).max
        return gymnasium.spaces.Box(-most, most, (len(self),), np.float32)

    def normalized(self, state: Tensor) -> Tensor:
        """States `(..., D)` with mean 0 and standard deviation 1."""
        return (state - self.numbers("mean", state)) / self.numbers("std", state)

    def bounded(self, state: Tensor) -> Tensor:
        """States `(..., D)` within what was recorded, else within `BOUND` standard deviations.

        No speed is below 0: what lies outside of all that was ever seen is a network's mistake.
        """
        low, high = self.low, self.high
        if not low:
            pairs = list(zip(self.mean, self.std, strict=True))
            low, high = (tuple(m + k * BOUND * s for m, s in pairs) for k in (-1, 1))
        return state.clamp(_told(low, state.device), _told(high, state.device))

    def numbers(self, name: str, like: Tensor) -> Tensor:
        """`mean`, `std` or `change`, (D,) float32 where `like` is."""
        return _told(getattr(self, name), like.device)

    def hold(
        self, states: Any, lead: tuple[int, int], context: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """What a `WorldState` holds of a clip's states: (B, K, D), and which are known (B, K) bool.

        states: (B, k, D), NaN in chunks whose state is not known, or None. lead: (B, k). Raises
        `WorldError` where they do not fit.
        """
        rows, count = lead
        held = torch.zeros(rows, context, len(self), device=device)
        known = torch.zeros(rows, context, dtype=torch.bool, device=device)
        if states is None:
            return held, known
        given = as_tensor(states, "states").to(device, torch.float32)
        if tuple(given.shape) != (*lead, len(self)):
            expected, got = (*lead, len(self)), tuple(given.shape)
            raise WorldError(f"states: expected shape {expected}, got {got}; one for each chunk")
        known[:, context - count :] = given.isfinite().all(-1)
        held[:, context - count :] = torch.where(known[:, context - count :, None], given, 0)
        return held, known


def _told(values: tuple[float, ...], device: torch.device) -> Tensor:
    if torch.compiler.is_exporting():  # a tensor from outside of a program is lost in freezing
        return torch.stack([torch.full((), value, device=device) for value in values])
    return _numbers(values, device)


@lru_cache(maxsize=64)
def _numbers(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Kept, because copying to a device once a step would wait for it once a step."""
    with torch.inference_mode(False):  # whoever comes next may want gradients
        return torch.tensor(values, dtype=torch.float32, device=device)


def no_states(states: Any, name: str) -> None:
    """Raise `WorldError` for states that are given to a world without."""
    if states is not None:
        raise WorldError(f"states: expected None, as {name} knows none, got some; leave them out")
