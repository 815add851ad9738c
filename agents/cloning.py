"""Behaviour cloning: do what the recorded drivers did. The baseline, and where dreaming starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worldsim.core import WorldError
from worldsim.data.latents import LatentFile

from .actor_critic import SEEN, ActorCritic, latents_seen, pixels_seen


@dataclass(frozen=True)
class Recorded:
    """Recorded chunks, N in all, of episodes laid end to end.

    Attributes:
        seen: (N, h, w, C) latents or (N, c, H, W, 3) uint8 frames.
        actions: (N, *action), the one that led into each chunk.
        rewards: (N,).
        lengths: chunks of each episode.
        states: (N, D) state vectors, NaN where unknown; None without.
    """

    seen: Tensor | LatentFile
    actions: Tensor
    rewards: Tensor
    lengths: tuple[int, ...]
    states: Tensor | None = None


def moments(data: Recorded, best: float = 1.0, *, seen: int = SEEN) -> Tensor:
    """Chunks whose next action is known and that end `seen` chunks, (M,), of the best episodes.

    best: share of the episodes, those with the highest return (filtered cloning: a recording holds
    drivers who wander blindly as well).
    """
    if not 0 < best <= 1:
        raise WorldError(f"best: expected above 0 to 1, got {best}")
    parts = data.rewards.split(list(data.lengths))
    returns = torch.stack([p.sum() for p in parts])
    least = returns.sort(descending=True).values[max(0, round(best * len(parts)) - 1)]
    first, found = 0, []
    for length, earned in zip(data.lengths, returns, strict=True):
        if earned >= least:
            found.append(torch.arange(first + seen - 1, first + length - 1))
        first += length
    return torch.cat(found)


def cloning_loss(
    data: Recorded, rows: Tensor, ahead: Tensor, batch: int
) -> Callable[[nn.Module, nn.Module, int, torch.Generator], dict[str, Tensor]]:
    """A loss for the training loop: errors of the mean action (or its odds) and of the value.

    rows: of `moments`. ahead: (N,) of `returns_to_go`, which the critic learns from.
    """

    def losses(net: nn.Module, _: nn.Module, step: int, g: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(net, ActorCritic)
        now = rows[torch.randint(len(rows), (batch,), generator=g)]
        window = data.seen[now[:, None] + torch.arange(1 - SEEN, 1)]
        pixels = net.config.sees == "pixels"
        seen = pixels_seen(window.flatten(1, 2)) if pixels else latents_seen(window)
        if net.config.state:
            assert data.states is not None
            told = data.states[now]
            seen = net.told(seen, told, told.isfinite().all(-1))
        wanted, loc = net.spec.action.to_normalized(data.actions[now + 1]), net.loc(seen).float()
        if net.choices:
            error = nn.functional.cross_entropy(loc.flatten(0, -2), wanted.flatten())
        else:
            error = nn.functional.mse_loss(loc, wanted)
        value = nn.functional.smooth_l1_loss(net.value(seen)[:, 0].float(), ahead[now])
        return {"action": error, "value": 0.1 * value}

    return losses


def returns_to_go(data: Recorded, gamma: float, scale: float) -> Tensor:
    """Discounted, scaled rewards after each chunk, (N,): a first guess for the critic.

    What would have come after the end of a recording is taken to be like its mean.
    """
    found = []
    for rewards in data.rewards.split(list(data.lengths)):
        ahead = rewards.mean() / (1 - gamma)
        back = []
        for reward in rewards.flip(0):
            back.append(ahead)
            ahead = reward + gamma * ahead
        found.append(torch.stack(back).flip(0))
    return scale * torch.cat(found)
