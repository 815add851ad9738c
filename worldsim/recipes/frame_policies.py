"""Policies that act by what is in the picture, in a dream as in the real environment."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .car_racing.landmarks import ENVIRONMENTS, steer_by_sight

FramePolicy = Callable[[Tensor], Tensor]
"""The newest frames (B, H, W, 3) uint8 -> actions (B, *action) in the environment's range."""


class SteerBySight:
    """Follows the road of CarRacing, and keeps the wheel as it was where none is in sight."""

    def __init__(self) -> None:
        self.wheel: Tensor | None = None

    def __call__(self, frames: Tensor) -> Tensor:
        """Frames (B, H, W, 3) uint8 -> actions (B, 3)."""
        wheel = torch.zeros(len(frames)) if self.wheel is None else self.wheel
        actions = steer_by_sight(frames, wheel)
        self.wheel = actions[:, 0]
        return actions


def frame_policies(environment: str) -> dict[str, Callable[[], FramePolicy]]:
    """By name, what makes such a policy of an environment's id for one episode."""
    return {"by sight": SteerBySight} if environment in ENVIRONMENTS else {}
