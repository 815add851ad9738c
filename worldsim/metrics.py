"""How far a dream is from reality: figures from tensors, and nothing else.

Frames are uint8 0..255, errors are on a scale of 0..1. Figures that are means over rows take
weights `(D, N)`, one row of weights for each of D figures, so that a bootstrap is one product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

MOVED = 0.1
"""A pixel moved if a channel changed by more than this (of 0..1) since the frame before."""

BEST_PSNR = 100.0
"""What equal frames score, dB: half a step of uint8 in every pixel would be 54."""


def squared_error(frames: Tensor, real: Tensor) -> Tensor:
    """Squared error of every pixel, mean over channels: (..., H, W, 3) uint8 -> (..., H, W)."""
    if frames.shape != real.shape:
        raise ValueError(f"frames: expected {tuple(real.shape)}, got {tuple(frames.shape)}")
    difference = frames.to(torch.int16) - real.to(torch.int16)  # exact; half of float's memory
    return difference.float().div_(255).square_().mean(-1)


def psnr(mse: Tensor) -> Tensor:
    """Peak signal-to-noise ratio, dB, of mean squared errors on a scale of 0..1."""
    return -10 * mse.clamp(min=10 ** (-BEST_PSNR / 10)).log10()


def moved(frames: Tensor, before: Tensor) -> Tensor:
    """Which pixels moved between two frames: (..., H, W, 3) uint8 -> bool (..., H, W)."""
    difference = (frames.to(torch.int16) - before.to(torch.int16)).abs()
    return (difference > MOVED * 255).any(-1)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Means of `values` (N, ...) under weights (D, N) -> (D, ...); NaN where nothing weighs."""
    sums = torch.tensordot(weights.double(), values.double(), 1)
    return sums / weights.double().sum(-1).reshape(-1, *[1] * (values.ndim - 1))


