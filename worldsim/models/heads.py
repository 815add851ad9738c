"""Reward, continuation and state vector from the features of the denoiser's own pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldsim.states import StateSpec


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


class StateHead(nn.Module):
    """Features (..., dim) to the state vector at a chunk's end.

    Where the state before the chunk is known it says what changes, in units of a usual change
    (as dynamics models of states do: PETS, 1805.12114); else the state itself. Before training
    nothing changes.
    """

    def __init__(self, spec: StateSpec, hidden: int, dim: int) -> None:
        super().__init__()
        self.spec = spec
        self.body = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.SiLU())
        self.change = nn.Linear(hidden, len(spec))
        self.whole = nn.Linear(hidden, len(spec))
        for layer in (self.change, self.whole):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor, before: Tensor, known: Tensor) -> Tensor:
        """`(..., dim)`, `(..., D)` and bool `(...)` -> `(..., D)`, in the state's own units."""
        mean, std, change = (self.spec.numbers(n, features) for n in ("mean", "std", "change"))
        h = self.body(features)
        moved = before + change * _columns(self.change, h).float()
        told = mean + std * _columns(self.whole, h).float()
        return self.spec.bounded(torch.where(known[..., None], moved, told))

    def loss(self, predicted: Tensor, true: Tensor, known: Tensor) -> Tensor:
        """Huber's loss `(...)`, in usual changes where the state before was `known`, else in
        standard deviations."""
        change, std = (self.spec.numbers(n, true) for n in ("change", "std"))
        unit = torch.where(known[..., None], change, std)
        return F.smooth_l1_loss(predicted / unit, true / unit, reduction="none").mean(-1)


def _columns(layer: nn.Linear, h: Tensor) -> Tensor:
    """`layer(h)` for a few columns: a small product would round by a row's place in the batch."""
    return (h[..., None, :] * layer.weight).sum(-1) + layer.bias


class Heads(nn.Module):
    """Features (..., dim) to a distribution over rewards and the chance that the episode goes on.

    The reward is a two-hot distribution over symexp-spaced bins (DreamerV3, 2301.04104), whose mean
    is the expected reward however skewed it is.
    """

    values: Tensor

    def __init__(self, config: HeadsConfig, dim: int, state: StateSpec | None = None) -> None:
        super().__init__()
        self.config = config
        self.state = StateHead(state, config.hidden, dim) if state else None
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
