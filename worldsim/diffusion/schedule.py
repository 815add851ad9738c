"""Noise levels: what a level means, the levels of a sampler, and those drawn in training."""

from __future__ import annotations

import torch
from torch import Tensor

from worldsim.nn.stable import sigmoid

from .draws import Draws


def draw_levels(shape: tuple[int, ...], draws: Draws) -> Tensor:
    """Noise levels: logit-normal of spread 1.2, a fifth uniform, a twentieth exactly 1."""
    level = sigmoid(1.2 * draws.normal(shape))
    kind, flat = draws.uniform(shape), draws.uniform(shape)
    level = torch.where(kind < 0.2, flat, level)
    return torch.where(kind > 0.95, torch.ones_like(level), level).clamp(min=1e-3)


def corrupt(clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """(1 - t) * clean + t * noise; `level` has the leading axes of `clean`."""
    t = level.reshape(*level.shape, *[1] * (clean.ndim - level.ndim))
    return (1 - t) * clean + t * noise


def linear_levels(steps: int) -> tuple[float, ...]:
    """`steps + 1` levels falling evenly from 1 to 0."""
    return tuple(1 - i / steps for i in range(steps + 1))
