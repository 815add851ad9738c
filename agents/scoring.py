"""What a dream is worth: rewards, the odds of going on, and the world's own doubt."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from worldsim.core import Prediction, WorldModel, WorldState

Value = Callable[[WorldState], Tensor]
"""State -> what is still to come `(B,)`: a critic, to look past a plan's end."""


def heeded(said: Prediction, distrust: float) -> Tensor:
    """Rewards `(B,)` less `distrust * (1 - trust)`; unknown trust (NaN) costs nothing.

    A penalty for leaving what the world knows, as in MOPO (Yu et al. 2020, 2005.13239).
    """
    return said.reward - distrust * (1 - said.trust.nan_to_num(1.0)) if distrust else said.reward


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
    follows a likely end counts for as much as the dream is likely to get there.
    """
    rows, plans = actions.shape[:2]
    copies = state.repeat(plans)
    weight = total = torch.zeros(rows * plans, device=world.device)
    weight = weight + 1
    for action in rearrange(actions, "b n t ... -> t (b n) ..."):
        copies, said = world.step(copies, action)
        total = total + weight * heeded(said, distrust)
        weight = weight * gamma * said.continue_prob
    if value is not None:
        total = total + weight * value(copies)
    return rearrange(total, "(b n) -> b n", b=rows)
