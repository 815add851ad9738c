"""Convolutions that see one chunk at a time: norms are per pixel, so any size and length fits."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class PixelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel, `(B, C, H, W)`.

    A norm over H, W or T would leak the future and tie the network to one resolution.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` -> the same shape."""
        x = rearrange(x, "b c h w -> b h w c")
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return rearrange(x, "b h w c -> b c h w")


class ResBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2016, pre-activation)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = PixelNorm(width), PixelNorm(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` -> the same shape."""
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))


def unshuffle(x: Tensor, factor: int) -> Tensor:
    """Space to channels: `(B, C, H f, W f)` -> `(B, C f f, H, W)`."""
    return rearrange(x, "b c (h p) (w q) -> b (c p q) h w", p=factor, q=factor)


def shuffle(x: Tensor, factor: int) -> Tensor:
    """Channels to space, the inverse of `unshuffle`."""
    return rearrange(x, "b (c p q) h w -> b c (h p) (w q)", p=factor, q=factor)
