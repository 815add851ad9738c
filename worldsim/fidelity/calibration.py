"""Fitting `worldsim.trust` on dreams whose reality is known: clips of validation episodes.

Recorded clips alone would teach a judge nothing about worlds it has never seen, so some clips are
harmed first, reality and all: recoloured, or with a context that stands still. No test episode is
read here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from worldsim import metrics
from worldsim.core import WorldError
from worldsim.data.dataset import Dataset
from worldsim.trust import BANK, PARTS, TINY, Trust, embed_action
from worldsim.world import DiffusionWorld

from .clips import Clips, cut_clips, even_starts

LOOK_EVERY = 3  # steps between those whose frames are compared
BANK_EPISODES = 96  # training episodes that the bank of latents is drawn from


@dataclass(frozen=True)
class Watched:
    """Dreams that were watched at n of their steps.

    Attributes:
        features: (N, n, F) what the judge is shown. mse: (N, n) of the frames against reality.
        step: (n,) which steps. episode: (N,). valid: (N, n), False after the real episode's end.
    """

    features: Tensor
    mse: Tensor
    step: Tensor
    episode: Tensor
    valid: Tensor


def recolour(clips: Clips, generator: torch.Generator) -> Clips:
    """Another palette for every clip, context and reality alike: a random affine map of colour.

    Its strength differs from clip to clip, so that small changes are among them.
    """
    count = len(clips)
    strength = torch.rand(count, 1, 1, generator=generator)
    mix = torch.eye(3) + 0.8 * strength * torch.randn(count, 3, 3, generator=generator)
    shift = 60 * strength[..., 0] * torch.randn(count, 3, generator=generator)

    def paint(frames: Tensor) -> Tensor:
        wide = [1] * (frames.ndim - 2)
        colour = torch.einsum("n...i,nij->n...j", frames.float() - 110, mix)
        colour = colour + 110 + shift.reshape(count, *wide, 3)
        return colour.round().clamp(0, 255).to(torch.uint8)

    return replace(clips, context=paint(clips.context), frames=paint(clips.frames))


def freeze(clips: Clips) -> Clips:
    """The context's last frame throughout the context: all speed is lost."""
    return replace(clips, context=clips.context[:, -1:].expand_as(clips.context).clone())


@torch.no_grad()
def watch(
    world: DiffusionWorld, clips: Clips, rows: int, advance: Callable[[int], Any]
) -> Watched:
    """Dream from every clip under its actions and look at every third step."""
    assert world.trust is not None
    steps = range(1, clips.actions.shape[1] + 1)
    looked = [t for t in steps if t <= LOOK_EVERY or t % LOOK_EVERY == 0]
    parts: list[tuple[Tensor, Tensor]] = []
    for some in (clips[a : a + rows] for a in range(0, len(clips), rows)):
        key = torch.stack([some.episode, some.start], 1)
        state = world.encode(some.context, some.context_actions, key)
        seen = []
        for t in steps:
            state, _ = world.step(state, some.actions[:, t - 1].to(world.device))
            if t in looked:
                error = metrics.squared_error(world.decode(state).cpu(), some.frames[:, t - 1])
                seen.append((world.trust.features(state).cpu(), error.mean((-3, -2, -1))))
            advance(len(some))
        features, mse = (torch.stack(x, 1) for x in zip(*seen, strict=True))
        parts.append((features, mse))
    features, mse = (torch.cat(x) for x in zip(*parts, strict=True))
    at = torch.tensor(looked)
    return Watched(features, mse, at, clips.episode, clips.valid[:, at - 1])


@torch.no_grad()
def fit_senses(world: DiffusionWorld, data: Dataset, seed: int = 0) -> Trust:
    """Principal components of recorded latents and the banks of latents and moves."""
    trust = Trust(world.spec)
    before, action, after = _recorded(world, data)
    generator = torch.Generator().manual_seed(seed)
    flat = after.flatten(1)
    trust.centre.copy_(flat.mean(0))
    _, spread, axes = torch.linalg.svd(flat - trust.centre, full_matrices=False)
    parts = trust.basis.shape[1]
    spread = (spread[:parts] / len(flat) ** 0.5).clamp(min=TINY)
    trust.basis.copy_(axes[:parts].T / spread)
    picked = torch.randperm(len(flat), generator=generator)[:BANK]
    picked = picked[torch.arange(BANK) % len(picked)]  # fewer are told more than once
    project = lambda z: (z.flatten(1) - trust.centre) @ trust.basis  # noqa: E731
    trust.bank.copy_(project(after[picked]))
    moves = [project(before[picked]), embed_action(world.spec.action, action[picked])]
    trust.moves.copy_(torch.cat(moves, 1))
    trust.sampling.copy_(world.config.sampling.numbers)
    return trust


def _recorded(world: DiffusionWorld, data: Dataset) -> tuple[Tensor, Tensor, Tensor]:
    """Latents (n, ...), the actions taken there, and the latents that followed."""
    paths = data.episodes("train") or data.episodes("val")
    if not paths:
        raise WorldError(f"data: expected training episodes in {data.folder}, got none")
    context, found = world.spec.context, []
    for place, path in enumerate(paths[:: max(1, len(paths) // BANK_EPISODES)]):
        episode = data.load(path)
        starts = even_starts(len(episode.actions), context, 0, 3)
        clips = cut_clips(episode, place, starts, context, 1)
        if clips is not None:
            latents = world.encode(clips.context, clips.context_actions).latents
            pairs = latents[:, :-1], clips.context_actions[:, 1:], latents[:, 1:]
            found.append([x.flatten(0, 1) for x in pairs])
    before, action, after = (torch.cat(x) for x in zip(*found, strict=True))
    return before.cpu(), action, after.cpu()
