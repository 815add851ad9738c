"""Noise levels: what a level means, the levels of a sampler, and those drawn in training."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_levels(shape: tuple[int, ...], g: torch.Generator) -> Tensor:
    """Noise levels: logit-normal of spread 1.2, a fifth uniform, a twentieth exactly 1."""
    level = torch.sigmoid(1.2 * torch.randn(shape, generator=g, dtype=torch.float32))
    kind, flat = (torch.rand(shape, generator=g, dtype=torch.float32) for _ in range(2))
    level = torch.where(kind < 0.2, flat, level)
    return torch.where(kind > 0.95, torch.ones((), dtype=torch.float32), level).clamp(min=1e-3)


def corrupt(clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """(1 - t) * clean + t * noise; `level` has the leading axes of `clean`."""
    t = level.reshape(*level.shape, *[1] * (clean.ndim - level.ndim))
    return (1 - t) * clean + t * noise


def linear_levels(steps: int) -> tuple[float, ...]:
    """`steps + 1` levels falling evenly from 1 to 0."""
    return tuple(1 - i / steps for i in range(steps + 1))
