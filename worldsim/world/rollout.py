"""Dreams: roll a world forwards under a policy or under given actions.

Nothing here decodes unless asked to: in a dream the latents are the world.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from worldsim.core import WorldError, WorldModel, WorldState


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """What happened in T steps of B rows.

    Attributes:
        latents: (B, T, *latent), the newest latent after each step.
        actions: (B, T, *action); `actions[:, t]` led into `latents[:, t]`.
        rewards: (B, T).
        continue_prob: (B, T), 0 to 1; a dream runs on after an end, so weigh what follows
            with the product.
        trust: (B, T), 0 to 1, NaN where uncalibrated.
        state: the state after the last step.
        states: (B, T, D), the state vector after each step; D is 0 in a world without.
        frames: (B, T // n * c, H, W, 3) uint8 on the host, if every n-th step was decoded.
    """

    latents: Tensor
    actions: Tensor
    rewards: Tensor
    continue_prob: Tensor
    trust: Tensor
    state: WorldState
    states: Tensor
    frames: Tensor | None = None


def imagine(
    world: WorldModel,
    state: WorldState,
    policy: Callable[[WorldState], Tensor],
    horizon: int,
    *,
    generator: torch.Generator | None = None,
) -> Rollout:
    """Dream `horizon` steps in which `policy` maps a state to actions `(B, *action)`.

    `state` stays as it was. Gradients flow if the world lets them.
    """
    return _unroll(world, state, policy, horizon, 0, generator)


def replay(
    world: WorldModel,
    state: WorldState,
    actions: Tensor,
    *,
    text: Tensor | None = None,
    decode_every: int = 0,
    generator: torch.Generator | None = None,
) -> Rollout:
    """Dream under given actions `(B, T, *action)`.

    text: (B, T, L) tokens of what is said of each step, zeros where nothing is; the state's own
    prompt if None. With `decode_every = n` the n-th, 2n-th, ... step is decoded into
    `Rollout.frames`.
    """
    _check(world, state)
    expected = (len(state), "T", *world.spec.action.shape)
    if actions.ndim != len(expected) or (*actions.shape[:1], "T", *actions.shape[2:]) != expected:
        raise WorldError(f"actions: expected shape {expected}, got {tuple(actions.shape)}")
    horizon, steps = actions.shape[1], iter(actions.unbind(1))
    if text is None:
        return _unroll(world, state, lambda _: next(steps), horizon, decode_every, generator)
    if text.ndim != 3 or text.shape[:2] != actions.shape[:2]:
        expected = (*actions.shape[:2], "L")
        raise WorldError(f"text: expected shape {expected}, got {tuple(text.shape)}")
    return _unroll(
        world, state, lambda _: next(steps), horizon, decode_every, generator, text.unbind(1)
    )


def dream_frames(
    world: WorldModel,
    state: WorldState,
    actions: Tensor,
    *,
    decode_every: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The frames alone of `replay`: `(B, T // decode_every * c, H, W, 3)` uint8 on the host."""
    dream = replay(world, state, actions, decode_every=decode_every, generator=generator)
    if dream.frames is None:
        raise WorldError(
            f"decode_every: expected 1 to {actions.shape[1]} (the number of steps), "
            f"got {decode_every}"
        )
    return dream.frames


def _check(world: WorldModel, state: WorldState) -> None:
    if isinstance(world, str | Path):
        raise WorldError(
            f"world: expected a loaded one, got {world!r}; say worldsim.load({world!r})"
        )
    world.spec.check_state(state)


def _unroll(
    world: WorldModel,
    state: WorldState,
    policy: Callable[[WorldState], Tensor],
    horizon: int,
    decode_every: int,
    generator: torch.Generator | None,
    prompts: Sequence[Tensor] | None = None,
) -> Rollout:
    _check(world, state)
    if horizon < 1:
        raise WorldError(f"horizon: expected at least 1 step, got {horizon}")
    if decode_every < 0:
        raise WorldError(f"decode_every: expected 0 (never) or more, got {decode_every}")
    steps, frames = [], []
    rows = len(state)
    for t in range(1, horizon + 1):
        if prompts is not None:
            state = state.prompted(prompts[t - 1])
        action = policy(state)
        state, said = world.step(state, action, generator=generator)
        newest = state.states[:, -1:].reshape(rows, -1)  # (B, 0) in a world without
        steps.append((state.latent, action, said.reward, said.continue_prob, said.trust, newest))
        if decode_every and t % decode_every == 0:
            frames.append(world.decode(state).cpu())
    latents, actions, rewards, continue_prob, trust, states = (
        torch.stack(x, 1) for x in zip(*steps, strict=True)
    )
    return Rollout(
        latents=latents,
        actions=actions,
        rewards=rewards,
        continue_prob=continue_prob,
        trust=trust,
        state=state,
        states=states,
        frames=torch.cat(frames, 1) if frames else None,
    )
