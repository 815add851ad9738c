"""A power law with a floor, and what is known about it after a handful of runs.

    error = E + exp(a) * C^-b * (C / D^2)^-s

C is training compute in FLOPs, D the clips seen, so that C / D is the cost of a clip and C / D^2
says how much network there is for the data: at equal compute, s > 0 means that the larger network
is the better one, s < 0 the longer training (Kaplan et al., 2001.08361, and Hoffmann et al.,
2203.15556, ask the same with more terms than ten runs can tell apart).

For a given floor E the logarithm of what is above it is linear, with normal errors around it, so
the usual regression applies in closed form; E itself has a flat prior from 0 to the best error seen
and is integrated out on a grid. Every interval so widens by what is not known about the floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worldsim.core import WorldError
from worldsim.metrics import Interval

Array = NDArray[np.float64]
DRAWS, GRID = 10_000, 1_000
PARAMETERS = 3  # a, b, s


@dataclass(frozen=True)
class Law:
    """Draws from what is known about the law, and the measured errors' scatter around it.

    Attributes:
        floor: (K,) E.
        terms: (K, 3) a, b and s, with C and D relative to `centre`.
        sigma: (K,) standard deviation of the logarithm above the floor, run to run.
        normal: (K,) unit normal draws for further runs.
        centre: (3,) mean columns of the design, where a is told.
        best: the least error seen, which the floor lies below.
    """

    floor: Array
    terms: Array
    sigma: Array
    normal: Array
    centre: Array
    best: float

    def mean(self, flops: float, clips: float) -> Interval:
        """The law's error at this compute and data: median and 95% interval."""
        return _interval(self._above(flops, clips, 0.0))

    def next_run(self, flops: float, clips: float) -> Interval:
        """The error that one further run will have, its own scatter included."""
        return _interval(self._above(flops, clips, 1.0))

    def _above(self, flops: float, clips: float, scatter: float) -> Array:
        line = self.terms @ (_design([flops], [clips])[0] - self.centre + [1.0, 0.0, 0.0])
        return self.floor + np.exp(line + scatter * self.sigma * self.normal)

    @property
    def exponent(self) -> Interval:
        """b: what is above the floor falls as compute to the power of -b."""
        return _interval(self.terms[:, 1])

    @property
    def tilt(self) -> Interval:
        """s: above 0 the larger network wins at equal compute, below 0 the longer training."""
        return _interval(self.terms[:, 2])

    @property
    def irreducible(self) -> Interval:
        """E, the floor."""
        return _interval(self.floor)

    @property
    def floor_is_known(self) -> bool:
        """Whether the runs narrow the floor to less than half of where it could have been."""
        return self.irreducible.high - self.irreducible.low < 0.5 * 0.95 * self.best

    @property
    def spread(self) -> Interval:
        """Scatter of single runs around the law, as a share of what is above the floor."""
        return _interval(self.sigma)


def fit_law(
    flops: Sequence[float], clips: Sequence[float], errors: Sequence[float], seed: int = 0
) -> Law:
    """Fit the law to runs; WorldError for fewer than five, or for runs that all lie on one line."""
    design, values = _design(flops, clips), np.asarray(errors, np.float64)
    runs, freedom = len(values), len(values) - PARAMETERS
    centre = design.mean(0)
    x = design - centre + [1.0, 0.0, 0.0]
    if freedom < 2 or np.linalg.matrix_rank(x) < PARAMETERS:
        raise WorldError(f"runs: expected 5 or more of several sizes and budgets, got {runs}; "
                         "a law with a floor needs more runs than terms")  # fmt: skip
    best = float(values.min())
    grid = (np.arange(GRID) + 0.5) / GRID * best
    y = np.log(values - grid[:, None])  # (GRID, runs)
    found = y @ np.linalg.pinv(x).T
    rest = np.maximum(((y - found @ x.T) ** 2).sum(1), 1e-18)
    # Density of the errors given E, all else integrated out under its Jeffreys prior; the sum of
    # logarithms is the change from the logarithm above the floor to the error itself.
    weight = -freedom / 2 * np.log(rest) - y.sum(1)
    weight = np.exp(weight - weight.max())
    g = np.random.default_rng(seed)
    at = g.choice(GRID, DRAWS, p=weight / weight.sum())
    sigma = np.sqrt(rest[at] / g.chisquare(freedom, DRAWS))
    root = np.linalg.cholesky(np.linalg.inv(x.T @ x))
    terms = found[at] + sigma[:, None] * (g.standard_normal((DRAWS, PARAMETERS)) @ root.T)
    return Law(grid[at], terms, sigma, g.standard_normal(DRAWS), centre, best)


def _design(flops: Sequence[float], clips: Sequence[float]) -> Array:
    """Columns for a, b and s: (N, 3)."""
    c, d = np.log(np.asarray(flops, np.float64)), np.log(np.asarray(clips, np.float64))
    return np.stack([np.zeros_like(c), -c, -(c - 2 * d)], 1)


def _interval(draws: Array) -> Interval:
    low, value, high = np.quantile(draws, [0.025, 0.5, 0.975]).tolist()
    return Interval(value, low, high)
