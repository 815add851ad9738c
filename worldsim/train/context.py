"""Context as a dream would show it: what keeps a network from believing its own mistakes.

The truth that is asked for stays the same, so that the network learns the way back to it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from einops import repeat
from torch import Tensor

from worldsim.core import Conditions, WorldError
from worldsim.diffusion.draws import Draws
from worldsim.diffusion.losses import noise_context
from worldsim.diffusion.samplers import consistency
from worldsim.diffusion.schedule import corrupt, linear_levels
from worldsim.diffusion.timeline import ChunkDenoiser, Clip, Network, fill_cache, predict
from worldsim.nn.stable import sigmoid

DREAMT_FROM = 4
"""True chunks that a dreamt context starts with: enough to see speeds and turns."""

DREAMT_PASSES = 2
"""Passes of each chunk of a dreamt context."""


def check_dreamt(dreamt: float, targets: int, blind: tuple[int, int] | None) -> None:
    """Raise WorldError for settings of a training that leave nothing to dream."""
    if blind and not dreamt:
        raise WorldError(
            f"blind: expected None, as no context is dreamt, got {blind}; set dreamt, too"
        )
    if dreamt and targets <= DREAMT_FROM:
        raise WorldError(
            f"targets: expected more than {DREAMT_FROM} where contexts are dreamt, got {targets}; "
            "take longer clips, or dreamt=0"
        )


@dataclass(frozen=True)
class Batch:
    """Clips of T + 1 chunks: latents (B, T + 1, h, w, C), conditions, rewards and continue_prob
    (B, T + 1), and bool masks of where these are known, None for everywhere.

    others: (B, T, h, w, C) of another clip each, for `patch_mix`; None where nothing is damaged.
    states: (B, T + 1, D) at each chunk's end, and where they are known; None without.
    recoloured: latents of the same chunks in other colours, None without.
    shown: (B, T, h, w, C) context to begin with, None for the recorded one.
    """

    latents: Tensor
    conditions: Conditions
    rewards: Tensor
    continue_prob: Tensor
    rewards_known: Tensor | None = None
    continue_known: Tensor | None = None
    others: Tensor | None = None
    states: Tensor | None = None
    states_known: Tensor | None = None
    recoloured: Tensor | None = None
    shown: Tensor | None = None


class Faults(Protocol):
    """How much of which faults, the fields of a training's settings."""

    @property
    def resample(self) -> float: ...  # noqa: D102
    @property
    def dreamt(self) -> float: ...  # noqa: D102
    @property
    def damage(self) -> float: ...  # noqa: D102
    @property
    def context_noise(self) -> float: ...  # noqa: D102


def drift_augment(
    network: Network, batch: Batch, faults: Faults, patch: tuple[int, int], window: int,
    draws: Draws,
) -> Clip:  # fmt: skip
    """The batch as clips whose context is resampled or dreamt, damaged and noise_augment."""
    context = batch.latents[:, :-1] if batch.shown is None else batch.shown
    clip = Clip(batch.latents, context, context.new_zeros(context.shape[:2]), batch.conditions)
    clip = resample_context(network, clip, faults.resample, window, draws)
    clip = dream_context(network, clip, faults.dreamt, window, draws)
    if faults.damage:
        assert batch.others is not None
        clip = patch_mix(clip, batch.others, faults.damage, patch, draws)
    return noise_augment(clip, faults.context_noise, draws)


def blank_alone(clip: Clip, targets: int) -> Clip:
    """Clips without targets, which are a chunk twice, as the chunk after one that is not shown.

    A picture alone is a video, too: it follows nothing but what is said, as a dream that begins
    with words alone. Clips with targets stay as they are.
    """
    if targets:
        return clip
    blank, unseen = torch.zeros_like(clip.context), torch.ones_like(clip.context_level)
    told = clip.conditions.stateless()  # the state before it would be its own
    return replace(clip, context=blank, context_level=unseen, conditions=told)


@torch.no_grad()
def resample_context(network: Network, clip: Clip, share: float, window: int, draws: Draws) -> Clip:
    """The first `share` of the clips with all context but the first chunk noised and denoised.

    In one pass from below a level of 0.95, so that the clip keeps following its actions (Resampling
    Forcing, 2512.15702): the blur of a network's own answers, one step deep.
    """
    if not round(share * draws.total):
        return clip
    count = draws.first(share)
    part = slice(max(1, count))  # a row at least: where weights are sharded, all ranks take part
    some = Clip(clip.latents[part], clip.context[part], clip.context_level[part],
                clip.conditions[part])  # fmt: skip
    clean, drawn = some.latents[:, 1:], draws[part]
    level = sigmoid(0.5 + drawn.normal(clean.shape[:2])).clamp(max=0.95)
    noisy = corrupt(clean, drawn.normal(clean.shape), level)
    x, _ = predict(network, some, noisy, level, window)
    context = clip.context.clone()
    context[:count, 1:] = x[:count, :-1].clamp(-6, 6)
    return replace(clip, context=context)


