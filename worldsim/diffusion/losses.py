"""Errors of predicted chunks, their weights, and the noise put on context."""

from __future__ import annotations

import torch
from torch import Tensor

from .draws import Draws
from .schedule import corrupt


def noise_context(latents: Tensor, most: float, draws: Draws) -> tuple[Tensor, Tensor]:
    """Context (B, T, ...) with one told noise level a clip, U(0, most) or, for a fifth, none.

    A network that has only seen clean context trusts its own mistakes (GameNGen, 2408.14837).
    """
    shape = latents.shape[:2]
    told = most * draws.uniform((shape[0], 1))
    told = torch.where(draws.uniform((shape[0], 1)) < 0.2, 0.0, told).expand(shape)
    return corrupt(latents, draws.normal(latents.shape), told), told


def ramp(level: Tensor) -> Tensor:
    """Weight of the error at a level, 0.1 + 0.9 (1 - t) (Dreamer 4)."""
    return 0.1 + 0.9 * (1 - level)


def chunk_error(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error of each chunk: two (B, T, h, w, C) -> (B, T)."""
    return ((a - b) ** 2).mean((2, 3, 4))
