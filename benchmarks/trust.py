"""Whether trust can be trusted: on tracks nobody fitted it to, and on ones unlike all recorded.

    python -m benchmarks.trust

Starts are of five kinds: test tracks as recorded, the same recoloured, the same from a context that
stands still, and two that the real simulator makes and nothing was ever fitted to: tracks that it
paints itself (`domain_randomize`) and drives over the grass. Every dream is compared with what
really followed. The cost is that of a step with trust over one without, in turns.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor
from tqdm import tqdm

import worldsim
from worldsim.collect.policies import CollectPolicy, Policy
from worldsim.core import WorldError, row_keys
from worldsim.data import Dataset, NativeDataset
from worldsim.evaluate import horizon
from worldsim.evaluate import trust as trusted
from worldsim.evaluate.calibrate import CalibrationPlan, clips_of, perturbed
from worldsim.evaluate.clips import Clips, Recorded, cut_clips, split_for
from worldsim.evaluate.report import finite, write_card
from worldsim.flags import refuse_repeated
from worldsim.metrics import auroc, psnr
from worldsim.recipes.car_racing.drivers import Action
from worldsim.recipes.car_racing.settings import car_racing
from worldsim.store.provenance import provenance
from worldsim.world.diffusion import DiffusionWorld

from . import RESULTS
from .noise_floor import ACTION

HORIZON = 60
SEEDS = {"repainted": 40_000, "off road": 41_000}  # of tracks in nobody's data
WARM = 3  # steps before the clock runs


def off_road(env: Any, rng: np.random.Generator) -> Policy:
    """Turns off the road at once and wanders over the grass."""
    steer, gas, left = (
        float(rng.choice([-1, 1]) * rng.uniform(0.15, 0.5)),
        rng.uniform(0.2, 0.5),
        25,
    )

    def policy(obs: Any) -> Action:
        nonlocal steer, left
        left -= 1
        if left < 0:
            left, steer = int(rng.integers(10, 40)), float(rng.uniform(-0.4, 0.4))
        return np.array([steer, gas, 0], np.float32)

    return policy


def unlike_recorded(kind: str, episodes: int, context: int) -> Clips:
    """Clips of the real simulator that are unlike everything recorded."""
    recipe, policy, starts = car_racing().seen(max_frames=320), None, (8, 45)
    if kind == "repainted":
        recipe = recipe.seen(kwargs={"domain_randomize": True})
    else:
        policy, starts = CollectPolicy(name=kind, make=off_road), (60, 95)
    found = []
    for i in tqdm(range(episodes), desc=kind, leave=False):
        episode = recipe.record(SEEDS[kind] + i, policy)
        firsts = [s for s in starts if s + HORIZON <= len(episode)]
        found.append(cut_clips(Recorded.of(episode, ACTION), i, firsts, context, HORIZON))
    return Clips.cat([clips for clips in found if clips is not None])


def starts(world: DiffusionWorld, data: Dataset, episodes: int, drives: int) -> dict[str, Clips]:
    """Clips of every kind: two a test track, half of them perturbed, and two of each drive."""
    context = world.spec.context
    _, test = split_for(data, world.spec, "test")
    recorded = clips_of(test, world, episodes, 2, HORIZON)
    made = {name: unlike_recorded(name, drives, context) for name in SEEDS}
    return perturbed(recorded, CalibrationPlan(recoloured=2, frozen=2, turned=2), seed=2) | made


def dream(world: DiffusionWorld, sets: dict[str, Clips], rows: int) -> dict[str, horizon.Dreamt]:
    """What the world predicts along each clip, and how far it is off."""
    dreams = {}
    with tqdm(total=sum(len(clips) for clips in sets.values()), desc="dreams") as bar:
        for name, clips in sets.items():
            dreams[name] = horizon.dream(world, clips, clips.actions, rows, bar.update)
    return dreams


def figures_of(
    sets: dict[str, Clips], dreams: dict[str, horizon.Dreamt], bound: float, after: int
) -> dict[str, Any]:
    """What trust was worth at the steps beyond the first `after`, and what age alone would be."""
    found: dict[str, list[Tensor]] = {}
    for name, dreamt in dreams.items():
        cut = horizon.Dreamt(*(x[:, after:] for x in vars(dreamt).values()))
        clips = _from(sets[name], after)
        age = torch.arange(after, HORIZON).expand_as(cut.mse)[clips.valid]
        found[name] = [*trusted.real_steps(clips, cut), age]
    groups = {name: [name] for name in found}
    groups |= {"all but recorded": [n for n in found if n != "recorded"], "all": list(found)}
    kinds = {}
    for group, names in groups.items():
        trust, mse, age = (torch.cat(x) for x in zip(*(found[n] for n in names), strict=True))
        alone = auroc(-age, mse <= bound)
        kinds[group] = trusted.trust_figures(trust, mse, bound) | {"auroc_of_age": alone}
    return {"bound_psnr": float(psnr(torch.tensor(bound))), "kinds": kinds}


def _from(clips: Clips, step: int) -> Clips:
    """The same clips without their first `step` steps."""
    cut = ("frames", "actions", "rewards", "ends", "valid")
    return replace(clips, **{name: getattr(clips, name)[:, step:] for name in cut})


@torch.no_grad()
def cost(make: Callable[[DiffusionWorld], DiffusionWorld], world: DiffusionWorld, rows: int,
         rounds: int) -> dict[str, float]:  # fmt: skip
    """Milliseconds of a step with trust and without, in turns; ratio: the median of the rounds'."""
    worlds = [make(world), make(world.with_trust(None))]
    states = [w.reset(row_keys(range(rows))) for w in worlds]
    action = world.spec.action.blank(rows)
    taken: list[list[float]] = [[], []]
    for turn in tqdm(range(rounds + WARM), desc=f"cost, {rows} rows", leave=False):
        order = (0, 1) if turn % 2 else (1, 0)
        for i in order:
            begin = time.perf_counter()
            worlds[i].step(states[i], action)
            if turn >= WARM:
                taken[i].append(1000 * (time.perf_counter() - begin))
    ratio = median(a / b for a, b in zip(*taken, strict=True))
    return {"with": median(taken[0]), "without": median(taken[1]), "ratio": ratio}


