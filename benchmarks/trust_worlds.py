"""Whether trust tells a good world from a poor one: the same question of worlds of every quality.

    python -m benchmarks.trust_worlds --worlds pendulum=data/pendulum worlds/mine=data/mine

Each world is calibrated anew on validation episodes and then dreams from test episodes: as they
were recorded, and harmed in four ways, of which one, red and blue exchanged, was never fitted to. A
step tracks reality where its error is within a bound that is a property of the recording alone
(`evaluate.trust.bound_of`). So the mean trust of a good world is high, and that of a world that
learned nothing is near 0. What a world was shipped with is measured beside it, by its own bound.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor
from tqdm import tqdm

import worldsim
from worldsim.config import read_json
from worldsim.core import WorldError
from worldsim.data.open import open_dataset
from worldsim.evaluate import horizon
from worldsim.evaluate import trust as trusted
from worldsim.evaluate.calibrate import CalibrationPlan, calibrate, clips_of, perturbed
from worldsim.evaluate.clips import Clips, split_for
from worldsim.evaluate.report import finite
from worldsim.files import write_text
from worldsim.flags import refuse_repeated
from worldsim.metrics import auroc, reliability
from worldsim.store.provenance import provenance
from worldsim.world.diffusion import DiffusionWorld

from . import RESULTS

RESAMPLED = 400  # times that episodes are drawn again for an interval
GOALS = {"difference": 0.1, "ece": 0.08}
Figures = dict[str, Any]


def exchanged(clips: Clips) -> Clips:
    """Red and blue exchanged, context and reality alike."""
    return replace(clips, context=clips.context.flip(-1), frames=clips.frames.flip(-1))


def starts_of(world: DiffusionWorld, data: Any, plan: CalibrationPlan) -> dict[str, Clips]:
    """Test clips of every kind."""
    _, test = split_for(data, world.spec, "test")
    recorded = clips_of(test, world, plan.episodes, plan.starts, plan.horizon)
    some = recorded[torch.arange(0, len(recorded), plan.turned)]
    return perturbed(recorded, plan, seed=2) | {"red and blue exchanged": exchanged(some)}


def measured(world: DiffusionWorld, sets: dict[str, Clips], rows: int) -> dict[str, Figures]:
    """What trust was worth on each kind of start, and on all of them."""
    assert world.trust is not None
    bound, parts = float(world.trust.bound), {}
    total = sum(map(len, sets.values()))
    with tqdm(total=total, desc="dreams", leave=False) as bar:
        for name, clips in sets.items():
            dreamt = horizon.dream(world, clips, clips.actions, rows, bar.update)
            trust, mse = trusted.real_steps(clips, dreamt)
            cluster = clips.cluster[:, None].expand_as(clips.valid)[clips.valid]
            parts[name] = trust, mse <= bound, cluster
    parts["all"] = tuple(torch.cat(x) for x in zip(*parts.values(), strict=True))  # type: ignore[assignment]
    return {name: figures(*part) for name, part in parts.items()}


def figures(trust: Tensor, true: Tensor, cluster: Tensor) -> Figures:
    """Mean trust beside the share that tracked, calibration error and discrimination, (M,) each.

    Intervals are of episodes drawn anew.
    """

    def difference(rows: Tensor) -> float:
        return float(trust[rows].mean() - true[rows].float().mean())

    def error(rows: Tensor) -> float:
        return reliability(trust[rows], true[rows]).ece

    every = torch.arange(len(trust))
    return {
        "steps": len(trust), "tracking": float(true.float().mean()), "trust": float(trust.mean()),
        "difference": difference(every), "difference_interval": interval(difference, cluster),
        "ece": error(every), "ece_interval": interval(error, cluster), "auroc": auroc(trust, true),
    }  # fmt: skip


def interval(figure: Callable[[Tensor], float], cluster: Tensor) -> list[float]:
    """The middle 95% of `figure(rows)` over clusters drawn with replacement."""
    groups = [torch.nonzero(cluster == c)[:, 0] for c in cluster.unique()]
    rng = np.random.default_rng(0)
    found = [
        figure(torch.cat([groups[i] for i in rng.integers(len(groups), size=len(groups))]))
        for _ in range(RESAMPLED)
    ]
    return np.quantile(found, [0.025, 0.975]).tolist()


def spoilt(world: DiffusionWorld, share: float) -> DiffusionWorld:
    """The world with noise on the weights of its dynamics, of `share` of each tensor's deviation.

    A world of any quality between what it was and one that learned nothing, for the price of none.
    """
    dynamics, generator = copy.deepcopy(world.dynamics), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in dynamics.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.add_(share * weight.std(correction=0) * noise)
    return DiffusionWorld(world.config, world.vae, dynamics, world.starts)


def judged(
    name: str, folder: str, spoil: float, as_shipped: bool, plan: CalibrationPlan,
    test: CalibrationPlan,
) -> Figures:  # fmt: skip
    """A world's figures: as calibrated here and, where it came with a calibration, with that."""
    world, data = worldsim.load(name), open_dataset(folder)
    if spoil:
        world = spoilt(world, spoil)
    if as_shipped:
        return finite({"shipped": shipped(world, starts_of(world, data, test), test.rows),
                       "data": data.fingerprint(), "provenance": provenance()})  # fmt: skip
    fresh, told = calibrate(world, data, plan)
    sets = starts_of(fresh, data, test)
    found = {
        "above_persistence": told["above_persistence"], "bound_psnr": told["bound_psnr"],
        "clips": {kind: len(clips) for kind, clips in sets.items()}, "calibration": told["clips"],
        "kinds": measured(fresh, sets, test.rows), "data": data.fingerprint(),
        "provenance": provenance(),
    }  # fmt: skip
    if world.trust is not None and world.calibrated:
        found["shipped"] = shipped(world, sets, test.rows)
    return finite(found)


