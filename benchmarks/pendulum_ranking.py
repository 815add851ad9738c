"""Do dreams of Pendulum rank policies as the real pendulum does, whoever dreams?

Policies and returns are read from pictures alone: the rod's red gives the angle (to 0.003 rad on
real frames), two frames its velocity. So any model of the picture can be asked, whether or not it
foretells rewards. Real and dreamt episodes begin with the same pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from worldsim.core import EnvironmentSpec
from worldsim.metrics import bootstrap
from worldsim.recipes.pendulum import TORQUE, UPRIGHT

from .pendulum import Crowd

FIRST_SEED = 5100  # of real episodes, in nobody's recording
STEPS = 32
TURN = 0.05  # seconds of a frame
FASTEST = 8.0  # rad/s

Policy = Callable[[Tensor, Tensor, int], Tensor]
"""Angles (B,) rad, 0 upright, velocities (B,) rad/s, the step -> torques (B,)."""


class Dream(Protocol):
    """Dreams of B rows, under actions that come one by one.

    Attributes:
        context: chunks that it looks at.
        reward: (B,) that it foretold in the last step, None if it foretells none.
    """

    context: int
    reward: Tensor | None

    def begin(self, frames: Tensor, actions: Tensor, known: Tensor) -> None:
        """Look at a clip: (B, K * c, H, W, 3) uint8, (B, K, *action), (B, K) bool; K >= context."""
        ...

    def step(self, action: Tensor) -> Tensor:
        """(B, *action) -> the next chunk, (B, c, H, W, 3) uint8 on the host."""
        ...


def swing(pump: float, hold: float) -> Policy:
    """Energy pumping far from upright, PD control near it, each in a strength; a negative `pump`
    brakes."""

    def policy(angle: Tensor, velocity: Tensor, step: int) -> Tensor:
        short = UPRIGHT - velocity**2 / 6 - 5 * angle.cos()
        far = pump * TORQUE * torch.where(velocity < 0, -1.0, 1.0) * short.sign()
        return torch.where(angle.abs() > 0.6, far, hold * (-9 * angle - 2 * velocity))

    return policy


def push(torque: float, period: int = 0) -> Policy:
    """A torque that knows nothing, the same or to and fro."""

    def policy(angle: Tensor, velocity: Tensor, step: int) -> Tensor:
        now = np.sin(2 * pi * step / period) if period else 1.0
        return torch.full_like(angle, torque * now)

    return policy


POLICIES: dict[str, Policy] = {
    "swing up and hold": swing(1.0, 1.0),
    "swing up weakly": swing(0.6, 1.0),
    "swing up, too weak": swing(0.3, 1.0),
    "swing up, let go": swing(1.0, 0.0),
    "swing up, hold weakly": swing(1.0, 0.15),
    "hold alone": swing(0.0, 1.0),
    "brake, then hold": swing(-1.0, 1.0),
    "brake, let go": swing(-0.5, 0.0),
    "nothing": push(0.0),
    "push one way": push(TORQUE),
    "to and fro, fast": push(TORQUE, 6),
    "to and fro, slowly": push(TORQUE, 14),
}


def wrapped(angle: Tensor) -> Tensor:
    """Into -pi..pi."""
    return (angle + pi) % (2 * pi) - pi


def angle_of(frames: Tensor) -> Tensor:
    """Where the rod points: (..., H, W, 3) uint8 -> (...) rad, 0 upright, left is positive."""
    seen = frames.float()
    red = (seen[..., 0] - seen[..., 1:].mean(-1)).clamp(min=0)
    height, width = red.shape[-2:]
    down, right = torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2
    return torch.atan2(-(red.sum(-2) * right).sum(-1), -(red.sum(-1) * down).sum(-1))


def motion_of(chunk: Tensor) -> tuple[Tensor, Tensor]:
    """Angle and velocity at a chunk's end: (B, 2, H, W, 3) -> (B,), (B,)."""
    angle = angle_of(chunk)
    velocity = wrapped(angle[:, -1] - angle[:, -2]) / TURN
    return angle[:, -1], velocity.clamp(-FASTEST, FASTEST)


def reward_of(chunk: Tensor, before: Tensor, torque: Tensor) -> Tensor:
    """The reward of a chunk (B, 2, H, W, 3) as its picture shows it (B,); before: the last frame
    before it, (B, H, W, 3)."""
    angle = angle_of(torch.cat([before[:, None], chunk], 1))
    velocity = (wrapped(angle.diff(dim=1)) / TURN).clamp(-FASTEST, FASTEST)
    cost = angle[:, 1:] ** 2 + 0.1 * velocity**2 + 0.001 * torque[:, None] ** 2
    return -cost.sum(1)


