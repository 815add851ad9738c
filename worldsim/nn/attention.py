"""Attention and rotary positions as free functions (after FLUX's math.py, RoFormer 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v.

    q: (..., heads, Q, d). k, v: (..., kv_heads, K, d), each serving heads / kv_heads queries.
    mask: bool, True where a query may look, broadcast to (..., 1, Q, K).

    Written out where gradients run on a CPU: there the fused kernel's backward pass costs more
    than the two matrix products of sequences as short as a frame's.
    """
    groups = q.shape[-3] // k.shape[-3]
    if groups > 1:  # grouped queries (Ainslie et al. 2023)
        k, v = k.repeat_interleave(groups, -3), v.repeat_interleave(groups, -3)
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1) @ v


def rotary(position: Tensor, dim: int, base: float = 100.0) -> Tensor:
    """Angles (..., dim / 2) for positions (...): position times falling frequencies.

    Worlds are small (tens of patches and chunks), so the slowest wave is `base`, not 10,000.
    """
    frequency = base ** -(torch.arange(0, dim, 2, device=position.device) / dim)
    return position[..., None].float() * frequency


def rotate(x: Tensor, angle: Tensor) -> Tensor:
    """Turn pairs of channels of x (..., dim) by angle (..., dim / 2): products with another
    vector turned the same way depend on the difference of their positions alone.
    """
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def grid_rotary(height: int, width: int, dim: int, device: torch.device) -> Tensor:
    """Angles (height * width, dim / 2) of a grid of patches, half for y and half for x."""
    y = rotary(torch.arange(height, device=device), dim // 2)
    x = rotary(torch.arange(width, device=device), dim // 2)
    y = y[:, None].expand(height, width, -1)
    x = x[None].expand(height, width, -1)
    return torch.cat([y, x], -1).flatten(0, 1)
