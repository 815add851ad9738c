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

from .test_clips import Clips

GAP_HORIZONS = (1, 8, 32)
ACTION_HORIZONS = (1, 4, 8, 16)
REWARD_STEPS = 16


@dataclass(frozen=True)
class Dreamt:
    """What T steps of N dreams said: squared error, reward, continue_prob, trust, each (N, T)."""

    mse: Tensor
    reward: Tensor
    continue_prob: Tensor
    trust: Tensor


def dream(
    world: DiffusionWorld, clips: Clips, actions: Tensor, rows: int, advance: Callable[[int], Any]
) -> Dreamt:
    """Dream from every clip under `actions` (N, T, *action) and compare with its real frames.

    The noise is keyed on the clip's place in its episode, so that neither the batch nor the choice
    of clips matters. `advance` hears of every batch that is done.
    """
    parts: list[tuple[Tensor, ...]] = []
    for a in range(0, len(clips), rows):
        some = clips[a : a + rows]
        key = torch.stack([some.episode, some.start], 1)
        state = world.encode(some.context, some.context_actions, key)
        told = replay(world, state, actions[a : a + rows].to(world.device), decode_every=1)
        assert told.frames is not None
        real = some.frames[:, : actions.shape[1]]
        error = metrics.squared_error(told.frames.reshape(real.shape), real)
        heads = (x.cpu() for x in (told.rewards, told.continue_prob, told.trust))
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
    """How far dreams (N, T) are above persistence at the next chunk and at every horizon, dB."""
    gaps = psnr(dreamt.double().mean(0)) - psnr(still.double().mean(0))
    worst = int(gaps.argmin())
    return {
        "next": gap(still[:, 0], dreamt[:, 0], episode),
        "worst": gap(still[:, worst], dreamt[:, worst], episode),
        "worst_horizon": worst + 1,
        "by_horizon": gaps.tolist(),
    }


def teacher_gaps(student: Tensor, teacher: Tensor, episode: Tensor) -> dict[str, dict[str, float]]:
    """Teacher's PSNR minus the student's, dB, on the same clips, by horizon: both (N, T)."""
    horizons = [h for h in GAP_HORIZONS if h <= teacher.shape[1]]
    return {str(h): gap(student[:, h - 1], teacher[:, h - 1], episode) for h in horizons}


def shuffled(clips: Clips) -> Tensor:
    """Every clip's actions given to a clip of another episode: (N, T, *action).

    Clips lie episode by episode, so a shift by half of them leaves no clip in its episode.
    """
    return clips.actions.roll(len(clips) // 2, 0)


def action_following(true: Tensor, false: Tensor, episode: Tensor) -> dict[str, dict[str, float]]:
    """Error under shuffled actions over error under the true ones, by horizon: both (N, T)."""
    found = {}
    for h in (h for h in ACTION_HORIZONS if h <= false.shape[1]):
        both = torch.stack([false[:, h - 1], true[:, h - 1]], 1)
        ratio = bootstrap(lambda w, x=both: weighted_mean(x, w)[:, 0] / weighted_mean(x, w)[:, 1],
                          episode)  # fmt: skip
        found[str(h)] = ratio._asdict()
    return found


def reward_figures(clips: Clips, dreamt: Dreamt) -> dict[str, Any]:
    """What the reward head is worth along open-loop dreams.

    pearson: of predicted and real reward summed over the first 16 steps of each dream. f1: of "this
    chunk is rewarded", where a prediction says so above `threshold`, half-way between the mean of
    the positive real rewards and the mean of the others; f1_at_zero: the same with threshold 0.
    """
    steps = min(REWARD_STEPS, dreamt.reward.shape[1])
    whole = clips.valid[:, :steps].all(1)
    sums = dreamt.reward[whole, :steps].sum(1), clips.rewards[whole, :steps].sum(1)
    real, counted = clips.rewards > 0, clips.valid
    threshold = 0.0
    if real[counted].any() and not real[counted].all():
        means = (clips.rewards[counted & x].mean().item() for x in (real, ~real))
        threshold = sum(means) / 2
    at = {t: metrics.confusion(dreamt.reward > t, real, counted) for t in (threshold, 0.0)}
    return {
        "pearson": bootstrap(lambda w: pearson(*sums, w), clips.episode[whole])._asdict(),
        "steps": steps,
        "sums": int(whole.sum()),
        "threshold": threshold,
        "f1": at[threshold].f1,
        "counts": vars(at[threshold]),
        "f1_at_zero": at[0.0].f1,
    }


def end_figures(parts: Sequence[tuple[Clips, Dreamt]]) -> dict[str, Any]:
    """What the continuation head is worth: an end is said where continue_prob < 0.5.

    parts: ordinary dreams, and those from clips shortly before an end. false_rate: share of steps
    at which the real episode went on and an end was said. f1 and counts: over all steps of both
    kinds up to the real end. count: real ends among them.
    """
    said = torch.cat([d.continue_prob.flatten() < 0.5 for _, d in parts])
    real = torch.cat([c.ends.flatten() for c, _ in parts])
    found = metrics.confusion(said, real, torch.cat([c.valid.flatten() for c, _ in parts]))
    return {
        "false_rate": found.false_rate,
        "f1": found.f1,
        "count": int(real.sum()),
        "counts": vars(found),
    }
