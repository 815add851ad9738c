"""Changing what a clip shows by words: SDEdit chunk by chunk, with the edited past as context.

Each chunk is noised to a level and drawn again under the prompt (SDEdit, Meng et al. 2022,
2108.01073), lower where there is motion, which noise would lose (StreamDiffusionV2, 2511.07399).
Actions lead into the chunks that they led into, so what happened happens again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from worldsim.actions import as_tensor
from worldsim.core import Conditions, WorldError, row_keys
from worldsim.diffusion.draws import Draws
from worldsim.diffusion.schedule import corrupt
from worldsim.diffusion.timeline import Clip, predict
from worldsim.models.vae import to_float
from worldsim.nn.stable import sigmoid

from .config import LATENT_BOUND
from .diffusion import DiffusionWorld
from .fill import Timeline, fill
from .generate import check_guidance, conditions_of, shown

STRENGTH = 0.9
"""Of an edit. Lower, ground and light of the recording stay; at 1, roads are lost
(docs/journal/2026-11-30-words.md)."""

FAST = 0.2
"""Mean change from chunk to chunk, of 0 to 1, from which on a clip counts as fast."""

LENGTH = 12
"""Chunks that are judged together."""


@torch.no_grad()
def edit(
    world: DiffusionWorld,
    clip: Any,
    text: str,
    *,
    strength: float = STRENGTH,
    actions: Any = None,
    known: Any = None,
    guidance: float | None = None,
    seed: int = 0,
    num_steps: int | None = None,
) -> Tensor:
    """The clip with what the words say: frames as many as came, (n, H, W, 3) uint8 on the host.

    clip: (n, H, W, 3) uint8 of the world's size; a last chunk that is not whole is filled up and
        cut. text: what is to be seen. strength: above 0 to 1, the noise level that a clip without
        motion is drawn from; 1 keeps nothing but the actions.
    actions: (ceil(n / chunk), *action) in the world's own range, None where unknown. known: which
        of them are. guidance: from 1 up. seed: names the randomness.
    Raises WorldError for what does not fit, and in a world without words.
    """
    if not 0 < strength <= 1:
        raise WorldError(f"strength: expected above 0 to 1, got {strength!r}")
    prompt, spec = world.prompt(text), world.spec
    check_guidance(guidance, text)
    frames = as_tensor(clip, "clip").cpu()
    if frames.ndim != 4 or tuple(frames.shape[1:]) != spec.frame_shape or not len(frames):
        expected, got = f"(n, {spec.frame_shape})", tuple(frames.shape)
        raise WorldError(f"clip: expected frames {expected}, got {got}; resize it")
    if frames.dtype != torch.uint8:
        raise WorldError(f"clip: expected uint8 from 0 to 255, got {frames.dtype}")
    if num_steps is not None:
        world = world.with_num_steps(num_steps)
    missing = -len(frames) % spec.chunk
    whole = torch.cat([frames, frames[-1:].expand(missing, *spec.frame_shape)])
    latents = encoded(world, whole)
    said = _said(world, actions, known, len(whole) // spec.chunk, prompt, guidance)
    levels = noise_levels(whole, spec.chunk, strength)
    return shown(world, edited(world, latents, said, levels, seed)[0])[: len(frames)]


def edited(
    world: DiffusionWorld, latents: Tensor, said: Conditions, levels: list[float], seed: int
) -> Tensor:
    """Latents (1, n, h, w, C) drawn again from a noise level each."""
    soft = {i: (latents[:, i], 1 - level) for i, level in enumerate(levels) if level < 1}
    there = [False] * latents.shape[1]
    key = row_keys([seed]).to(world.device)
    timeline = Timeline(latents, there, said, soft)
    return fill(world.dynamics, timeline, world.config.sampling, world.spec.context, key)


def encoded(world: DiffusionWorld, frames: Tensor) -> Tensor:
    """Latents (1, n, h, w, C) of whole chunks."""
    found = world.vae.encode(to_float(frames.to(world.device))[None])
    return found.clamp(-LATENT_BOUND, LATENT_BOUND)


def _said(
    world: DiffusionWorld, actions: Any, known: Any, count: int, prompt: Tensor | None,
    guidance: float | None,
) -> Conditions:  # fmt: skip
    spec = world.spec
    acts, mask = spec.action.blank(1, count), torch.full((1, count), actions is not None)
    if actions is not None:
        acts = spec.action.check(actions, (count,), values=False)[None]
    if known is not None:
        mask = as_tensor(known, "known")[None]
    spec.check_actions(acts, (1, count), mask)
    return conditions_of(world, acts, mask, prompt, guidance)


def noise_levels(frames: Tensor, chunk: int, strength: float) -> list[float]:
    """The noise level of each chunk: lower where there is motion, and not by jumps."""
    last = frames.unflatten(0, (-1, chunk))[:, -1].float() / 255
    moved = [0.0, *(last[1:] - last[:-1]).abs().flatten(1).mean(1).tolist()]
    levels, before = [], strength
    for d in moved:
        level = 0.9 * (strength - 0.1 * min(d / FAST, 1.0)) + 0.1 * before
        levels.append(max(level, 0.02))
        before = level
    return levels if strength < 1 else [1.0] * len(levels)


# --- Whether what happened still happens ----------------------------------------------------------


@dataclass(frozen=True)
class Agreement:
    """How far an edited clip still is the recorded one.

    Attributes:
        reward: mean difference of the rewards that the world reads from both, over their spread in
            the original (at least `LEAST_SPREAD`).
        end: largest difference of the probabilities that the episode goes on.
        action: how much better the edited chunks are foretold by the recorded actions than by
            those of another time, as a share of the latter's error; above 0 where they fit.
    """

    reward: float
    end: float
    action: float

    def holds(self, reward: float = 1.0, end: float = 0.5) -> bool:
        """Whether the clip is kept."""
        return self.reward <= reward and self.end <= end and self.action > 0


LEAST_SPREAD = 0.1


@torch.no_grad()
def agreement(
    world: DiffusionWorld, before: Tensor, after: Tensor, actions: Any, known: Any = None
) -> Agreement:
    """Compare a clip's latents (1, n, h, w, C) before and after, as the world's own heads see them.

    actions: (n, *action), known ones or None, without which `action` is infinite.
    """
    count = before.shape[1]
    said = _said(world, actions, known, count, None, None)
    (r0, c0, _), (r1, c1, error) = (_judged(world, x, said) for x in (before, after))
    spread = max(float(r0.std()), LEAST_SPREAD) if count > 2 else LEAST_SPREAD
    gain = float("inf")
    if bool(said.action_known.any()) and count > 3:
        order = torch.arange(count, device=before.device).roll(count // 2)
        other = _judged(world, after, said.chunks(order))[2]
        gain = float((other.mean() - error.mean()) / other.mean())
    return Agreement(float((r1 - r0).abs().mean()) / spread, float((c1 - c0).abs().max()), gain)


def _judged(
    world: DiffusionWorld, latents: Tensor, said: Conditions
) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards, probabilities of going on and errors of one pass from noise, of all but the first
    chunk."""
    parts = []
    for first in range(0, latents.shape[1] - 1, LENGTH):
        part = slice(first, first + LENGTH + 1)
        some, given = latents[:, part], said.chunks(part)
        context, clean = some[:, :-1], some[:, 1:]
        clip = Clip(some, context, context.new_zeros(context.shape[:2]), given)
        draws = Draws(0, first, [0], device=latents.device)
        noise, level = draws.normal(clean.shape), torch.full_like(context[..., 0, 0, 0], 0.9)
        noisy = corrupt(clean, noise, level)
        x, features = predict(world.dynamics, clip, noisy, level, world.spec.context)
        heads = world.dynamics.heads
        out = heads(features[0])
        error = ((x - clean) ** 2).mean((0, 2, 3, 4))
        parts.append((heads.expected_reward(out.reward), sigmoid(out.continue_logits), error))
    reward, going_on, error = (torch.cat(each) for each in zip(*parts, strict=True))
    return reward, going_on, error
