"""Fitting `worldsim.world.uncertainty` on dreams whose reality is known: validation clips.

Recorded clips alone would teach a judge nothing about worlds it has never seen, so some clips are
harmed first, reality and all: recoloured, or with a context that stands still. No test episode is
read here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from worldsim import metrics
from worldsim.core import WorldError
from worldsim.data.columns import check_kind
from worldsim.data.dataset import Dataset
from worldsim.models.vae import to_float
from worldsim.world.diffusion import DiffusionWorld
from worldsim.world.uncertainty import BANK, TINY, Trust, embed_action

from .test_clips import Clips, cut_clips, even_starts

LOOK_EVERY = 3  # steps between those whose frames are compared
BANK_EPISODES = 192  # training episodes that the bank of latents is drawn from
LEAST_PART = 0.1  # of the largest component's spread: to what varies less, distances pay no heed
GOLDEN = 0.6180339887498949  # its multiples spread evenly, however many there are
FOLDS = 5  # of the episodes, each judged by a regression that has not seen it
RIDGE = 1e-3  # on weights of features of unit spread
LEAST_SPREAD = 0.1  # of a feature: what varies less is not blown up, or its noise is fitted


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
def watch(world: DiffusionWorld, clips: Clips, rows: int, advance: Callable[[int], Any]) -> Watched:
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
    spread = spread.maximum(LEAST_PART * spread[0])
    trust.basis.copy_(axes[:parts].T / spread)
    picked = torch.randperm(len(flat), generator=generator)[:BANK]
    picked = picked[torch.arange(BANK) % len(picked)]  # fewer are told more than once
    trust.basis.copy_(trust.basis.bfloat16())  # as it is saved, so as it is fitted
    project = lambda z: ((z.flatten(1) - trust.centre) @ trust.basis).bfloat16()  # noqa: E731
    trust.bank.copy_(project(after[picked]))
    known = torch.ones(len(picked), dtype=torch.bool, device=action.device)
    moves = [project(before[picked]), embed_action(world.spec.action, action[picked], known)]
    trust.moves.copy_(torch.cat(moves, 1).bfloat16())
    trust.sampling.copy_(world.config.sampling.numbers)
    return trust


def _recorded(world: DiffusionWorld, data: Dataset) -> tuple[Tensor, Tensor, Tensor]:
    """Latents (n, ...), the actions taken there, and the latents that followed."""
    data = data.split("train" if "train" in data.splits else "val")
    context, found = world.spec.context, []
    for place in range(0, len(data), max(1, len(data) // BANK_EPISODES)):
        episode = data.episode(place)
        starts = even_starts(len(episode), context, 0, 5)
        clips = cut_clips(episode, place, starts, context, 1, world.spec.action)
        if clips is not None:
            latents = world.vae.encode(to_float(clips.context.to(world.device)))
            pairs = latents[:, :-1], clips.context_actions[:, 1:], latents[:, 1:]
            found.append([x.flatten(0, 1) for x in pairs])
    before, action, after = (torch.cat(x) for x in zip(*found, strict=True))
    return before.cpu(), action, after.cpu()


@torch.no_grad()
def bound_of(world: DiffusionWorld, clips: Clips) -> tuple[float, float, float]:
    """Error up to which a dream tracks reality, the VAE's floor, and the error of other frames.

    The bound lies half-way, in dB, between what the VAE alone loses on the newest context chunk and
    how far frames of another episode are off.
    """
    chunk = world.spec.chunk
    state = world.encode(clips.context, clips.context_actions)
    floor = metrics.squared_error(world.decode(state).cpu(), clips.context[:, -chunk:]).mean()
    other = metrics.squared_error(clips.frames[:, 0].roll(len(clips) // 2, 0), clips.frames[:, 0])
    return float((floor * other.mean()).sqrt()), float(floor), float(other.mean())


def fit_judge(trust: Trust, watched: Sequence[Watched], bound: float) -> None:
    """Fit the judge to dreams of which it is known whether they still tracked reality.

    An episode's steps resemble each other, so what a regression says of the episodes it was fitted
    on is too sure: its log-odds are scaled (Platt 1999) to fit what regressions that have not seen
    an episode say of it.
    """
    x = torch.cat([w.features[w.valid] for w in watched])
    true = torch.cat([w.mse[w.valid] <= bound for w in watched]).float()
    episode = torch.cat([w.episode[:, None].expand_as(w.valid)[w.valid] for w in watched])
    trust.bound.fill_(bound)
    trust.shift.copy_(x.mean(0))
    trust.scale.copy_(x.std(0).clamp(min=LEAST_SPREAD))
    trust.low.copy_(x.amin(0))
    trust.high.copy_(x.amax(0))
    x, blind = trust.scaled(x), torch.zeros_like(true)
    for fold in range(FOLDS):
        out = episode % FOLDS == fold
        weight, bias = regress(x[~out], true[~out], RIDGE)
        blind[out] = x[out] @ weight + bias
    gain, offset = regress(blind[:, None], true, 0.0)
    weight, bias = regress(x, true, RIDGE)
    trust.weight.copy_(gain * weight)
    trust.bias.copy_(gain[0] * bias + offset)


@torch.enable_grad()
def regress(x: Tensor, true: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Logistic regression of `true` (M,) on `x` (M, F): weight (F,) and bias ()."""
    weight, bias = torch.zeros(x.shape[1], requires_grad=True), torch.zeros((), requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.binary_cross_entropy_with_logits(x @ weight + bias, true)
        value = value + ridge / 2 * (weight**2).sum()
        value.backward()
        return value

    solver.step(loss)  # type: ignore[arg-type]
    return weight.detach(), bias.detach()


@dataclass(frozen=True, kw_only=True)
class CalibrationPlan:
    """How much is dreamt to fit trust.

    Attributes:
        episodes: validation episodes, the first ones.
        starts: clips of each; of these one in `recoloured` and one in `frozen` is harmed, too.
        horizon: steps of each dream. rows: dreams in a batch.
    """

    episodes: int = 50
    starts: int = 6
    recoloured: int = 2
    frozen: int = 2
    horizon: int = 60
    rows: int = 32


def calibrate(
    world: DiffusionWorld, data: Dataset, plan: CalibrationPlan | None = None, seed: int = 0
) -> tuple[DiffusionWorld, dict[str, Any]]:
    """The world with trust fitted to it as it is drawn from now, and figures of the fit.

    Reads training and validation episodes only. Raises WorldError where there are too few, or
    where they are of another world.
    """
    check_kind(data.spec, world.spec)
    plan = plan or CalibrationPlan()
    clips = clips_of(data, "val", world.spec.context, plan.episodes, plan.starts, plan.horizon)
    trust = fit_senses(world, data, seed)
    world = world.with_trust(trust.to(world.device))
    bound, floor, other = bound_of(world, clips)
    sets = harmed(clips, plan.recoloured, plan.frozen, seed)
    watched = []
    with tqdm(total=sum(len(x) for x in sets.values()) * plan.horizon, desc="dreams") as bar:
        for some in sets.values():
            watched.append(watch(world, some, plan.rows, bar.update))
    trust.cpu()
    fit_judge(trust, watched, bound)
    names = dict(zip(sets, watched, strict=True))
    figures = {
        "clips": {name: len(some) for name, some in sets.items()},
        "bound_psnr": float(metrics.psnr(torch.tensor(bound))),
        "floor_psnr": float(metrics.psnr(torch.tensor(floor))),
        "other_psnr": float(metrics.psnr(torch.tensor(other))),
        "share_tracking": {k: float((w.mse[w.valid] <= bound).float().mean())
                           for k, w in names.items()},
    }  # fmt: skip
    return world.with_trust(trust.to(world.device)), figures


def harmed(clips: Clips, recoloured: int, frozen: int, seed: int) -> dict[str, Clips]:
    """The clips as recorded, and some of them recoloured and with a context that stands still."""
    generator = torch.Generator().manual_seed(seed)
    painted = clips[torch.arange(1 % len(clips), len(clips), recoloured)]
    still = clips[torch.arange(2 % len(clips), len(clips), frozen)]
    return {"recorded": clips, "recoloured": recolour(painted, generator), "frozen": freeze(still)}


def clips_of(
    data: Dataset, split: str, context: int, episodes: int, starts: int, horizon: int
) -> Clips:
    """Clips of the split's first episodes, at times spread over all of them together."""
    found = []
    data = data.split(split)
    for place in range(min(episodes, len(data))):
        episode = data.episode(place)
        room = len(episode) - horizon - context
        parts = [(place * GOLDEN + i / starts) % 1 for i in range(starts)]
        firsts = [context + int(part * (room + 1)) for part in parts if room >= 0]
        found.append(cut_clips(episode, place, firsts, context, horizon, data.spec.action))
    whole = [clips for clips in found if clips is not None]
    if len(whole) < 2:
        raise WorldError(
            f"data: expected two or more {split} episodes of {context + horizon} chunks, got "
            f"{len(whole)} of {len(found)}; record longer ones"
        )
    return Clips.cat(whole)
