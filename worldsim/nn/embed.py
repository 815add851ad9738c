"""What a network is given beside latents: a patch's position and a chunk's noise level."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .tables import Tables


def fourier(x: Tensor, count: int, highest: float) -> Tensor:
    """Sines and cosines of x (...) at `count` octave-spaced frequencies, (..., 2 count)."""
    span = 0, math.log2(highest), count
    waves = torch.logspace(*span, base=2.0, dtype=torch.float32, device=x.device) * math.pi
    angle = x[..., None].float() * waves
    return torch.cat([angle.sin(), angle.cos()], -1)


def grid_waves(height: int, width: int, device: torch.device) -> Tensor:
    """`fourier` of y and x, each from -1 to 1 over the frame, (height * width, 16)."""
    y, x = (torch.arange(n, dtype=torch.float32, device=device) for n in (height, width))
    y = fourier((y * 2 + 1) / height - 1, 4, 4.0)
    x = fourier((x * 2 + 1) / width - 1, 4, 4.0)
    y = y[:, None].expand(height, width, -1)
    return torch.cat([y, x[None].expand(height, width, -1)], -1).flatten(0, 1)


class PositionEmbed(nn.Module):
    """The position of a patch in the frame, as a vector to add to its token.

    Rotary positions tell patches' distances from each other; what stands still in the frame (a car
    that the camera follows, a score) is found by its position alone. Positions run from -1 to 1
    over the frame, so that any resolution has them.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(16, dim, bias=False)
        self.tables = Tables()

    def forward(self, height: int, width: int) -> Tensor:
        """`(height * width, dim)` for a grid of patches, row by row."""
        waves = self.tables(grid_waves, height, width, device=self.proj.weight.device)
        # once a pass for all chunks and rows, and too small for a matrix product
        return (waves[:, None] * self.proj.weight).sum(-1).to(self.proj.weight.dtype)


class NoiseLevelEmbed(nn.Module):
    """Noise level in [0, 1] to a vector."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(32, dim)

    def forward(self, noise_level: Tensor) -> Tensor:
        """`(...)` -> `(..., dim)`."""
        return self.proj(fourier(noise_level, 16, 64.0).to(self.proj.weight.dtype))
