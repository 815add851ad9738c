"""PointWorld: a world in closed form, for tests, docs and planners.

A point glides over a plane without friction; the action pushes it. Every promise of a world model
(keyed randomness, independent rows, a state of constant size) holds here without a network, and
the best plan is known exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from einops import repeat
from torch import Tensor

from worldsim.core import (
    ActionSpec,
    Prediction,
    WorldError,
    WorldSpec,
    WorldState,
    as_keys,
    row_keys,
)
from worldsim.diffusion.rng import normal_rows, uniform_rows
from worldsim.states import no_states

VIEW = 1.25  # the picture shows -VIEW to VIEW both ways
START = 0.8  # a start position lies within -START to START both ways
RADIUS = 2  # pixels at which a drawn point has faded to nothing
PUSHES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
LONGEST_DISCRETE_PLAN = 8  # 5 ** 8 plans fit in memory


@dataclass(frozen=True, kw_only=True)
class PointWorld:
    """A point on a plane, pushed towards a goal.

    Latent (4,): x, y and velocity vx, vy, in plane units a step. Over one step the acceleration is
    constant: `thrust * action`, plus noise. An unknown action pushes nothing; a push beyond 1 is 1.

    Frames show the point in red and the goal in green; a point out of sight is drawn at the border.
    `encode` finds the point to a few hundredths of a pixel, and its velocity from the last two
    frames and the action (a sole one-frame chunk: as if it had started from rest).

    Reward: how much nearer the goal the step came, so a rollout's sum is the distance won.
    `continue_prob` is 0 once the point is more than `arena` from the centre along either
    axis, else 1; nothing stops a rollout there. `trust` is 1: this world is its own reality.

    Attributes:
        size: height and width of a frame, at least 8 pixels.
        chunk: frames a step.
        context: steps a state remembers, at least 2.
        discrete: five actions (stay, left, right, down, up) in place of a push in [-1, 1]^2.
        thrust: acceleration of a full push, a step squared.
        noise: standard deviation of the random acceleration, from each row's own key.
        arena: half the width of the arena, or None for a plane without end.
        goal: (x, y).
        time_limit: steps an episode.
        device: where the tensors live.
    """

    size: int = 40
    chunk: int = 2
    context: int = 4
    discrete: bool = False
    thrust: float = 0.1
    noise: float = 0.0
    arena: float | None = None
    goal: tuple[float, float] = (0.5, 0.5)
    time_limit: int = 100
    device: torch.device = torch.device("cpu")

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", torch.device(self.device))
        least = {"size": 8, "chunk": 1, "context": 2, "time_limit": 1, "thrust": 1e-6, "noise": 0}
        for name, value in least.items():
            if not getattr(self, name) >= value:
                raise WorldError(f"{name}: expected at least {value}, got {getattr(self, name)}")

    @cached_property
    def spec(self) -> WorldSpec:
        """What a user must know."""
        return WorldSpec(
            name="point-world",
            frame_shape=(self.size, self.size, 3),
            chunk=self.chunk,
            context=self.context,
            latent_shape=(4,),
            action=ActionSpec(kind="discrete", n=5)
            if self.discrete
            else ActionSpec(kind="continuous", low=(-1.0, -1.0), high=(1.0, 1.0)),
            fps=10.0 * self.chunk,
            time_limit=self.time_limit,
        )

    def reset(self, key: Tensor) -> WorldState:
        """At rest, somewhere: a start state for every key `(B, 2)`."""
        key = as_keys(key, self.device)
        start = uniform_rows(key, torch.zeros_like(key[:, 0]), 0, 2)
        latent = torch.cat([START * (2 * start - 1), torch.zeros_like(start)], -1)
        return self.from_latents(latent[:, None], None, key)

    @property
    def calibrated(self) -> bool:
        """Its trust needs no fit: this world is its own reality."""
        return True

    def with_num_steps(self, num_steps: int) -> Self:
        """Raises `WorldError`: nothing here is denoised."""
        raise WorldError("num_steps: point-world has no sampler to set, leave num_steps=None")

    def encode(
        self,
        frames: Tensor,
        actions: Tensor | None = None,
        key: Tensor | None = None,
        *,
        known: Tensor | None = None,
        states: Tensor | None = None,
    ) -> WorldState:
        """The state after a clip: `(B, k * c, H, W, 3)` uint8 and `(B, k, *action)`, k <= K.

        Without `key` the rows get the seeds 0 to B - 1. Raises `WorldError` for a clip that does
        not fit and for frames that show no point.
        """
        self.spec.check_clip(frames, actions, (len(frames),), known)
        frames = frames.to(self.device)
        lead = (len(frames), frames.shape[1] // self.chunk)
        held = self.spec.hold_actions(actions, known, lead, self.device)
        seen = self._find(frames)
        if not bool(seen.isfinite().all()):
            raise WorldError("frames: expected pictures of PointWorld, got one without a red point")
        before = torch.cat([seen[:, :1], seen[:, :-1]], 1)
        end, before = (x[:, self.chunk - 1 :: self.chunk] for x in (seen, before))
        push = self._push(*(x[:, -lead[1] :] for x in held))
        pull = self.thrust * push / (2 * self.chunk)
        latents = torch.cat([end, (end - before) * self.chunk + pull], -1)
        return self.from_latents(latents, actions, key, known=known, states=states)

    def from_latents(
        self,
        latents: Tensor,
        actions: Tensor | None = None,
        key: Tensor | None = None,
        *,
        known: Tensor | None = None,
        states: Tensor | None = None,
    ) -> WorldState:
        """A state of `k` known steps; the rest repeats the oldest and does not count.

        latents: (B, k, 4). actions, key, known: as in `encode`. states: None, as it knows none.
        """
        no_states(states, self.spec.name)
        rows, count = latents.shape[:2]
        held, mask = self.spec.hold_actions(actions, known, (rows, count), self.device)
        latents = latents.to(self.device)
        older = latents[:, :1].expand(-1, self.context - count, -1)
        key = row_keys(range(rows)) if key is None else key
        age = torch.zeros(rows, dtype=torch.int64, device=self.device)
        return WorldState.of(
            latents=torch.cat([older, latents], 1),
            actions=held,
            known=mask,
            filled=age + count,
            age=age,
            key=key.to(self.device),
        )

    def step(
        self,
        state: WorldState,
        action: Tensor | None = None,
        *,
        latent_action: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[WorldState, Prediction]:
        """The next state under `action` `(B, *action)`; None pushes nothing.

        The noise comes from each row's key, or from `generator` where one is given.
        """
        self.spec.check_state(state)
        if latent_action is not None:
            raise WorldError("latent_action: expected None: point-world knows no inferred actions")
        known = state.known[:, -1:].new_full((len(state), 1), action is not None)
        if action is None:
            action = self.spec.action.blank(len(state), device=self.device)
        expected = (len(state), *self.spec.action.shape)
        if tuple(action.shape) != expected:
            raise WorldError(f"action: expected shape {expected}, got {tuple(action.shape)}")
        action = action.to(self.device, self.spec.action.dtype)
        where, speed = state.latent.split(2, -1)
        push = self._push(action, known[:, 0])
        force = self.thrust * push + self.noise * self._draw(state, generator)
        latent = torch.cat([where + speed + force / 2, speed + force], -1)
        after = replace(
            state,
            latents=torch.cat([state.latents[:, 1:], latent[:, None]], 1),
            actions=torch.cat([state.actions[:, 1:], action[:, None]], 1),
            known=torch.cat([state.known[:, 1:], known], 1),
            filled=(state.filled + 1).clamp(max=self.context),
            age=state.age + 1,
        )
        return after, self._judge(where, latent[:, :2])

    def decode(self, state: WorldState) -> Tensor:
        """The newest chunk's frames, `(B, c, H, W, 3)` uint8."""
        self.spec.check_state(state)
        return self.decode_latents(state.latents[:, -1], state.latents[:, -2], state.filled)

    def decode_latents(self, latent: Tensor, previous: Tensor, filled: Tensor) -> Tensor:
        """`decode` of a latent and the one before it, each (B, 4)."""
        (x0, v0), (x1, v1) = (x[:, None].split(2, -1) for x in (previous, latent))
        part = torch.arange(1, self.chunk + 1, device=self.device)[:, None] / self.chunk
        between = x0 + v0 * part + (x1 - x0 - v0) * part**2
        known = (filled > 1)[:, None, None]
        return self._draw_frames(torch.where(known, between, x1 - v1 * (1 - part)))

    def best_plan(self, state: WorldState, horizon: int) -> Tensor:
        """Actions `(B, horizon, *action)` with the highest sum of rewards, noise and arena apart.

        The sum of rewards is the distance won, and the end point is linear in the actions: along
        each axis it can lie anywhere within `thrust * horizon**2 / 2` of where the point would
        glide. So one constant push, towards the goal and clipped, is a best plan. Discrete plans
        (at most 8 steps) are all compared.
        """
        where, speed = state.latent.split(2, -1)
        goal = torch.tensor(self.goal, dtype=torch.float32, device=self.device)
        lack = (goal - where - horizon * speed) / self.thrust
        if not self.discrete:
            push = (lack * 2 / horizon**2).clamp(-1, 1)
            return repeat(push, "b a -> b t a", t=horizon)
        if horizon > LONGEST_DISCRETE_PLAN:
            raise WorldError(f"horizon: expected at most {LONGEST_DISCRETE_PLAN}, got {horizon}")
        choices = [torch.arange(5, device=self.device)] * horizon
        plans = torch.cartesian_prod(*choices).reshape(-1, horizon)
        weight = horizon - 0.5 - torch.arange(horizon, device=self.device)
        reach = torch.einsum("pta,t->pa", self._push(plans), weight)
        return plans[torch.cdist(lack, reach).argmin(-1)]

    def best_return(self, state: WorldState, horizon: int) -> Tensor:
        """The sum of rewards `(B,)` that `best_plan` earns, noise and arena apart."""
        plan = self._push(self.best_plan(state, horizon))
        where, speed = state.latent.split(2, -1)
        weight = horizon - 0.5 - torch.arange(horizon, device=self.device)
        moved = self.thrust * torch.einsum("bta,t->ba", plan, weight)
        return self._distance(where) - self._distance(where + horizon * speed + moved)

    def _push(self, actions: Tensor, known: Tensor | None = None) -> Tensor:
        """`(..., *action)` -> acceleration over thrust `(..., 2)`; none where not `known` (...)."""
        if self.discrete:
            push = torch.tensor(PUSHES, dtype=torch.float32, device=actions.device)[actions]
        else:
            push = actions.clamp(-1, 1)
        return push if known is None else torch.where(known[..., None], push, 0)

    def _draw(self, state: WorldState, generator: torch.Generator | None) -> Tensor:
        if generator is None:
            return normal_rows(state.key, state.age, 1, (2,))
        return torch.randn(len(state), 2, generator=generator, device=self.device)

    def _judge(self, before: Tensor, after: Tensor) -> Prediction:
        inside = torch.ones_like(after[:, 0])
        if self.arena is not None:
            inside = (after.abs().amax(-1) <= self.arena).to(after.dtype)
        won = self._distance(before) - self._distance(after)
        return Prediction(reward=won, continue_prob=inside, trust=torch.ones_like(won))

    def _distance(self, where: Tensor) -> Tensor:
        return (where - torch.tensor(self.goal, dtype=torch.float32, device=self.device)).norm(
            dim=-1
        )

    def _draw_frames(self, where: Tensor) -> Tensor:
        """Positions `(B, n, 2)` -> frames `(B, n, H, W, 3)`."""
        goal = torch.tensor(self.goal, dtype=torch.float32, device=self.device).expand_as(where)
        red, green = (self._blob(x) for x in (where, goal))
        return torch.stack([red, green, torch.full_like(red, 40)], -1).to(torch.uint8)

    def _blob(self, where: Tensor) -> Tensor:
        """Brightness `(..., H, W)`, 0 to 255; its centre of mass is the position itself."""
        flipped = where * torch.tensor(
            [1.0, -1.0], dtype=torch.float32, device=self.device
        )  # y points up
        pixel = (flipped / VIEW + 1) / 2 * (self.size - 1)
        pixel = pixel.clamp(RADIUS - 1, self.size - RADIUS)[..., None]
        grid = torch.arange(self.size, device=self.device)
        column, row = (1 - (grid - pixel).abs() / RADIUS).clamp(min=0).unbind(-2)
        return (255 * torch.einsum("...h,...w->...hw", row, column)).round()

    def _find(self, frames: Tensor) -> Tensor:
        """Frames `(B, n, H, W, 3)` -> positions `(B, n, 2)`, not finite where nothing is red."""
        red = frames[..., 0].float()
        grid = torch.arange(self.size, device=self.device).float()
        mass = red.sum((-2, -1))
        column, row = ((red.sum(axis) * grid).sum(-1) / mass for axis in (-2, -1))
        x, y = ((2 * pixel / (self.size - 1) - 1) * VIEW for pixel in (column, row))
        return torch.stack([x, -y], -1)
