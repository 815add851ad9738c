"""What conditions a chunk beside its context: the noise level, the action, a slot for more."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldsim.core import ActionSpec
from worldsim.nn.embed import NoiseLevelEmbed, fourier


class ActionEmbed(nn.Module):
    """Actions, continuous or discrete, and "no action known", to vectors."""

    def __init__(self, spec: ActionSpec, dim: int) -> None:
        super().__init__()
        self.spec = spec
        self.unknown = nn.Parameter(torch.zeros(dim))
        if spec.kind == "discrete":
            self.table = nn.Embedding(spec.n, dim)
        else:
            self.lift = nn.Linear(len(spec.low) * 9, dim)

    def forward(self, action: Tensor) -> Tensor:
        """`(..., *action)` -> `(..., dim)`; NaN or -1 stand for "no action known"."""
        known = self.spec.is_known(action)[..., None]
        if self.spec.kind == "discrete":
            return torch.where(known, self.table(action.clamp(min=0)), self.unknown)
        low, high = (action.new_tensor(x) for x in (self.spec.low, self.spec.high))
        unit = 2 * (action.nan_to_num() - low) / (high - low) - 1
        told = torch.cat([unit, fourier(unit, 4, 8.0).flatten(-2)], -1)
        return torch.where(known, self.lift(told.to(self.lift.weight.dtype)), self.unknown)


class Condition(nn.Module):
    """Level, action and whatever else conditions a chunk, as one vector."""

    def __init__(self, spec: ActionSpec, dim: int, extra: int = 0) -> None:
        super().__init__()
        self.level, self.action = NoiseLevelEmbed(dim), ActionEmbed(spec, dim)
        self.mix = nn.Linear(dim, dim)
        self.extra = nn.Linear(extra, dim) if extra else None
        if self.extra is not None:  # a new condition starts without a say
            nn.init.zeros_(self.extra.weight)
            nn.init.zeros_(self.extra.bias)

    def forward(self, level: Tensor, action: Tensor, extra: Tensor | None = None) -> Tensor:
        """`(B, F)`, `(B, F, *action)`, `(B, F, extra)` -> `(B, F, dim)`, ready for a Linear."""
        c = self.level(level) + self.action(action)
        if self.extra is not None and extra is not None:
            c = c + self.extra(extra)
        return F.silu(self.mix(F.silu(c)))
