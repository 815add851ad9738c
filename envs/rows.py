"""Rows of a world as agents see them, and how episodes begin in the middle of a batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite, nan

import torch
from torch import Tensor

from worldsim.core import Prediction, WorldModel, WorldState
from worldsim.world.fixed_batch import FixedBatch

from .trust import TrustPolicy

CONT_THRESHOLD = 0.5
"""An episode goes on while going on is at least as likely as not."""

START_ROWS = 32
"""Rows begun together on an accelerator: launches cost more there than rows do."""

REASONS = ("", "not finite", "untrusted")
"""Why an episode was truncated, where it was not the time limit, by the codes of vector envs."""

NOT_FINITE, UNTRUSTED = (REASONS.index(reason) for reason in ("not finite", "untrusted"))

Clip = tuple[Tensor, Tensor | None, Tensor | None]
"""Frames `(B, k * c, H, W, 3)`, and actions `(B, k, *action)` and state vectors `(B, k, D)`, if
known, to start from."""

Seen = Tensor | dict[str, Tensor]
"""What rows are seen as, (B, ...), or by name."""


@dataclass(frozen=True)
class ObservedRows:
    """B rows of a world, and their pictures where somebody looks.

    Attributes:
        state: where the rows stand.
        frames: (B, c, H, W, 3) uint8, the newest chunk; None where observations are latents.
    """

    state: WorldState
    frames: Tensor | None

    def __getitem__(self, rows: Tensor | slice) -> ObservedRows:
        return ObservedRows(self.state[rows], None if self.frames is None else self.frames[rows])

    @staticmethod
    def cat(parts: list[ObservedRows]) -> ObservedRows:
        """Rows of all parts, in order."""
        seen = [part.frames for part in parts if part.frames is not None]
        return ObservedRows(
            WorldState.cat([p.state for p in parts]), torch.cat(seen) if seen else None
        )

    def where(self, mask: Tensor, other: ObservedRows) -> ObservedRows:
        """Rows of `self` where `mask` `(B,)`, else of `other`; no host sync."""
        frames = None
        if self.frames is not None and other.frames is not None:
            frames = torch.where(mask[:, None, None, None, None], self.frames, other.frames)
        return ObservedRows(self.state.where(mask, other.state), frames)

    def observe(self, observation: str) -> Seen:
        """A copy of "frame", "chunk" or "latent", (B, ...); of frame and state for "dict"."""
        if self.frames is None:
            return self.state.latent.to(torch.float32, copy=True)
        if observation == "dict":
            return {"frame": self.frames[:, -1].clone(), "state": self.state.states[:, -1].clone()}
        return (self.frames if observation == "chunk" else self.frames[:, -1]).clone()


def see(world: WorldModel, state: WorldState, pixels: bool) -> ObservedRows:
    """`state` with its pictures, if anybody asks for them."""
    return ObservedRows(state, world.decode(state) if pixels else None)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a step comes to, the same for every environment.

    Attributes:
        state: where the rows stand; a row that was not finite shows what it showed before.
        reward: (B,) what the agent is given. raw_reward: (B,) what the world said.
        continue_prob: (B,). trust: (B,) NaN where unknown.
        terminated, truncated: (B,) bool.
        reason: (B,) int64 codes of `REASONS`.
    """

    state: WorldState
    reward: Tensor
    raw_reward: Tensor
    continue_prob: Tensor
    trust: Tensor
    terminated: Tensor
    truncated: Tensor
    reason: Tensor

    def idle(self, rows: Tensor) -> Outcome:
        """The same, but that `rows` (B,) earn nothing and go on: their step is a reset."""
        return replace(
            self,
            reward=self.reward.masked_fill(rows, 0),
            terminated=self.terminated & ~rows,
            truncated=self.truncated & ~rows,
        )


def advance(
    world: WorldModel, policy: TrustPolicy, state: WorldState, actions: Tensor | None,
    time_limit: int,
) -> Outcome:  # fmt: skip
    """One step of all rows under `actions` `(B, *action)` in the world's own range, or unknown."""
    after, prediction = world.step(state, actions)
    after, prediction, broken = keep_finite(state, after, prediction)
    distrusted = policy.stops(prediction)
    return Outcome(
        state=after,
        reward=policy.reward(prediction),
        raw_reward=prediction.reward,
        continue_prob=prediction.continue_prob,
        trust=prediction.trust,
        terminated=prediction.continue_prob < CONT_THRESHOLD,
        truncated=broken | distrusted | (after.age >= time_limit),
        reason=NOT_FINITE * broken + UNTRUSTED * distrusted,
    )


def keep_finite(
    before: WorldState, after: WorldState, prediction: Prediction
) -> tuple[WorldState, Prediction, Tensor]:
    """A step whose rows are finite, and which of them `(B,)` were not; no wait for a device.

    A row with a NaN or an infinity is over: it shows what it showed before the step, earns nothing,
    foresees no end, and its trust is unknown. A sum is finite only where all its terms are.
    """
    total = after.latent.flatten(1).sum(1, dtype=torch.float32)
    total = total + prediction.reward + prediction.continue_prob
    total = total + after.states[:, -1:].flatten(1).sum(1)
    if total.device.type == "cpu" and isfinite(total.sum().item()):  # looking costs nothing here
        return after, prediction, torch.zeros_like(total, dtype=torch.bool)
    broken = ~total.isfinite()
    mask = broken.reshape(-1, *[1] * (after.latents.ndim - 1))
    held = replace(after, latents=torch.where(mask, before.latents, after.latents))
    if after.states.shape[1]:
        states = torch.where(broken[:, None, None], before.states, after.states)
        held = replace(held, states=states)
    fills = {"reward": 0, "continue_prob": 1, "trust": nan}
    kept = {name: getattr(prediction, name).masked_fill(broken, x) for name, x in fills.items()}
    return held, replace(prediction, **kept), broken


def next_keys(key: Tensor) -> Tensor:
    """The keys `(B, 2)` of the episodes that follow those of `key`."""
    return torch.stack([key[:, 0], key[:, 1] + 1], 1)


@torch.no_grad()
def begin(
    world: WorldModel, key: Tensor, rows: Tensor, pixels: bool, clip: Clip | None = None
) -> ObservedRows:
    """Fresh episodes in those rows of `key` `(B, 2)` that `rows` (B,), bool on the host, asks for.

    The other rows hold copies of one that was asked for, to be masked away. Rows begin in groups of
    one size, whoever begins beside them: kernels may round differently in a batch of another shape,
    and so a start would depend on how many neighbours happened to end in the same step.
    """
    if isinstance(world, FixedBatch):
        size = world.rows  # it would fill up to this anyway
    else:
        size = 1 if world.device.type == "cpu" else min(START_ROWS, len(key))
    asked = rows.nonzero()[:, 0]
    groups = []
    for group in asked.split(size):
        padded = group[torch.arange(size).clamp(max=len(group) - 1)]
        observed = see(world, _start(world, key, padded, clip), pixels)
        groups.append(observed[: len(group)])
    place = (rows.cumsum(0) - 1).clamp(min=0)  # of each row among those asked for
    return ObservedRows.cat(groups)[place.to(world.device)]


def _start(world: WorldModel, key: Tensor, rows: Tensor, clip: Clip | None) -> WorldState:
    key = key[rows.to(key.device)].to(world.device)
    if clip is None:
        return world.reset(key)
    frames, actions, states = (None if x is None else x[rows.to(x.device)] for x in clip)
    assert frames is not None
    return world.encode(frames, actions, key, states=states)
