"""Distributions of actions that neither torch nor TorchRL has."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor

ONE_DRAW = torch.Size()
EDGE = 1e-6
"""Nearer to the ends of 0 to 1 the density of a Beta distribution rounds to nothing in float32."""


class IndependentCategorical(torch.distributions.Independent):
    """Several choices, each drawn by its own logits `(..., E, n)`."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__(torch.distributions.Categorical(logits=logits), 1)

    @property
    def deterministic_sample(self) -> Tensor:
        """The likeliest choices `(..., E)`."""
        return self.base_dist.logits.argmax(-1)  # type: ignore[attr-defined]


class ScaledBeta(torch.distributions.Independent):
    """Actions `(..., A)` from -1 to 1, each by a Beta distribution stretched from 0 to 1.

    What is drawn needs no clipping, so the density is that of what is carried out (Chou, Maturana
    and Scherer 2017, "Improving stochastic policy gradients in continuous control with deep
    reinforcement learning using the Beta distribution").
    """

    def __init__(self, concentration1: Tensor, concentration0: Tensor) -> None:
        super().__init__(torch.distributions.Beta(concentration1, concentration0), 1)

    @property
    def mean(self) -> Tensor:
        """`(..., A)`."""
        return 2 * super().mean - 1

    @property
    def stddev(self) -> Tensor:
        """`(..., A)`, twice that of the Beta distribution."""
        return 2 * super().stddev

    @property
    def deterministic_sample(self) -> Tensor:
        """The mean."""
        return self.mean

    def rsample(self, sample_shape: torch.Size = ONE_DRAW) -> Tensor:
        """Actions `(*sample_shape, ..., A)` from -1 to 1."""
        return 2 * super().rsample(sample_shape).clamp(EDGE, 1 - EDGE) - 1

    def sample(self, sample_shape: torch.Size = ONE_DRAW) -> Tensor:
        """As `rsample`, without gradients."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density `(...)` of actions from -1 to 1."""
        unit = ((value + 1) / 2).clamp(EDGE, 1 - EDGE)
        return super().log_prob(unit) - log(2) * value.shape[-1]

    def entropy(self) -> Tensor:
        """`(...)`, in nats."""
        return super().entropy() + log(2) * self.event_shape[0]
