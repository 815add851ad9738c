"""Reading actions off windows of video, from those windows whose actions are known.

A latent action is narrow, so that it holds little but what was done, and a line through it reads
roughly. Whoever reads may look at the pictures: kernel ridge regression on the whole window or, as
fewer numbers are learned from fewer labels, on its newest chunk. Which of them, the kernel's width
and the strength are those that read best in episodes that it was not fitted to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from worldsim.core import ActionSpec
from worldsim.data.columns import columns_of
from worldsim.data.dataset import Dataset, Episode
from worldsim.models.latent_actions import PARTS, LatentActionModel

from .measures import as_numbers

LEAST, MOST = 100, 2000
"""Known actions: with fewer the model's own readout reads; more are drawn from at random."""

FOLDS = 5
WIDTHS = (0.01, 0.03, 0.1, 0.3)  # over the median squared distance of two windows
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class Reader:
    """What was learned of N windows: `read(windows)` -> actions.

    Attributes:
        action: their kind.
        windows: (N, F), the last F numbers of each. weight: (N, A). mean: (A,) of their actions as
            numbers.
        width: of the kernel, exp(-width * squared distance).
    """

    action: ActionSpec
    windows: Tensor
    weight: Tensor
    mean: Tensor
    width: float

    def read(self, windows: Tensor) -> Tensor:
        """Actions of windows (M, all) in the environment's own numbers, (M, *action)."""
        seen = windows[:, -self.windows.shape[1] :]
        numbers = kernel(seen, self.windows, self.width) @ self.weight + self.mean
        spec = self.action
        if not spec.is_discrete:
            return spec.from_normalized(numbers.clamp(-1, 1).float())
        picked = [x.argmax(-1) for x in numbers.split(list(spec.choices), -1)]
        return (torch.stack(picked, -1) if spec.shape else picked[0]) + spec.least


def kernel(a: Tensor, b: Tensor, width: float) -> Tensor:
    """Likeness of windows (M, F) and (N, F), (M, N) float64."""
    return torch.exp(-width * torch.cdist(a.double(), b.double()) ** 2)


def windows_of(model: LatentActionModel, episode: Episode) -> Tensor:
    """The window that ends with each chunk from `window - 1` on, along the basis, (M, F)."""
    frames = torch.from_numpy(np.array(episode.frames[:]))[None]
    chunks, size = model.parts(model.prepared(frames))[0], model.config.window
    return chunks.unfold(0, size, 1).transpose(1, 2).flatten(1)


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
    spec = model.config.action
    numbers = as_numbers(spec, actions).double()
    fold = places.unique(return_inverse=True)[1] % FOLDS
    errors: dict[tuple[int, float, float], float] = {}
    for count in {PARTS, windows.shape[1]}:
        seen = windows[:, -count:]
        for width in WIDTHS:
            likeness = kernel(seen, seen, width / scale_of(seen))
            for strength in STRENGTHS:
                errors[count, width, strength] = _error(likeness, numbers, strength, fold)
    count, width, strength = min(errors, key=errors.__getitem__)
    seen = windows[:, -count:]
    width /= scale_of(seen)
    return Reader(spec, seen, *_solved(kernel(seen, seen, width), numbers, strength), width)


def scale_of(windows: Tensor) -> float:
    """The median squared distance of two windows."""
    return float(torch.cdist(windows, windows).square().median())


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
