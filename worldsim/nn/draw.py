"""Random tensors that are the same on every device: drawn where the generator lives, then moved."""

from __future__ import annotations

import torch
from torch import Tensor


def normal(shape: tuple[int, ...] | torch.Size, g: torch.Generator, device: torch.device) -> Tensor:
    """Standard normal float32 of `shape` on `device`."""
    return torch.randn(shape, generator=g, device=g.device, dtype=torch.float32).to(device)


def uniform(
    shape: tuple[int, ...] | torch.Size, g: torch.Generator, device: torch.device
) -> Tensor:
    """Float32 in [0, 1) of `shape` on `device`."""
    return torch.rand(shape, generator=g, device=g.device, dtype=torch.float32).to(device)