def pearson(a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
    """Pearson's correlation of `a` and `b` (N,) under weights (D, N) -> (D,); NaN if one is flat.

    A spread within rounding of zero, relative to the values, counts as flat.
    """
    mean_a, mean_b = weighted_mean(a, weights)[:, None], weighted_mean(b, weights)[:, None]
    total = weights.double().sum(-1, keepdim=True)
    da, db, w = a.double() - mean_a, b.double() - mean_b, weights.double() / total
    var_a, var_b = (w * da**2).sum(-1), (w * db**2).sum(-1)
    flat = (var_a <= 1e-12 * (w * a**2).sum(-1)) | (var_b <= 1e-12 * (w * b**2).sum(-1))
    return torch.where(flat, torch.nan, (w * da * db).sum(-1) / (var_a * var_b).sqrt())


def r_squared(predicted: Tensor, true: Tensor, weights: Tensor) -> Tensor:
    """1 - squared error over the truth's variance, both (N,), under weights (D, N) -> (D,).

    1 is perfect, 0 no better than the mean; NaN or minus infinity where the truth is flat.
    """
    mean = weighted_mean(true, weights)
    spread = weighted_mean(true.double() ** 2, weights) - mean**2
    return 1 - weighted_mean((predicted.double() - true.double()) ** 2, weights) / spread


class Interval(NamedTuple):
    """A figure and its 95% bootstrap interval."""

    value: float
    low: float
    high: float


def bootstrap(
    figure: Callable[[Tensor], Tensor], clusters: Tensor, *, draws: int = 1000, seed: int = 0
) -> Interval:
    """A figure with its 95% percentile interval under resampling of whole clusters (episodes).

    figure: weights (D, N) -> (D,). clusters: (N,) int64, which cluster each of N rows belongs to.
    Rows of one episode resemble each other, so episodes are drawn, not rows (Efron and Tibshirani
    1993, chapter 8). Draws in which the figure is not a number are left out.
    """
    names, member = clusters.unique(return_inverse=True)
    generator = torch.Generator().manual_seed(seed)
    picked = torch.randint(len(names), (draws, len(names)), generator=generator)
    counts = torch.zeros(draws, len(names)).scatter_add_(1, picked, torch.ones(picked.shape))
    value = figure(torch.ones(1, len(clusters)))[0].item()
    drawn = figure(counts[:, member])
    drawn = drawn[~drawn.isnan()].double()
    if not len(drawn):
        return Interval(value, float("nan"), float("nan"))
    low, high = drawn.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(value, low, high)


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """How often a yes was predicted and true (`hits`) or `false`, or `missed`; and rightly not."""

    hits: int
    false: int
    missed: int
    quiet: int

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; NaN where nothing was true or predicted."""
        total = 2 * self.hits + self.false + self.missed
        return 2 * self.hits / total if total else float("nan")

    @property
    def false_rate(self) -> float:
        """Share of the noes at which a yes was predicted; NaN without a no."""
        noes = self.false + self.quiet
        return self.false / noes if noes else float("nan")


def confusion(predicted: Tensor, true: Tensor, counted: Tensor) -> Confusion:
    """Count bool tensors of one shape where `counted`."""
    a, b = predicted[counted], true[counted]
    pairs = (a & b, a & ~b, ~a & b, ~a & ~b)
    hits, false, missed, quiet = (int(x.sum()) for x in pairs)
    return Confusion(hits=hits, false=false, missed=missed, quiet=quiet)


class Crossings(NamedTuple):
    """Where a score passes zero along the last axis, between neighbouring entries.

    position: (..., W - 1), in pixels, NaN where it does not pass. rises: bool (..., W - 1).
    """

    position: Tensor
    rises: Tensor


def crossings(score: Tensor) -> Crossings:
    """Sub-pixel zero crossings of `score` (..., W), by a straight line between pixel centres."""
    left, right = score[..., :-1], score[..., 1:]
    passes = (left >= 0) != (right >= 0)
    column = torch.arange(score.shape[-1] - 1, device=score.device)
    position = torch.where(passes, column + left / (left - right), torch.nan)
    return Crossings(position, right > left)


def match_crossings(real: Crossings, rebuilt: Crossings, reach: float) -> Tensor:
    """Distance, pixels, from every real crossing to the nearest rebuilt one on the same line.

    Only crossings in the same direction match. Returns (M,), infinite beyond `reach`.
    """
    lines, _ = torch.where(~real.position.flatten(0, -2).isnan())
    here = real.position[~real.position.isnan()][:, None]
    rises = real.rises[~real.position.isnan()][:, None]
    distance = (rebuilt.position.flatten(0, -2)[lines] - here).abs()
    fits = (rebuilt.rises.flatten(0, -2)[lines] == rises) & (distance <= reach)
    return torch.where(fits, distance, torch.inf).amin(-1)  # NaN <= reach is false


def auroc(score: Tensor, true: Tensor) -> float:
    """Chance that a true case scores above a false one, ties half: both (N,); NaN of one kind only.

    Mann and Whitney 1947: from the ranks of the scores.
    """
    values, place = score.double().unique(return_inverse=True)
    count = torch.bincount(place, minlength=len(values)).double()
    rank = (count.cumsum(0) - (count - 1) / 2)[place]
    yes, no = int(true.sum()), int((~true).sum())
    if not yes or not no:
        return float("nan")
    return float((rank[true].sum() - yes * (yes + 1) / 2) / (yes * no))


class Reliability(NamedTuple):
    """What was predicted and what came true in bins of probability; see `reliability`.

    predicted, true: mean probability and share that came true, by bin; count: cases; ece: mean
    absolute difference of the two over all cases.
    """

    predicted: list[float]
    true: list[float]
    count: list[int]
    ece: float


def reliability(probability: Tensor, true: Tensor, bins: int = 10) -> Reliability:
    """Expected calibration error (Guo et al. 2017, 1706.04599) over bins of equal width.

    probability: (N,) from 0 to 1. true: bool (N,). Empty bins are NaN and weigh nothing.
    """
    place = (probability * bins).long().clamp(0, bins - 1)
    count = torch.bincount(place, minlength=bins)
    weights = (probability.double(), true.double())
    predicted, came = (torch.bincount(place, w, minlength=bins) / count for w in weights)
    error = float((count * (predicted - came).abs().nan_to_num(0)).sum() / count.sum())
    return Reliability(predicted.tolist(), came.tolist(), count.tolist(), error)