def shipped(world: DiffusionWorld, sets: dict[str, Clips], rows: int) -> Figures:
    """The figures of the calibration that a world came with, by its own bound."""
    if world.trust is None or not world.calibrated:
        raise WorldError(f"{world.spec.name}: expected a calibrated world")
    bound = -10 * float(world.trust.bound.log10())
    return {"bound_psnr": bound, "kinds": measured(world, sets, rows)}


def table(worlds: dict[str, Figures]) -> str:
    """The results as Markdown."""
    lines = ["| world | above persistence | bound | starts | steps | tracked | mean trust | "
             "difference | ECE | AUROC |", "|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, found in worlds.items():
        parts = {"": found} if "kinds" in found else {}
        parts |= {", as shipped": found["shipped"]} if "shipped" in found else {}
        for how, part in parts.items():
            for kind, x in part["kinds"].items():
                first = kind == "recorded"
                above = f"{found['above_persistence']['value']:.1f} dB" if first and not how else ""
                bound = f"{part['bound_psnr']:.1f} dB" if first else ""
                cells = [f"{name}{how}" if first else "", above, bound, kind, f"{x['steps']:,}"]
                cells += [
                    f"{x['tracking']:.0%}",
                    f"{x['trust']:.0%}",
                    _with(x, "difference", "+.2f"),
                ]
                cells += [_with(x, "ece", ".3f"), _number(x["auroc"])]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _with(found: Figures, name: str, form: str) -> str:
    low, high = found[f"{name}_interval"]
    text = f"{found[name]:{form}} [{low:{form}}, {high:{form}}]"
    return text if abs(found[name]) <= GOALS[name] else f"**{text}**"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def main(
    worlds: tuple[str, ...],
    episodes: int = 50,
    starts: int = 4,
    horizon: int = 40,
    spoil: float = 0.0,
    as_shipped: bool = False,
    rows: int = 32,
    out: Path = RESULTS / "trust-worlds.json",
) -> None:
    """Calibrate and judge worlds; figures of others that the results hold already are kept.

    Args:
        worlds: each as WORLD=DATA, a bundled world's name or a folder, and its recordings.
        episodes: of the validation split to calibrate on, and of the test split, at most.
        starts: clips of each.
        horizon: steps of a dream.
        spoil: noise on the weights of the worlds' dynamics, in deviations of each tensor.
        as_shipped: measure only the calibration that the worlds came with.
        rows: dreams in a batch.
        out: the JSON file.
    """
    pairs = [text.partition("=")[::2] for text in worlds]
    if not pairs or not all(name and data for name, data in pairs):
        raise WorldError(f"worlds: expected WORLD=DATA ..., got {list(worlds)}")
    known = read_json(out)["worlds"] if out.exists() else {}
    plan = CalibrationPlan(episodes=episodes, starts=starts, horizon=horizon, rows=rows)
    test = replace(plan, recoloured=2, frozen=2, turned=2)
    for name, data in pairs:
        title = Path(name).name + (f", spoilt by {spoil:g}" if spoil else "")
        known[title] = judged(name, data, spoil, as_shipped, plan, test)
        told = {"format": "worldsim-trust-worlds", "goals": GOALS, "worlds": known}
        write_text(out, json.dumps(told, indent=1) + "\n")
    print(table(known))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, args=refuse_repeated(sys.argv[1:]))
