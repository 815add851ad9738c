"""Randomness keyed on (seed, episode, step, draw): no generator, no order, no neighbours.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3): ten
rounds of a block cipher map a 128-bit counter to 128 random bits under a 64-bit key. The key is the
seed and the counter is (lane, draw, step, episode), 32 bits each. A cipher is a bijection, so no
two counters of a seed give the same block, and a row's future never depends on the batch it shares,
on resets, or on how many draws came before.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
"""What the two halves of the key grow by each round."""


def philox(counter: tuple[Tensor, ...], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Philox4x32-10 of 32-bit words in int64 tensors `(B, n)` or `(B, 1)`: four words each.

    counter: four tensors, the first and third below 2**32; of the others, and of the key `(B, 1)`,
        the low 32 bits count.
    """
    # Products fill all 64 bits and are masked only where the next round multiplies again.
    rounds = torch.arange(ROUNDS, device=key[0].device)
    keys = [(k + rounds * w).split(1, 1) for k, w in zip(key, WEYL, strict=True)]
    c0, c1, c2, c3 = counter
    for k0, k1 in zip(*keys, strict=True):
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1 = ((p1 >> 32) ^ (c1 ^ k0)) & _MASK, p1
        c2, c3 = ((p0 >> 32) ^ (c3 ^ k1)) & _MASK, p0
    return c0, c1 & _MASK, c2, c3 & _MASK


def _words(key: Tensor, step: Tensor, draw: int, blocks: int) -> Tensor:
    """32-bit words `(B, 4, blocks)` of each row's own stream."""
    lane = torch.arange(blocks, device=key.device, dtype=torch.int64)[None]
    counter = (lane, torch.full_like(step, draw)[:, None], step[:, None] & _MASK, key[:, 1:])
    words = philox(counter, (key[:, :1], key[:, :1] >> 32))
    return torch.stack([word.expand(len(key), blocks) for word in words], 1)


def hash_rows(key: Tensor, step: Tensor, draw: int) -> Tensor:
    """One 64-bit word a row: key `(B, 2)`, step `(B,)`, all int64 -> `(B,)` int64, any sign."""
    low, high = _words(key, step, draw, 1)[:, :2, 0].unbind(1)
    return low | (high << 32)


def words_rows(key: Tensor, step: Tensor, draw: int, count: int) -> Tensor:
    """64-bit words `(B, count)` int64, any sign, from each row's own stream."""
    words = _words(key, step, draw, -(-count // 2))
    return (words[:, ::2] | (words[:, 1::2] << 32)).flatten(1)[:, :count]


def uniform_rows(key: Tensor, step: Tensor, draw: int, count: int) -> Tensor:
    """Uniform numbers in (0, 1), `(B, count)` float32, from each row's own stream."""
    return _uniform(_words(key, step, draw, -(-count // 4))).flatten(1)[:, :count]


def _uniform(words: Tensor) -> Tensor:
    return ((words >> 9).float() + 0.5) * 2.0**-23  # 24 bits: one more would round up to 1


def normal_rows(key: Tensor, step: Tensor, draw: int, shape: tuple[int, ...]) -> Tensor:
    """Unit normal noise `(B, *shape)` float32 from each row's own stream (Box and Muller 1958).

    key: (B, 2) int64. step: (B,) int64. draw: which use within the step.
    """
    count = math.prod(shape)
    u = _uniform(_words(key, step, draw, -(-count // 4)))
    radius, angle = (-2 * u[:, :2].log()).sqrt(), 2 * math.pi * u[:, 2:]
    flat = torch.cat([radius * angle.cos(), radius * angle.sin()], 1).flatten(1)
    return flat[:, :count].reshape(len(key), *shape)
