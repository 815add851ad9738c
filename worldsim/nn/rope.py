"""Rotary position embeddings as free functions (RoFormer, Su et al. 2021; after FLUX's math.py)."""

from __future__ import annotations

import torch
from torch import Tensor


def rotary(position: Tensor, dim: int, base: float = 100.0) -> Tensor:
    """Angles (..., dim / 2) for positions (...): position times falling frequencies.

    Worlds are small (tens of patches and chunks), so the slowest wave is `base`, not 10,000.
    """
    steps = torch.arange(0, dim, 2, dtype=torch.float32, device=position.device)
    frequency = base ** -(steps / dim)
    return position[..., None].float() * frequency


def freqs(angle: Tensor) -> Tensor:
    """Cosines and sines of angles (..., dim / 2) for `apply_rope`, (2, ..., dim / 2)."""
    return torch.stack([angle.cos(), angle.sin()])


def apply_rope(x: Tensor, freqs: Tensor) -> Tensor:
    """Rotate pairs of channels of x (..., dim) by `freqs(angle)`: products with another vector
    rotated the same way depend on the difference of their positions alone.
    """
    cos, sin = freqs.to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def grid_rotary(height: int, width: int, dim: int, device: torch.device) -> Tensor:
    """Angles (height * width, dim / 2) of a grid of patches, half for y and half for x."""
    y = rotary(torch.arange(height, device=device), dim // 2)
    x = rotary(torch.arange(width, device=device), dim // 2)
    y = y[:, None].expand(height, width, -1)
    x = x[None].expand(height, width, -1)
    return torch.cat([y, x], -1).flatten(0, 1)


def grid_freqs(height: int, width: int, dim: int, device: torch.device) -> Tensor:
    """`freqs` of a grid of patches, (2, height * width, dim / 2)."""
    return freqs(grid_rotary(height, width, dim, device))


def time_freqs(times: tuple[int, ...], dim: int, device: torch.device) -> Tensor:
    """`freqs` of times, (2, len(times), dim / 2)."""
    return freqs(rotary(torch.tensor(times, device=device), dim))