@torch.no_grad()
def dream_context(network: Network, clip: Clip, share: float, window: int, draws: Draws) -> Clip:
    """The last `share` of the clips with all context after `DREAMT_FROM` chunks dreamt.

    Chunk by chunk, each from those before it, by a student in `DREAMT_PASSES` passes (Self Forcing,
    2506.08009): faults as deep as the clip is long, which resampling never shows. What a clip saw
    of the world at its start must still decide its end, or the answer is the mean of all futures.
    State vectors are dreamt with it, and are what the next chunk is told.
    """
    if not round(share * draws.total):
        return clip
    first, chunks = len(draws) - draws.last(share), clip.context.shape[1]
    part = slice(min(first, len(draws) - 1), None)  # a row at least, as above
    drawn, given = draws[part], clip.conditions[part]
    real = clip.context[part, :DREAMT_FROM][:, -window:]
    blank = real.new_zeros(len(drawn), window - real.shape[1], *real.shape[2:])
    past = torch.cat([blank, real], 1)
    led = torch.arange(DREAMT_FROM - window, DREAMT_FROM)
    led = led.clamp(min=DREAMT_FROM - real.shape[1])  # blanks are not seen
    filled = torch.full((len(drawn),), real.shape[1], device=real.device)
    cache = fill_cache(network, past, given.chunks(led).as_context(), filled)
    video = [*clip.context[part, DREAMT_FROM - 2 : DREAMT_FROM].unbind(1)]
    for t in range(DREAMT_FROM, chunks):
        newest, following = (given.chunks(slice(i, i + 1)) for i in (t - 1, t))
        both = newest.as_context().then(following)
        denoise = ChunkDenoiser(network, video[-1], video[-2], both, cache, filled, window)
        noise = [drawn.normal(video[-1].shape) for _ in range(DREAMT_PASSES)]
        levels = linear_levels(DREAMT_PASSES)[:-1]
        x = consistency(denoise, noise[0], levels, lambda i, noise=noise: noise[i])
        video.append(x.float().clamp(-6, 6))
        given = _told(given, t + 1, denoise.state)
        cache, filled = denoise.following[0], (filled + 1).clamp(max=window)
    context = clip.context.clone()
    dreamt, here = torch.stack(video[2:], 1), slice(len(drawn) - (len(draws) - first), None)
    context[first:, DREAMT_FROM:] = dreamt[here]
    conditions = Conditions.cat([clip.conditions[:first], given[here]])
    return replace(clip, context=context, conditions=conditions)


def _told(given: Conditions, place: int, state: Tensor) -> Conditions:
    """The same with `state` (B, D) as what is known before chunk `place`; unchanged without any."""
    if not state.shape[1]:
        return given
    states, known = given.state.clone(), given.state_known.clone()
    states[:, place], known[:, place] = state, True
    return replace(given, state=states, state_known=known)


def tell_states(
    states: Tensor, known: Tensor, std: Tensor, drop: float, noise: float, draws: Draws
) -> tuple[Tensor, Tensor]:
    """What clips are told of the states before their chunks: (B, T + 1, D), and bool (B, T + 1).

    states, known: at each chunk's end. A share `drop` of the clips knows none up to some chunk, as
    a dream does that begins with frames alone; half of the others are told of them with noise of up
    to `noise` standard deviations, as a dream's own predictions have.
    """
    rows, count = known.shape
    before = torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], 1)
    told = torch.cat([torch.zeros_like(known[:, :1]), known[:, :-1]], 1)
    share, place, half, size = (draws.uniform((rows, 1)) for _ in range(4))
    first = (share < drop) * place * (count + 1)
    told &= torch.arange(count, device=known.device) >= first
    size = (half < 0.5) * size * noise
    return before + size[..., None] * std * draws.normal(before.shape), told


def patch_mix(
    clip: Clip, others: Tensor, share: float, patch: tuple[int, int], draws: Draws
) -> Clip:
    """A `share` of the clips with pieces of another clip in their context, from some chunk on.

    Pieces are patches of the network, up to a third of them, blended at 0.3 to 1. They come from
    another place in the other clip, shifted by whole patches, alike for the whole batch: a second
    car, a missing one, road in the grass, which true or resampled context never shows. others: the
    other clips, as long as the context.
    """
    (rows, count, height, width, _), (ph, pw) = clip.context.shape, patch
    uniform, shared = draws.uniform, draws.shared
    shift = [int(shared.integers(n, (1,))) * p
             for n, p in ((-(-height // ph), ph), (-(-width // pw), pw))]  # fmt: skip
    other = others.roll(shift, (2, 3))
    pieces = uniform((rows, -(-height // ph), -(-width // pw))) < uniform((rows, 1, 1)) / 3
    pieces = repeat(pieces, "b y x -> b 1 (y p) (x q) 1", p=ph, q=pw)[:, :, :height, :width]
    begun = torch.arange(count, device=pieces.device) >= draws.integers(count, (rows, 1))
    here = begun & (uniform((rows, 1)) < share)
    weight = pieces * here[:, :, None, None, None] * (0.3 + 0.7 * uniform((rows, 1, 1, 1, 1)))
    return replace(clip, context=clip.context + weight * (other - clip.context))


def noise_augment(clip: Clip, most: float, draws: Draws) -> Clip:
    """The clip with noise on its context, see `noise_context`."""
    context, told = noise_context(clip.context, most, draws)
    return replace(clip, context=context, context_level=told)
