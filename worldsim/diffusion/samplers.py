"""Samplers know only `denoise(x, level)` (the contract of k-diffusion); networks stay outside.

A noisy sample at `level` t in [0, 1] is (1 - t) * clean + t * noise (rectified flow, Liu et al.
2022), so t = 1 is pure noise and t = 0 is clean. `denoise` predicts the clean sample.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from .schedule import corrupt

Denoise = Callable[[Tensor, Tensor], Tensor]
"""`denoise(x (B, ...), level (B,)) -> clean (B, ...)`."""


def euler(denoise: Denoise, noise: Tensor, levels: tuple[float, ...]) -> Tensor:
    """Euler steps of the probability-flow ODE (Karras et al. 2022, Algorithm 1 for this path).

    noise: (B, ...) unit normal. levels: S + 1 values falling from 1 to 0.
    """
    x = noise
    for level, following in zip(levels[:-1], levels[1:], strict=True):
        slope = (x - denoise(x, _rows(x, level))) / level
        x = x + (following - level) * slope
    return x


def heun(denoise: Denoise, noise: Tensor, levels: tuple[float, ...]) -> Tensor:
    """Heun's second-order steps (Karras et al. 2022, Algorithm 1); two calls a step but the last.

    noise: (B, ...) unit normal. levels: S + 1 values falling from 1 to 0.
    """
    x = noise
    for level, following in zip(levels[:-1], levels[1:], strict=True):
        slope = (x - denoise(x, _rows(x, level))) / level
        guess = x + (following - level) * slope
        if following > 0:
            ahead = (guess - denoise(guess, _rows(x, following))) / following
            guess = x + (following - level) * (slope + ahead) / 2
        x = guess
    return x


def consistency(
    denoise: Denoise, noise: Tensor, levels: tuple[float, ...], fresh: Callable[[int], Tensor]
) -> Tensor:
    """Multistep consistency sampling (Song et al. 2023, Algorithm 1).

    levels: S values falling from 1. fresh: `fresh(i)` unit normal noise for the i-th re-noising.
    """
    x = denoise(noise, _rows(noise, levels[0]))
    for i, level in enumerate(levels[1:], 1):
        x = denoise(corrupt(x, fresh(i), _rows(x, level)), _rows(x, level))
    return x


def _rows(x: Tensor, level: float) -> Tensor:
    return x.new_full((len(x),), level)
