"""Reward and continuation from the features of the denoiser's own pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class HeadsConfig:
    """Sizes of the heads.

    Attributes:
        hidden: width of the hidden layer.
        bins: number of reward bins, spaced by symexp.
        largest: symlog of the largest reward, so 5 covers -147..147.
    """

    hidden: int = 256
    bins: int = 41
    largest: float = 5.0

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.bins < 2 or not 0 < self.largest <= 20:
            raise ValueError(
                f"heads: expected hidden >= 1, bins >= 2 and 0 < largest <= 20, got {self}"
            )


class HeadsOutput(NamedTuple):
    """Logits over reward bins (..., bins) and of going on (...)."""

    reward: Tensor
    continue_logits: Tensor


class Heads(nn.Module):
    """Features (..., dim) to a distribution over rewards and the chance that the episode goes on.

    The reward is a two-hot distribution over symexp-spaced bins (DreamerV3, 2301.04104), whose mean
    is the expected reward however skewed it is.
    """

    values: Tensor

    def __init__(self, config: HeadsConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.body = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, config.hidden), nn.SiLU())
        self.reward = nn.Linear(config.hidden, config.bins)
        self.cont = nn.Linear(config.hidden, 1)
        nn.init.zeros_(self.reward.weight)
        nn.init.zeros_(self.cont.weight)
        nn.init.constant_(self.cont.bias, 4.0)  # ends are rare
        grid = torch.linspace(-config.largest, config.largest, config.bins)
        self.register_buffer("values", grid.sign() * grid.abs().expm1(), persistent=False)

    def forward(self, features: Tensor) -> HeadsOutput:
        """`(..., dim)` -> logits."""
        h = self.body(features)
        # not self.cont(h): a product with a single column rounds by a row's place in the batch
        cont = (h * self.cont.weight[0]).sum(-1) + self.cont.bias
        return HeadsOutput(self.reward(h).float(), cont.float())

    def expected_reward(self, logits: Tensor) -> Tensor:
        """Mean of the distribution, `(..., bins)` -> `(...)`."""
        return (logits.softmax(-1) * self.values).sum(-1)

    def two_hot(self, reward: Tensor) -> Tensor:
        """Weights on the two bins around each reward, with the reward as their mean."""
        reward = reward.clamp(self.values[0], self.values[-1])
        above = torch.searchsorted(self.values, reward).clamp(1, len(self.values) - 1)
        low, high = self.values[above - 1], self.values[above]
        part = ((reward - low) / (high - low))[..., None]
        count = len(self.values)
        return F.one_hot(above, count) * part + F.one_hot(above - 1, count) * (1 - part)

    def losses(
        self, features: Tensor, reward: Tensor, continue_prob: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropies of reward and continuation, both `(...)`, nats."""
        out = self(features)
        reward_loss = -(self.two_hot(reward) * out.reward.log_softmax(-1)).sum(-1)
        return reward_loss, F.binary_cross_entropy_with_logits(
            out.continue_logits, continue_prob, reduction="none"
        )
