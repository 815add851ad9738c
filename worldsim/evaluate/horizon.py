"""Dreams beside what really happened: error by horizon, the gap to the teacher, actions, reward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from worldsim import metrics
from worldsim.metrics import bootstrap, pearson, psnr, weighted_mean
from worldsim.world.diffusion import DiffusionWorld
from worldsim.world.rollout import replay

from .clips import Clips

GAP_HORIZONS = (1, 8, 32)
ACTION_HORIZONS = (1, 4, 8, 16)
REWARD_STEPS = 16
LATER = 8
"""Steps after which a dream is compared with persistence, besides the next chunk."""


@dataclass(frozen=True)
class Dreamt:
    """What T steps of N dreams gave: squared error, reward, continue_prob, trust, each (N, T), and
    state vectors (N, T, D)."""

    mse: Tensor
    reward: Tensor
    continue_prob: Tensor
    trust: Tensor
    states: Tensor


def dream(
    world: DiffusionWorld, clips: Clips, actions: Tensor, rows: int, advance: Callable[[int], Any]
) -> Dreamt:
    """Dream from every clip under `actions` (N, T, *action) and compare with its real frames.

    A world with words is told at every step what is said of it. The noise is keyed on the clip's
    place in its episode, so that neither the batch nor the choice of clips matters. `advance` hears
    of every batch that is done.
    """
    parts: list[tuple[Tensor, ...]] = []
    for a in range(0, len(clips), rows):
        some = clips[a : a + rows]
        key = torch.stack([some.episode, some.start], 1)
        state = some.begin(world, key)
        given = actions[a : a + rows].to(world.device)
        text = None if some.prompts is None else some.prompts[:, : given.shape[1]]
        rollout = replay(world, state, given, text=text, decode_every=1)
        assert rollout.frames is not None
        real = some.frames[:, : actions.shape[1]]
        error = metrics.squared_error(rollout.frames.reshape(real.shape), real)
        told = (rollout.rewards, rollout.continue_prob, rollout.trust, rollout.states)
        heads = (x.cpu() for x in told)
        parts.append((error.mean((-3, -2, -1)), *heads))
        advance(len(some))
    return Dreamt(*(torch.cat(x) for x in zip(*parts, strict=True)))


def persistence(clips: Clips) -> Tensor:
    """Error of the last context frame, copied: (N, T)."""
    still = clips.context[:, None, None, -1].expand_as(clips.frames)
    parts = zip(still.split(32), clips.frames.split(32), strict=True)
    return torch.cat([metrics.squared_error(a, b).mean((-3, -2, -1)) for a, b in parts])


def curve(mse: Tensor) -> list[float]:
    """PSNR of the mean error at every horizon from 1: (N, T) -> T numbers."""
    return psnr(mse.double().mean(0)).tolist()


def gap(worse: Tensor, better: Tensor, episode: Tensor) -> dict[str, float]:
    """PSNR of `better` minus PSNR of `worse`, dB, with its interval: both (N,)."""
    both = torch.stack([worse, better], 1)

    def figure(weights: Tensor) -> Tensor:
        scores = psnr(weighted_mean(both, weights))
        return scores[:, 1] - scores[:, 0]

    return bootstrap(figure, episode)._asdict()


def above_persistence(dreamt: Tensor, still: Tensor, episode: Tensor) -> dict[str, Any]:
    """How far dreams (N, T) are above persistence, dB, with intervals over episodes.

    next: at the next chunk. later: after `later_horizon` steps, 8 where there are as many. worst:
    at the horizon where they are least above it.
    """
    gaps = psnr(dreamt.double().mean(0)) - psnr(still.double().mean(0))
    worst, later = int(gaps.argmin()), min(LATER, dreamt.shape[1]) - 1
    return {
        "next": gap(still[:, 0], dreamt[:, 0], episode),
        "later": gap(still[:, later], dreamt[:, later], episode),
        "later_horizon": later + 1,
        "worst": gap(still[:, worst], dreamt[:, worst], episode),
        "worst_horizon": worst + 1,
        "by_horizon": gaps.tolist(),
    }


def teacher_gaps(student: Tensor, teacher: Tensor, episode: Tensor) -> dict[str, dict[str, float]]:
    """Teacher's PSNR minus the student's, dB, on the same clips, by horizon: both (N, T)."""
    horizons = [h for h in GAP_HORIZONS if h <= teacher.shape[1]]
    return {str(h): gap(student[:, h - 1], teacher[:, h - 1], episode) for h in horizons}


def shuffled(clips: Clips) -> Tensor | None:
    """Every clip's actions given to another clip: (N, T, *action); None where all act alike.

    Clips lie episode by episode, so a shift by half of them leaves no clip in its episode where
    there are two or more.
    """
    other = clips.actions.roll(len(clips) // 2, 0)
    return None if torch.equal(other, clips.actions) else other


def action_following(true: Tensor, false: Tensor, episode: Tensor) -> dict[str, dict[str, float]]:
    """Error under shuffled actions over error under the true ones, by horizon: both (N, T)."""
    ratios = {}
    for h in (h for h in ACTION_HORIZONS if h <= false.shape[1]):
        both = torch.stack([false[:, h - 1], true[:, h - 1]], 1)

        def figure(weights: Tensor, both: Tensor = both) -> Tensor:
            means = weighted_mean(both, weights)
            return means[:, 0] / means[:, 1]

        ratios[str(h)] = bootstrap(figure, episode)._asdict()
    return ratios


def reward_figures(clips: Clips, dreamt: Dreamt) -> dict[str, Any] | None:
    """What the reward head is worth along open-loop dreams; None where the data have no rewards.

    pearson: of predicted and real reward summed over the first 16 steps of each dream. f1: of "this
    chunk is rewarded", where a prediction says so above `threshold`, half-way between the mean of
    the positive real rewards and the mean of the others; f1_at_zero: the same with threshold 0.
    """
    counted = clips.valid & clips.rewards.isfinite()
    if not counted.any():
        return None
    steps = min(REWARD_STEPS, dreamt.reward.shape[1])
    whole = counted[:, :steps].all(1)
    sums = dreamt.reward[whole, :steps].sum(1), clips.rewards[whole, :steps].sum(1)
    real = clips.rewards > 0
    threshold = 0.0
    if real[counted].any() and not real[counted].all():
        means = (clips.rewards[counted & x].mean().item() for x in (real, ~real))
        threshold = sum(means) / 2
    at = {t: metrics.confusion(dreamt.reward > t, real, counted) for t in (threshold, 0.0)}
    correlation = None
    if whole.any():
        correlation = bootstrap(lambda w: pearson(*sums, w), clips.cluster[whole])._asdict()
    return {
        "pearson": correlation,
        "steps": steps,
        "sums": int(whole.sum()),
        "threshold": threshold,
        "f1": at[threshold].f1,
        "counts": vars(at[threshold]),
        "f1_at_zero": at[0.0].f1,
    }


def end_figures(parts: Sequence[tuple[Clips, Dreamt]]) -> dict[str, Any]:
    """What the continuation head is worth: an end is predicted where continue_prob < 0.5.

    parts: ordinary dreams, and those from clips shortly before an end. false_rate: share of steps
    at which the real episode went on and an end was predicted. f1 and counts: over all steps of
    both kinds up to the real end. count: real ends among them.
    """
    predicted = torch.cat([d.continue_prob.flatten() < 0.5 for _, d in parts])
    real = torch.cat([c.ends.flatten() for c, _ in parts])
    counts = metrics.confusion(predicted, real, torch.cat([c.valid.flatten() for c, _ in parts]))
    return {
        "false_rate": counts.false_rate,
        "f1": counts.f1,
        "count": int(real.sum()),
        "counts": vars(counts),
    }
