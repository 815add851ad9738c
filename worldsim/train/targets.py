"""What is asked for in a batch: the next chunk, or chunks between and before what is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from torch import Tensor

from worldsim.core import WorldError
from worldsim.diffusion.draws import Draws
from worldsim.diffusion.timeline import (
    Clip,
    Network,
    Order,
    draw_order,
    predict,
    predict_ordered,
)

from .distributed import total, world_size
from .loop import FitConfig


class Masked(Protocol):
    """How often chunks ahead are known: the fields of a training's settings."""

    @property
    def fit(self) -> FitConfig: ...  # noqa: D102
    @property
    def targets(self) -> int: ...  # noqa: D102
    @property
    def masked(self) -> float: ...  # noqa: D102


def check_masked(share: float) -> None:
    """Raise WorldError for a share that is none."""
    if not 0 <= share <= 1:
        raise WorldError(f"masked: expected a share from 0 to 1, got {share}")


def draw_targets(config: Masked, draws: Draws) -> Order | None:
    """What is known and in which order, for this batch; None for forwards from the past."""
    if not config.masked or bool(draws.shared.uniform((1,)) >= config.masked):
        return None
    return draw_order(config.targets + 1, draws)


def as_ordered(clip: Clip, order: Order | None) -> Clip:
    """The clip as it may be told: states before chunks are known only where time runs forwards."""
    return clip if order is None else replace(clip, conditions=clip.conditions.stateless())


def predict_targets(
    network: Network, clip: Clip, noisy: Tensor, level: Tensor, window: int, order: Order | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Clean targets, features, and which targets count (B, T), None for all."""
    if order is None:
        return *predict(network, clip, noisy, level, window), None
    return predict_ordered(network, clip, noisy, level, window, order)


def mean_where(x: Tensor, counts: Tensor | None) -> Tensor:
    """Mean of x (...) where `counts` (...) is True, 0 where it never is; of all if None.

    Of many processes each has a part of the batch and gives its part of the whole batch's mean,
    times their number: the mean over processes, of losses and gradients, is that of the batch.
    """
    if counts is None:
        return x.mean()
    return world_size() * (x * counts).sum() / total(counts.sum()).clamp(min=1)
