"""What can be recognised in frames of environments that are known here, by their id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from worldsim.core import EnvironmentSpec

from .car_racing.landmarks import ENVIRONMENTS, CarRacingLandmarks


class Landmarks(Protocol):
    """Eyes for one environment: what is in sight, where it is, and how to act by it.

    Attributes:
        names: of what `visible` looks for.
    """

    @property
    def names(self) -> Sequence[str]: ...  # noqa: D102

    def visible(self, frames: Tensor) -> dict[str, Tensor]:
        """Whether each landmark is in sight: (..., H, W, 3) uint8 -> bool (...) by name."""
        ...

    def displacements(self, real: Tensor, rebuilt: Tensor) -> dict[str, Tensor]:
        """Distances in pixels of places in frames (N, H, W, 3) to their rebuilt ones, by kind.

        (M,) for M places that were found in the real frames; infinite where one is lost.
        """
        ...

    def act(self, frames: Tensor, actions: Tensor) -> Tensor:
        """Actions (B, *action) by what is in frames (B, H, W, 3), after `actions` (B, *action)."""
        ...


def landmarks_for(
    environment: EnvironmentSpec | None, frame_shape: tuple[int, ...]
) -> Landmarks | None:
    """The eyes that know frames of this shape of an environment, None where nobody does."""
    if environment is not None and environment.id in ENVIRONMENTS:
        return CarRacingLandmarks() if CarRacingLandmarks.fits(frame_shape) else None
    return None