@dataclass(frozen=True)
class Returns:
    """Of every policy from every start, (P, S): by the rewards given, and by those that pictures
    show; `given` is None where no rewards are."""

    shown: Tensor
    given: Tensor | None


def real_returns(
    spec: EnvironmentSpec, context: int, starts: int
) -> tuple[Returns, tuple[Tensor, ...]]:
    """Returns in the real environment, and the clips (frames, actions, known) from which policies
    began, one of each start, without torque for all of it."""
    seeds = [FIRST_SEED + start for _ in POLICIES for start in range(starts)]
    crowd = Crowd.begin(seeds, spec, context)
    for _ in range(context - 1):
        crowd.step(np.zeros((len(seeds), 1), np.float32))
    begun = (torch.from_numpy(np.concatenate(crowd.frames, 1)), torch.stack(crowd.actions, 1),
             torch.tensor(crowd.known).expand(len(seeds), -1))  # fmt: skip

    def step(torque: Tensor) -> tuple[Tensor, Tensor]:
        rewards = torch.from_numpy(crowd.step(torque[:, None].numpy()))
        return torch.from_numpy(crowd.frames[-1]), rewards

    found = _play(begun[0][:, -2:], step, "real")
    for camera in crowd.cameras:
        camera.close()
    return found, tuple(x[:starts] for x in begun)


def dreamt_returns(dream: Dream, clips: tuple[Tensor, ...], name: str) -> Returns:
    """Returns in dreams that begin with these clips."""
    frames, actions, known = (x.repeat(len(POLICIES), *[1] * (x.ndim - 1)) for x in clips)
    dream.begin(frames, actions, known)

    def step(torque: Tensor) -> tuple[Tensor, Tensor | None]:
        chunk = dream.step(torque[:, None])
        return chunk, dream.reward

    return _play(frames[:, -2:], step, name)


def _play(
    chunk: Tensor, step: Callable[[Tensor], tuple[Tensor, Tensor | None]], name: str
) -> Returns:
    """All policies side by side, as many rows of each, from their last chunk on."""
    each = len(chunk) // len(POLICIES)
    shown, given = torch.zeros(len(chunk)), torch.zeros(len(chunk), dtype=torch.float64)
    for t in tqdm(range(STEPS), desc=f"policies, {name}"):
        parts = [x.split(each) for x in motion_of(chunk)]
        acts = zip(POLICIES.values(), *parts, strict=True)
        torque = torch.cat([act(a, v, t) for act, a, v in acts]).clamp(-TORQUE, TORQUE)
        before = chunk[:, -1]
        chunk, reward = step(torque)
        shown += reward_of(chunk, before, torque)
        given = None if given is None or reward is None else given + reward.cpu()
    told = None if given is None else given.reshape(-1, each)
    return Returns(shown.reshape(-1, each).double(), told)


def ranking(dreamt: Tensor, real: Tensor) -> dict[str, Any]:
    """Pearson over policies of mean returns (P, S), with an interval over starts, and the means."""

    def figure(weights: Tensor) -> Tensor:
        means = (weights.double() @ x.T / weights.sum(1, keepdim=True) for x in (dreamt, real))
        a, b = (m - m.mean(1, keepdim=True) for m in means)
        return F.cosine_similarity(a, b, 1)

    found = bootstrap(figure, torch.arange(real.shape[1]))._asdict()
    bias = (dreamt - real).mean().item()
    means = dict(zip(POLICIES, dreamt.mean(1).tolist(), strict=True))
    return {"pearson": found, "bias": bias, "returns": means}


def ranked(dreams: dict[str, Dream], spec: EnvironmentSpec, starts: int) -> dict[str, Any]:
    """How well each dream ranks the policies: by what its pictures show, and by its own rewards.

    `reality` is the same of real pictures: what reading them costs.
    """
    context = max(dream.context for dream in dreams.values())
    real, clips = real_returns(spec, context, starts)
    assert real.given is not None
    found: dict[str, Any] = {
        "steps": STEPS, "starts": starts,
        "real": dict(zip(POLICIES, real.given.mean(1).tolist(), strict=True)),
        "reality": {"pictures": ranking(real.shown, real.given), "rewards": None},
    }  # fmt: skip
    for name, dream in dreams.items():
        dreamt = dreamt_returns(dream, clips, name)
        rewards = None if dreamt.given is None else ranking(dreamt.given, real.given)
        found[name] = {"pictures": ranking(dreamt.shown, real.given), "rewards": rewards}
    return found
