"""An adversarial term in the student's training: predictions that look recorded do not average.

A student of few passes answers pure noise with a mean where data are few: grass melts, roads end
in fog. A discriminator learns to tell its predictions from recorded chunks, and the student to be
taken for one (adversarial distillation, Sauer et al. 2023, 2311.17042; APT, 2501.08316).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from worldsim.core import WorldError
from worldsim.diffusion.draws import Draws
from worldsim.models.discriminator import Discriminator
from worldsim.models.dynamics import Dynamics
from worldsim.nn.generator import kept_generator

JUDGED = 4
"""Predicted chunks a clip that are judged, and as many recorded ones."""

LATENT_NOISE, SMOOTHNESS = 0.1, 0.1
"""Noise under which a judgement must hold, and the weight of that (approximate R1, APT eq. 5)."""

DISCRIMINATOR = 0.1
"""Weight of the discriminator's own loss, so that its slopes do not shrink the student's when the
norm of all together is clipped."""

BEGIN = 200
"""Steps in which the discriminator learns alone; the student's term rises over as many again."""


def check_adversarial(weight: float) -> None:
    """Raise WorldError for a weight below 0."""
    if not 0 <= weight < float("inf"):
        raise WorldError(f"adversarial: expected a weight from 0 up, got {weight}")


class AdversarialStudent(nn.Module):
    """A student and its discriminator, trained together as one network."""

    def __init__(self, dynamics: Dynamics, discriminator: Discriminator) -> None:
        super().__init__()
        self.dynamics, self.discriminator = dynamics, discriminator


def with_discriminator(dynamics: Dynamics, weight: float, seed: int) -> nn.Module:
    """The student as it is trained: with a discriminator, if that has any weight."""
    if not weight:
        return dynamics
    with kept_generator():
        torch.manual_seed(seed)
        discriminator = Discriminator(dynamics.dit.channels)
    return AdversarialStudent(dynamics, discriminator.to(dynamics.heads.values.device))


def dynamics_of(network: nn.Module) -> Dynamics:
    """The dynamics model of a network in training."""
    return network.dynamics if isinstance(network, AdversarialStudent) else cast(Dynamics, network)


def adversarial_losses(
    network: nn.Module, x: Tensor, clean: Tensor, level: Tensor, weight: float, step: int,
    draws: Draws,
) -> dict[str, Tensor]:  # fmt: skip
    """Losses of student and discriminator (hinge); none for a student without one.

    x, clean: predicted and recorded chunks (B, T, h, w, C). level: (B, T) that x was predicted at.
    """
    if not isinstance(network, AdversarialStudent):
        return {}
    judge = network.discriminator
    frozen = {name: p.detach() for name, p in judge.named_parameters()}
    fake, real = _some(x, level, draws), _some(clean, torch.zeros_like(level), draws)
    moved = real + LATENT_NOISE * draws.normal(real.shape)
    fake, real, moved = (part.flatten(0, 1) for part in (fake, real, moved))
    fooled = -functional_call(judge, frozen, (fake,)).float().mean()
    recorded, predicted, near = (judge(some).float() for some in (real, fake.detach(), moved))
    hinge = torch.relu(1 - recorded).mean() + torch.relu(1 + predicted).mean()
    smooth = (recorded - near).square().mean()
    return {
        "adversarial": weight * min(1.0, max(0.0, step / BEGIN - 1)) * fooled,
        "discriminator": DISCRIMINATOR * (hinge + SMOOTHNESS * smooth),
        "_recorded": recorded.detach().mean(),
        "_predicted": predicted.detach().mean(),
    }


def _some(x: Tensor, level: Tensor, draws: Draws) -> Tensor:
    """`JUDGED` chunks of each clip (B, K, h, w, C), rather those of a high level (B, T): what was
    nearly clean looks recorded anyway."""
    order = level + draws.uniform(tuple(level.shape))
    chosen = order.topk(min(JUDGED, order.shape[1]), 1).indices
    return x[torch.arange(len(x), device=x.device)[:, None], chosen]
