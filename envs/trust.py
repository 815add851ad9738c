"""What an environment does about a dream that no longer deserves trust: report, penalise, truncate.

Agents find what a learned simulator gets wrong and live off it. A reward that falls with trust
(MOPO, 2005.13239) or an end where trust is gone (MOReL, 2005.05951, makes such states absorbing)
takes the profit out of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from worldsim.core import Prediction, WorldError, WorldModel

MODES = ("report", "penalise", "truncate")
UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class TrustPolicy:
    """What is done about trust below `threshold`.

    Attributes:
        mode: "report" only tells; "penalise" takes up to `penalty` off the step's reward, in
            proportion to how far trust is below the threshold; "truncate" ends the episode.
        threshold: above 0 to 1.
        penalty: reward lost where trust is 0.
    """

    mode: str = "report"
    threshold: float = 0.5
    penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise WorldError(f"trust: expected one of {MODES}, got {self.mode!r}")
        if not 0 < self.threshold <= 1:
            raise WorldError(f"trust_threshold: expected above 0 to 1, got {self.threshold}")
        if not (isfinite(self.penalty) and self.penalty >= 0):
            raise WorldError(f"trust_penalty: expected a number from 0 up, got {self.penalty}")

    @classmethod
    def towards(cls, world: WorldModel, mode: str, threshold: float, penalty: float) -> TrustPolicy:
        """One for `world`; WorldError where acting on trust needs a calibration it lacks."""
        trust_policy = cls(mode=mode, threshold=threshold, penalty=penalty)
        if mode != "report" and not world.calibrated:
            raise WorldError(
                f"trust: expected a calibrated world for {mode!r}, but nobody fitted the trust of "
                f"{world.spec.name} as it is drawn from here; use trust='report', or calibrate it: "
                "worldsim calibrate --world FOLDER --data DATA"
            )
        return trust_policy

    def reward(self, prediction: Prediction) -> Tensor:
        """The reward (B,) that the agent is given."""
        if self.mode != "penalise":
            return prediction.reward
        lack = ((self.threshold - prediction.trust) / self.threshold).clamp(min=0)
        return prediction.reward - self.penalty * lack.nan_to_num(0)

    def stops(self, prediction: Prediction) -> Tensor:
        """Rows (B,) whose episode is truncated because nothing here can be trusted any more."""
        if self.mode != "truncate":
            return torch.zeros_like(prediction.trust, dtype=torch.bool)
        return prediction.trust < self.threshold  # NaN is not


def step_info(
    policy: TrustPolicy, raw_reward: float, continue_prob: float, trust: float
) -> dict[str, Any]:
    """What `info` tells of one row's step; trust that nobody knows is not the same as none."""
    info: dict[str, Any] = {
        "continue_prob": continue_prob,
        "trust": trust if trust == trust else UNKNOWN,
    }
    return info | ({"raw_reward": raw_reward} if policy.mode == "penalise" else {})
