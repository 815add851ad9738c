"""What a dream is worth: rewards, the odds of going on, and the world's own uncertainty."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from worldsim.core import Prediction, WorldModel, WorldState

Value = Callable[[WorldState], Tensor]
"""State -> what is still to come `(B,)`: a critic, to look past a plan's end."""

WORST = torch.finfo(torch.float32).min
"""The score of what is not finite: it ranks below all else, and a mean can still be taken of it."""


def trusted_reward(prediction: Prediction, distrust: float) -> Tensor:
    """Rewards `(B,)` less `distrust * (1 - trust)`; unknown trust (NaN) costs nothing.

    A penalty for leaving what the world knows, as in MOPO (Yu et al. 2020, 2005.13239).
    """
    if not distrust:
        return prediction.reward
    return prediction.reward - distrust * (1 - prediction.trust.nan_to_num(1.0))


def ranked(scores: Tensor) -> Tensor:
    """The scores, `WORST` where they are not finite: NaN would win or spoil a ranking."""
    return torch.where(scores.isfinite(), scores, WORST)


@torch.no_grad()
def plan_returns(
    world: WorldModel,
    state: WorldState,
    actions: Tensor,
    *,
    gamma: float = 1.0,
    distrust: float = 0.0,
    value: Value | None = None,
) -> Tensor:
    """The dreamt return `(B, N)` of N plans a row, `actions` `(B, N, T, *action)`.

    The plans of a row meet the same noise (equal keys): they differ by their actions alone. What
    follows a likely end counts for as much as the dream is likely to get there. A plan in whose
    dream a NaN or an infinity arises scores `WORST`.
    """
    rows, plans = actions.shape[:2]
    copies = state.repeat(plans)
    weight = total = torch.zeros(rows * plans, device=world.device)
    weight = weight + 1
    for action in rearrange(actions, "b n t ... -> t (b n) ..."):
        copies, prediction = world.step(copies, action)
        total = total + weight * trusted_reward(prediction, distrust)
        weight = weight * gamma * prediction.continue_prob
    if value is not None:
        total = total + weight * value(copies)
    return ranked(rearrange(total, "(b n) -> b n", b=rows))