def costs(world: DiffusionWorld, rounds: int, compiled: bool) -> dict[str, dict[str, float]]:
    """`cost` of 1 row and of 16, of the networks as they are and, if asked for, compiled."""
    ways: dict[str, Callable[[DiffusionWorld], DiffusionWorld]] = {"networks": lambda w: w}
    if compiled:
        ways["compiled"] = worldsim.compiled
    return {
        f"{name}, {rows} rows": cost(make, world, rows, rounds)
        for name, make in ways.items()
        for rows in (1, 16)
    }


def shown(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "| starts | steps | tracked reality | AUROC | of age alone | ECE |",
        "|---|---|---|---|---|---|",
    ]
    for part in ("every step", "beyond the safe horizon"):
        for name, kind in results[part]["kinds"].items():
            cells = [f"{name}, {part}", f"{kind['steps']:,}", f"{kind['tracking']:.0%}"]
            cells += [f"{kind[key]:.3f}" for key in ("auroc", "auroc_of_age", "ece")]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| step | with trust, ms | without, ms | ratio |", "|---|---|---|---|"]
    for name, found in results["cost"].items():
        lines.append(
            f"| {name} | {found['with']:.2f} | {found['without']:.2f} | {found['ratio']:.3f} |"
        )
    return "\n".join(lines)


def main(
    world: str = "car-racing",
    data: Path = Path("data/car-racing"),
    episodes: int = 50,
    drives: int = 20,
    rounds: int = 200,
    rows: int = 50,
    compiled: bool = False,
    out: Path = RESULTS / "trust-car-racing.json",
) -> None:
    """Judge a calibrated world's trust on starts that nothing was fitted to.

    Args:
        world: a bundled world's name or a folder.
        data: the recorded episodes of `car-racing`; its test split is read.
        episodes: test tracks.
        drives: drives of each kind that is unlike what was recorded.
        rounds: of the clock.
        rows: dreams in a batch.
        compiled: clock compiled steps, too; making them takes minutes.
        out: the JSON file.
    """
    loaded, dataset = worldsim.load(world), NativeDataset(data)
    if loaded.trust is None or not loaded.calibrated:
        raise WorldError(f"{world}: expected a calibrated world: worldsim calibrate")
    sets, bound = starts(loaded, dataset, episodes, drives), float(loaded.trust.bound)
    dreams = dream(loaded, sets, rows)
    recorded = sets["recorded"]
    safe = trusted.safe_horizon(
        dreams["recorded"].mse, horizon.persistence(recorded), recorded.cluster
    )
    results = {
        "format": "worldsim-trust",
        "clips": {name: len(clips) for name, clips in sets.items()},
        "safe_horizon": safe,
        "every step": figures_of(sets, dreams, bound, 0),
        "beyond the safe horizon": figures_of(sets, dreams, bound, safe["steps"]),
        "cost": costs(loaded, rounds, compiled),
        "data": {"sha256": dataset.split("test").fingerprint()},
        "provenance": provenance(),
    }
    write_card(finite(results), out)
    print(shown(results))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, args=refuse_repeated(sys.argv[1:]))
