"""Reading actions off windows of video, from those windows whose actions are known.

A latent action is narrow, so that it holds little but what was done, and a line through it reads
roughly. Whoever reads may look at the pictures: kernel ridge regression on the pixels of the whole
window or, as fewer numbers are learned from fewer labels, of its newest chunk or frame. Which of
them, the kernel's width and the strength are those that read best in episodes that it was not
fitted to. Pixels count by how much they change: a thin arrow as much as what it is drawn upon.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from worldsim.core import ActionSpec
from worldsim.data.columns import columns_of
from worldsim.data.dataset import Dataset, Episode
from worldsim.models.latent_actions import LatentActionModel

from .measures import as_numbers

LEAST, MOST = 100, 2000
"""Known actions: with fewer the model's own readout reads; more are drawn from at random."""

FOLDS = 5
WIDTHS = (0.003, 0.01, 0.03, 0.1, 0.3)  # over the mean squared distance of two windows
STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
STEADY = 0.1
"""Of -1 to 1, added to a pixel's standard deviation: one that hardly changes says little."""


@dataclass(frozen=True)
class Reader:
    """What was learned of N windows: `read(windows)` -> actions.

    Attributes:
        action: their kind.
        windows: (N, F), the last F pixels of each, over `spread` (F,). weight: (N, A). mean: (A,)
            of their actions as numbers.
        width: of the kernel, exp(-width * squared distance).
    """

    action: ActionSpec
    windows: Tensor
    spread: Tensor
    weight: Tensor
    mean: Tensor
    width: float

    def read(self, windows: Tensor) -> Tensor:
        """Actions of windows (M, all) in the environment's own numbers, (M, *action)."""
        seen = windows[:, -len(self.spread) :] / self.spread
        numbers = kernel(seen, self.windows, self.width) @ self.weight + self.mean
        spec = self.action
        if not spec.is_discrete:
            return spec.from_normalized(numbers.clamp(-1, 1).float())
        picked = [x.argmax(-1) for x in numbers.split(list(spec.choices), -1)]
        return (torch.stack(picked, -1) if spec.shape else picked[0]) + spec.least


def kernel(a: Tensor, b: Tensor, width: float) -> Tensor:
    """Likeness of windows (M, F) and (N, F), (M, N) float64."""
    return torch.exp(-width * distances(a, b))


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared, of windows (M, F) and (N, F), (M, N) float64."""
    return torch.cdist(a.double(), b.double()) ** 2


def windows_of(model: LatentActionModel, episode: Episode) -> Tensor:
    """Pixels, as the model reduces them, of the window that ends with each chunk from `window - 1`
    on, from its first frame to its last, (M, F)."""
    frames = torch.from_numpy(np.array(episode.frames[:]))[None]
    chunks = model.prepared(frames)[0]
    return rearrange(chunks.unfold(0, model.config.window, 1), "m k h w n -> m (n k h w)")


def known_windows(model: LatentActionModel, data: Dataset) -> tuple[Tensor, Tensor, Tensor]:
    """Windows (N, F) whose actions are known, these (N, *action), and whose episodes, (N,)."""
    found, first = [], model.config.window - 1
    for place in range(len(data)):
        episode = data.episode(place)
        columns = columns_of(episode, model.config.action)
        rows = columns.known[first:].nonzero()[:, 0]
        if len(rows):
            own = torch.full_like(rows, place)
            found.append((windows_of(model, episode)[rows], columns.actions[rows + first], own))
    if not found:
        none = torch.zeros(0, dtype=torch.long)
        return torch.zeros(0, 1), none, none
    windows, actions, places = (torch.cat(x) for x in zip(*found, strict=True))
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(0))[:MOST]
    return windows[order], actions[order], places[order]


def fit_reader(model: LatentActionModel, data: Dataset) -> Reader | None:
    """A reader of a recording's known actions; None where they are too few or of one episode."""
    windows, actions, places = known_windows(model, data)
    if len(windows) < LEAST or len(places.unique()) < 2:
        return None
    spec, config = model.config.action, model.config
    numbers = as_numbers(spec, actions).double()
    fold = places.unique(return_inverse=True)[1] % FOLDS
    frame = 3 * prod(config.size)
    spread = windows.std(0) + STEADY
    windows = windows / spread
    errors: dict[tuple[int, float, float], float] = {}
    for count in (frame, config.chunk * frame, windows.shape[1]):
        seen = windows[:, -count:]
        far = distances(seen, seen)
        apart = max(1e-9, float(far.mean()))
        for width in (share / apart for share in WIDTHS):
            likeness = torch.exp(-width * far)
            for strength in STRENGTHS:
                errors[count, width, strength] = _error(likeness, numbers, strength, fold)
    count, width, strength = min(errors, key=errors.__getitem__)
    seen = windows[:, -count:]
    solved = _solved(kernel(seen, seen, width), numbers, strength)
    return Reader(spec, seen, spread[-count:], *solved, width)


def _error(likeness: Tensor, numbers: Tensor, strength: float, fold: Tensor) -> float:
    """Squared error in each fold by what was learned of the others."""
    total = 0.0
    for held in fold.unique().tolist():
        rest = fold != held
        weight, mean = _solved(likeness[rest][:, rest], numbers[rest], strength)
        total += float(((likeness[~rest][:, rest] @ weight + mean - numbers[~rest]) ** 2).sum())
    return total


def _solved(likeness: Tensor, numbers: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Weight (N, A) and mean (A,) of kernel ridge regression."""
    mean = numbers.mean(0)
    eye = torch.eye(len(likeness), dtype=likeness.dtype)
    return torch.linalg.solve(likeness + strength * eye, numbers - mean), mean
