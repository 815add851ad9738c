"""Randomness keyed on (seed, episode, step, draw): no generator, no order, no neighbours.

A row's noise is a hash of its own key and counters (counter-based generation in the manner of
Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), so the future of a row never
depends on the batch it shares, on resets, or on how many draws came before.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def _mix(x: Tensor) -> Tensor:
    """A 32-bit finaliser (lowbias32, Wellons 2018) on int64 tensors holding 32-bit words."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _MASK
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def hash_rows(key: Tensor, step: Tensor, draw: int) -> Tensor:
    """One 32-bit word a row: key `(B, 2)`, step `(B,)`, all int64 -> `(B,)` int64."""
    word = torch.full_like(step, 0x9E3779B9 ^ draw)
    for part in (key[:, 0], key[:, 0] >> 32, key[:, 1], step):
        word = _mix((word * 0x2545F491 + (part & _MASK)) & _MASK)
    return word


def uniform_rows(key: Tensor, step: Tensor, draw: int, count: int) -> Tensor:
    """Uniform numbers in (0, 1), `(B, count)` float32, from each row's own stream."""
    lanes = torch.arange(count, device=key.device, dtype=torch.int64)
    word = hash_rows(key, step, draw)[:, None]
    word = _mix((_mix((word + lanes * 0x9E3779B9) & _MASK) + word) & _MASK)
    return ((word >> 9).float() + 0.5) * 2.0**-23  # 24 bits: one more would round up to 1


def normal_rows(key: Tensor, step: Tensor, draw: int, shape: tuple[int, ...]) -> Tensor:
    """Unit normal noise `(B, *shape)` float32 from each row's own stream (Box and Muller 1958).

    key: (B, 2) int64. step: (B,) int64. draw: which use within the step.
    """
    count = math.prod(shape)
    half = (count + 1) // 2
    u = uniform_rows(key, step, draw, 2 * half)
    radius, angle = (-2 * u[:, :half].log()).sqrt(), 2 * math.pi * u[:, half:]
    flat = torch.cat([radius * angle.cos(), radius * angle.sin()], 1)
    return flat[:, :count].reshape(len(key), *shape)
