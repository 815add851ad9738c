"""Fitting `worldsim.world.uncertainty` on dreams whose reality is known: validation clips.

Recorded clips alone would teach nothing about worlds never seen, so some clips are perturbed first,
reality and all: recoloured, turned upside down, or with a context that stands still. No test
episode is read here.
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
from worldsim.data.dataset import Dataset
from worldsim.models.vae import to_float
from worldsim.nn.dtype import default_float32
from worldsim.world.diffusion import DiffusionWorld
from worldsim.world.uncertainty import BANK, TINY, Trust, embed_action

from .clips import Clips, Recorded, cut_clips, even_starts, horizon_for, split_for
from .horizon import above_persistence, persistence
from .trust import bound_of

LOOK_EVERY = 3  # steps between those whose frames are compared
BANK_EPISODES = 192  # training episodes that the bank of latents is drawn from
LEAST_PART = 0.1  # of the largest component's spread: to what varies less, distances pay no heed
GOLDEN = 0.6180339887498949  # its multiples spread evenly, however many there are
FOLDS = 5  # of the episodes, each predicted by a regression that has not seen it
MOST = 1000  # chunks of an episode that are looked at
RIDGE = 1e-3  # on weights of features of unit spread
LEAST_SPREAD = 0.1  # of a feature: what varies less is not blown up, or its noise is fitted


@dataclass(frozen=True)
class Watched:
    """Dreams that were watched at n of their steps.

    Attributes:
        features: (N, n, F) what the regression sees. mse: (N, n) of the frames against reality.
        step: (n,) which steps. cluster: (N,) what resembles each other: episodes, or clips where
            there are few. valid: (N, n), False after the real episode's end.
    """

    features: Tensor
    mse: Tensor
    step: Tensor
    cluster: Tensor
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


def turn(clips: Clips) -> Clips:
    """Upside down, context and reality alike."""
    return replace(clips, context=clips.context.flip(-3), frames=clips.frames.flip(-3))


@torch.no_grad()
def watch(world: DiffusionWorld, clips: Clips, rows: int, advance: Callable[[int], Any]) -> Watched:
    """Dream from every clip under its actions and look at every third step."""
    assert world.trust is not None
    steps = range(1, clips.actions.shape[1] + 1)
    looked = [t for t in steps if t <= LOOK_EVERY or t % LOOK_EVERY == 0]
    parts: list[tuple[Tensor, Tensor]] = []
    for some in (clips[a : a + rows] for a in range(0, len(clips), rows)):
        key = torch.stack([some.episode, some.start], 1)
        state = some.begin(world, key)
        seen = []
        for t in steps:
            if some.prompts is not None:
                state = state.prompted(some.prompts[:, t - 1])
            state, _ = world.step(state, some.actions[:, t - 1].to(world.device))
            if t in looked:
                error = metrics.squared_error(world.decode(state).cpu(), some.frames[:, t - 1])
                seen.append((world.trust.features(state).cpu(), error.mean((-3, -2, -1))))
            advance(len(some))
        features, mse = (torch.stack(x, 1) for x in zip(*seen, strict=True))
        parts.append((features.nan_to_num(), mse.nan_to_num(1)))
    features, mse = (torch.cat(x) for x in zip(*parts, strict=True))
    at = torch.tensor(looked)
    return Watched(features, mse, at, clips.cluster, clips.valid[:, at - 1])


@torch.no_grad()
def fit_senses(world: DiffusionWorld, data: Dataset, seed: int = 0) -> Trust:
    """Principal components of recorded latents and the banks of latents and moves."""
    trust = Trust(world.spec)
    before, action, known, after = _recorded(world, data)
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
    moves = [
        project(before[picked]),
        embed_action(world.spec.action, action[picked], known[picked]),
    ]
    trust.moves.copy_(torch.cat(moves, 1).bfloat16())
    trust.sampling.copy_(world.config.sampling.numbers)
    return trust


def _recorded(world: DiffusionWorld, data: Dataset) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latents (n, ...), the actions taken there, whether known, and the latents that followed."""
    spec, (_, train) = world.spec, split_for(data, world.spec, "train")
    parts: list[tuple[Tensor, ...]] = []
    for place in range(0, len(train), max(1, len(train) // BANK_EPISODES)):
        episode = Recorded.of(train.episode(place), spec.action, MOST)
        starts = even_starts(len(episode), spec.context, 0, 5)
        clips = cut_clips(episode, place, starts, spec.context, 1)
        if clips is not None:
            latents = world.vae.encode(to_float(clips.context.to(world.device))).cpu()
            known = clips.context_known[:, 1:]
            pairs = latents[:, :-1], clips.context_actions[:, 1:], known, latents[:, 1:]
            parts.append(tuple(x.flatten(0, 1) for x in pairs))
    if not parts:
        raise WorldError(f"data: expected training episodes of {spec.context} chunks or more in "
                         f"{data.spec.name}, got none; record longer ones")  # fmt: skip
    before, action, known, after = (torch.cat(x) for x in zip(*parts, strict=True))
    return before, action, known, after


@torch.no_grad()
def vae_error(world: DiffusionWorld, clips: Clips) -> float:
    """What the VAE alone loses on the newest context chunk of the clips."""
    state = clips.begin(world)
    real = clips.context[:, -world.spec.chunk :]
    return float(metrics.squared_error(world.decode(state).cpu(), real).mean())


def fit_regression(trust: Trust, watched: Sequence[Watched], bound: float) -> None:
    """Fit the regression to dreams of which it is known whether they still tracked reality.

    An episode's steps resemble each other, so what a regression predicts of the episodes it was
    fitted on is too sure: its log-odds are scaled (Platt 1999) to fit what regressions that have
    not seen an episode predict of it. Platt's targets keep the odds finite where every dream tracks
    reality, or none does.
    """
    x = torch.cat([w.features[w.valid] for w in watched])
    true = platt_targets(torch.cat([w.mse[w.valid] <= bound for w in watched]))
    cluster = torch.cat([w.cluster[:, None].expand_as(w.valid)[w.valid] for w in watched])
    trust.bound.fill_(bound)
    trust.shift.copy_(x.mean(0))
    trust.scale.copy_(x.std(0).clamp(min=LEAST_SPREAD))
    trust.low.copy_(x.amin(0))
    trust.high.copy_(x.amax(0))
    x, unseen = trust.scaled(x), torch.zeros_like(true)
    fold = cluster.unique(return_inverse=True)[1] % FOLDS
    for out in (fold == i for i in fold.unique()):
        weight, bias = regress(x[~out], true[~out], RIDGE) if (~out).any() else (0 * x[0], 0.0)
        unseen[out] = x[out] @ weight + bias
    gain, offset = regress(unseen[:, None], true, 0.0)
    if not gain[0] > 0:  # nothing was learned that holds for other episodes
        gain, offset = torch.zeros(1), true.mean().logit()
    weight, bias = regress(x, true, RIDGE)
    trust.weight.copy_(gain * weight)
    trust.bias.copy_(gain[0] * bias + offset)


def platt_targets(true: Tensor) -> Tensor:
    """Probabilities for bool (M,): (n + 1) / (n + 2) for each yes, 1 / (m + 2) for each no."""
    yes, no = true.sum(), (~true).sum()
    return torch.where(true, (yes + 1) / (yes + 2), 1 / (no + 2))


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
        starts: clips of each; every so many-th of all clips is recoloured, stands still at first
            (`frozen`), or is turned upside down (`turned`), besides.
        horizon: steps of each dream, fewer where episodes are short. rows: dreams in a batch.
    """

    episodes: int = 50
    starts: int = 6
    recoloured: int = 3
    frozen: int = 3
    turned: int = 3
    horizon: int = 60
    rows: int = 32


@default_float32()
def calibrate(
    world: DiffusionWorld, data: Dataset, plan: CalibrationPlan | None = None, seed: int = 0
) -> tuple[DiffusionWorld, dict[str, Any]]:
    """The world with trust fitted to it as it is sampled now, and figures of the fit.

    Reads validation episodes, and training ones for the bank of latents (and where there are no
    others). Raises WorldError where episodes are too short, or where they are of another world.
    """
    plan = plan or CalibrationPlan()
    split, val = split_for(data, world.spec, "val")
    clips = clips_of(val, world, plan.episodes, plan.starts, plan.horizon)
    trust = fit_senses(world, data, seed)
    world = world.with_trust(trust.to(world.device))
    bound, floor = bound_of(clips), vae_error(world, clips)
    sets = perturbed(clips, plan, seed)
    horizon, watched = clips.actions.shape[1], []
    with tqdm(total=sum(len(x) for x in sets.values()) * horizon, desc="calibrating") as bar:
        for some in sets.values():
            watched.append(watch(world, some, plan.rows, bar.update))
    trust.cpu()
    fit_regression(trust, watched, bound)
    names = dict(zip(sets, watched, strict=True))
    still = persistence(clips)[:, names["recorded"].step - 1]
    above = above_persistence(names["recorded"].mse, still, clips.cluster)
    figures = {
        "split": split,
        "horizon": horizon,
        "clips": {name: len(some) for name, some in sets.items()},
        "bound_psnr": float(metrics.psnr(torch.tensor(bound))),
        "vae_psnr": float(metrics.psnr(torch.tensor(floor))),
        "above_persistence": above["next"],
        "share_tracking": {k: float((w.mse[w.valid] <= bound).float().mean())
                           for k, w in names.items()},
    }  # fmt: skip
    return world.with_trust(trust.to(world.device)), figures


def perturbed(clips: Clips, plan: CalibrationPlan, seed: int) -> dict[str, Clips]:
    """The clips as recorded, and some of them recoloured, frozen at first, and upside down."""
    generator = torch.Generator().manual_seed(seed)

    def every(step: int, first: int) -> Clips:
        return clips[torch.arange(first % len(clips), len(clips), step)]

    return {
        "recorded": clips,
        "recoloured": recolour(every(plan.recoloured, 1), generator),
        "frozen": freeze(every(plan.frozen, 2)),
        "turned": turn(every(plan.turned, 0)),
    }


def clips_of(
    data: Dataset, world: DiffusionWorld, episodes: int, starts: int, horizon: int
) -> Clips:
    """Clips of the first episodes, at times spread over all of them together.

    Dreams are shorter than `horizon` where half of the episodes are too short for it.
    """
    spec, places = world.spec, range(min(episodes, len(data)))
    horizon = horizon_for([min(data.lengths[i], MOST) for i in places], spec.context, horizon)
    parts = []
    for place in places:
        episode = Recorded.told(world, data, place, MOST)
        spare = len(episode) - horizon - spec.context
        times = [(place * GOLDEN + i / starts) % 1 for i in range(starts)]
        firsts = sorted({spec.context + int(time * (spare + 1)) for time in times if spare >= 0})
        parts.append(cut_clips(episode, place, firsts, spec.context, horizon))
    return Clips.cat([clips for clips in parts if clips is not None])
