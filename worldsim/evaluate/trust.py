"""Whether trust can be trusted: predicted along test dreams beside what became of them.

A dream's step **tracks reality** where its frames are off by less than a bound of mean squared
error that depends on the data alone, never on the world: see `bound_of`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from worldsim.metrics import auroc, psnr, reliability, squared_error

from .clips import Clips
from .horizon import LATER, Dreamt, gap, persistence

GOOD_VAE = 1e-3
"""Error of a good autoencoder, 30 dB: what the card asks of one."""

LEAST_BOUND = 1e-4
"""The bound is never stricter, 40 dB, where next to nothing moves."""

TRUSTED = 0.5
STEPS = (1, 2, 4, 8, 16, 32, 60)


def bound_of(clips: Clips) -> float:
    """Error up to which a dream of this data tracks reality.

    It is below what copying the last real frame costs after 8 steps, and below the point half-way
    in dB between a good autoencoder (30 dB) and frames of another clip. Both are properties of the
    recording, so a poor world cannot loosen the bound by being poor.
    """
    copied = float(persistence(clips.upto(LATER))[:, -1].mean())
    other = clips.frames[:, 0].roll(max(1, len(clips) // 2), 0)
    unrelated = float(squared_error(other, clips.frames[:, 0]).mean())
    return max(LEAST_BOUND, min(copied, (GOOD_VAE * unrelated) ** 0.5))


def real_steps(clips: Clips, dreamt: Dreamt) -> tuple[Tensor, Tensor]:
    """Trust in every real step of the dreams and its error, (M,) each; unknown trust is 0."""
    valid = clips.valid[:, : dreamt.mse.shape[1]]
    return dreamt.trust[valid].nan_to_num(0), dreamt.mse[valid].nan_to_num(1)


def trust_figures(trust: Tensor, mse: Tensor, bound: float) -> dict[str, Any]:
    """Discrimination and calibration of probabilities `trust` (M,) that `mse` (M,) is in bounds.

    psnr: of the mean error of each bin of probability, dB; NaN where there is none.
    """
    true = mse <= bound
    bins = reliability(trust, true)
    place = (trust * len(bins.count)).long().clamp(0, len(bins.count) - 1)
    error = torch.bincount(place, mse.double(), len(bins.count)) / torch.tensor(bins.count)
    return {
        "steps": len(trust),
        "tracking": true.float().mean().item(),
        "mean": trust.mean().item(),
        "auroc": auroc(trust, true),
        "ece": bins.ece,
        "reliability": {"predicted": bins.predicted, "true": bins.true, "count": bins.count,
                        "psnr": psnr(error).tolist()},
        "trusted_wrongly": (~true[trust >= TRUSTED]).float().mean().item(),
        "distrusted_wrongly": true[trust < TRUSTED].float().mean().item(),
    }  # fmt: skip


def summarise(parts: dict[str, tuple[Clips, Dreamt]], bound: float) -> dict[str, Any]:
    """Figures of every kind of start, of all perturbed ones together, and of all together."""
    pairs = {name: real_steps(*part) for name, part in parts.items()}
    kinds = {name: trust_figures(*pair, bound) for name, pair in pairs.items()}
    trust, mse = (torch.cat(x) for x in zip(*pairs.values(), strict=True))
    kinds["all"] = trust_figures(trust, mse, bound)
    return {"bound_psnr": float(psnr(torch.tensor(bound))), "kinds": kinds}


def safe_horizon(dreamt: Tensor, still: Tensor, episode: Tensor) -> dict[str, Any]:
    """The last step up to which dreams (N, T) beat the last real frame copied, and by how much.

    At every step up to it the gap's 95% interval over episodes lies above 0.
    """
    last, at = 0, {"value": float("nan"), "low": float("nan"), "high": float("nan")}
    for t in range(dreamt.shape[1]):
        above = gap(still[:, t], dreamt[:, t], episode)
        if not above["low"] > 0:
            break
        last, at = t + 1, above
    return {"steps": last, "of": dreamt.shape[1], "gap": at}


def by_step(trust: Tensor, tracking: Tensor, steps: Sequence[int]) -> dict[str, list[float]]:
    """Mean trust and share that tracked at some steps of the dreams, both from (N, T)."""
    at = torch.tensor(steps) - 1
    shares = trust[:, at].mean(0), tracking[:, at].float().mean(0)
    return {"step": list(steps), "trust": shares[0].tolist(), "tracking": shares[1].tolist()}
