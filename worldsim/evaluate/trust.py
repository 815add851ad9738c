"""Whether trust can be trusted: what it said along test dreams beside what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from worldsim.metrics import auroc, psnr, reliability

from .horizon import Dreamt, gap
from .test_clips import Clips

TRUSTED = 0.5
STEPS = (1, 2, 4, 8, 16, 32, 60)


def judged(clips: Clips, dreamt: Dreamt) -> tuple[Tensor, Tensor]:
    """What was said of every real step of the dreams and its error, (M,) each."""
    valid = clips.valid[:, : dreamt.mse.shape[1]]
    return dreamt.trust[valid], dreamt.mse[valid]


def trust_figures(said: Tensor, mse: Tensor, bound: float) -> dict[str, Any]:
    """Discrimination and calibration of probabilities `said` (M,) that `mse` (M,) is in bounds.

    psnr: of the mean error of each bin of what was said, dB; NaN where nothing was.
    """
    true = mse <= bound
    bins = reliability(said, true)
    place = (said * len(bins.count)).long().clamp(0, len(bins.count) - 1)
    error = torch.bincount(place, mse.double(), len(bins.count)) / torch.tensor(bins.count)
    return {
        "steps": len(said),
        "tracking": true.float().mean().item(),
        "auroc": auroc(said, true),
        "ece": bins.ece,
        "reliability": {"said": bins.said, "true": bins.true, "count": bins.count,
                        "psnr": psnr(error).tolist()},
        "trusted_wrongly": (~true[said >= TRUSTED]).float().mean().item(),
        "distrusted_wrongly": true[said < TRUSTED].float().mean().item(),
    }  # fmt: skip


def summarise(parts: dict[str, tuple[Clips, Dreamt]], bound: float) -> dict[str, Any]:
    """Figures of every kind of start, of all harmed ones together, and of all together."""
    found = {name: judged(*part) for name, part in parts.items()}
    kinds = {name: trust_figures(*pair, bound) for name, pair in found.items()}
    said, mse = (torch.cat(x) for x in zip(*found.values(), strict=True))
    kinds["all"] = trust_figures(said, mse, bound)
    return {"bound_psnr": float(psnr(torch.tensor(bound))), "kinds": kinds}


def safe_horizon(dreamt: Tensor, still: Tensor, episode: Tensor) -> dict[str, Any]:
    """The last step up to which dreams (N, T) beat the last real frame copied, and by how much.

    At every step up to it the gap's 95% interval over episodes lies above 0.
    """
    last, at = 0, {"value": float("nan"), "low": float("nan"), "high": float("nan")}
    for t in range(dreamt.shape[1]):
        found = gap(still[:, t], dreamt[:, t], episode)
        if not found["low"] > 0:
            break
        last, at = t + 1, found
    return {"steps": last, "of": dreamt.shape[1], "gap": at}


def by_step(trust: Tensor, tracking: Tensor, steps: Sequence[int]) -> dict[str, list[float]]:
    """Mean trust and share that tracked at some steps of the dreams, both from (N, T)."""
    at = torch.tensor(steps) - 1
    shares = trust[:, at].mean(0), tracking[:, at].float().mean(0)
    return {"step": list(steps), "trust": shares[0].tolist(), "tracking": shares[1].tolist()}
