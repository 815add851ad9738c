"""Attention and rotary positions as free functions (after FLUX's math.py, RoFormer 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v.

    q: (..., heads, Q, d). k, v: (..., kv_heads, K, d), each serving heads / kv_heads queries.
    mask: bool, True where a query may look, broadcast to (..., 1, Q, K).

    Written out where gradients run on a CPU: there the fused kernel's backward pass costs more
    than the two matrix products of sequences as short as a frame's.
    """
    if q.device.type != "cpu":
        grouped = q.shape[-3] != k.shape[-3]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)
    scores = _grouped(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return _grouped(scores.softmax(-1), v)


def attend_shared(
    q: Tensor, near: tuple[Tensor, Tensor], far: tuple[Tensor, Tensor], mask: Tensor
) -> Tensor:
    """The same where the older keys are shared by rows beside each other, and never copied.

    q: (B n, s, heads, Q, d). near: keys and values (B n, s, kv_heads, K, d). far: (B, s, kv_heads,
    P, d), each row of which serves n rows of q. mask: (B n, 1, 1, Q, P + K).
    """
    (k, v), (far_k, far_v), rows = near, far, len(far[0])
    q = q * q.shape[-1] ** -0.5

    def look(x: Tensor, there: Tensor) -> Tensor:
        """Rows that share stand in one matrix product, as queries of one row."""
        together = rearrange(x, "(b n) s h q d -> b s h (n q) d", b=rows)
        seen = _grouped(together, there)
        return rearrange(seen, "b s h (n q) d -> (b n) s h q d", q=x.shape[-2])

    scores = torch.cat([look(q, far_k.transpose(-1, -2)), _grouped(q, k.transpose(-1, -2))], -1)
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
    back, here = weights.split([far_k.shape[-2], k.shape[-2]], -1)
    return look(back, far_v) + _grouped(here, v)


def _grouped(x: Tensor, y: Tensor) -> Tensor:
    """x @ y, (..., heads, n, k) and (..., kv_heads, k, m), each kv head serving heads / kv_heads.

    Grouped queries (Ainslie et al. 2023) are further rows of one product: nothing is repeated.
    """
    if x.shape[-3] == y.shape[-3]:
        return x @ y
    z = x.unflatten(-3, (y.shape[-3], -1)).flatten(-3, -2) @ y
    return z.unflatten(-2, (-1, x.shape[-2])).flatten(-4, -3)
