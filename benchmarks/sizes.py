"""One world of three frame sizes against a world for each: errors of dreams, and at a new size.

    python -m benchmarks.sizes

CarRacing recorded at 56x96, cropped to each shape and reduced. All worlds have the same networks,
recipe and number of steps; a step costs about the same at every size. The one of several sizes sees
half of its training episodes through drawn windows, those of one size what they are judged on
alone. Killed, it goes on in the same folder.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from tqdm import tqdm

from worldsim.collect.workers import Job
from worldsim.data.dataset import Dataset
from worldsim.data.sized import at_size
from worldsim.evaluate.horizon import LATER, action_following, curve, dream, persistence
from worldsim.evaluate.plan import EvaluationPlan
from worldsim.evaluate.report import write_card
from worldsim.evaluate.sizes import clips_at, world_at
from worldsim.flags import refuse_repeated
from worldsim.pipeline import train
from worldsim.play import film
from worldsim.play.sample import dream_along
from worldsim.recipes.car_racing.settings import car_racing
from worldsim.recipes.recipe import episode_name
from worldsim.store.provenance import provenance
from worldsim.train.buckets import batch_for
from worldsim.train.recipe import QUICK
from worldsim.world.diffusion import DiffusionWorld

from . import DOCS, RESULTS

Size = tuple[int, int]
SIZES: tuple[Size, ...] = ((32, 32), (32, 48), (48, 32))
NEW: Size = (40, 40)
EPISODES = {"train": 16, "val": 1, "test": 6}
STEPS = {"vae": 1200, "forced": 800, "teacher": 1, "distill": 300}
"""Of each stage; the second part of the teacher's training is left out but for a step."""

NETWORKS = {"dim": 96, "depth": 4, "heads": 2, "widths": (48, 96), "channels": 16, "patch": (1, 1)}
"""A patch is one latent cell, so that no size is padded: a network that never saw padding has none
of it to cope with at a new size."""

PLAN = EvaluationPlan(episodes=6, starts=16, horizon=LATER)
AT = (0, 2, 4, 8)
"""Steps after the context that a strip shows."""


def main(
    folder: Path = Path("runs/sizes"),
    times: float = 1.0,
    out: Path = RESULTS / "sizes.json",
    picture: Path = DOCS / "media" / "sizes.png",
    quick: bool = False,
) -> None:
    """Errors at `LATER` steps at each size, of the world of all over that of this size alone.

    Args:
        folder: of the recording and the worlds.
        times: so many times the optimiser steps of `STEPS`.
        out: the JSON file.
        picture: strips of every size.
        quick: the same in small, nothing to cite.
    """
    torch.set_num_threads(1)
    data, times = recorded(folder / "data", quick=quick), 0.05 if quick else times
    steps = {name: round(times * count) for name, count in STEPS.items()}
    together = trained(data, SIZES, folder / "all", steps)
    goals, command = {"trained": 1.1, "new": 1.25}, f"python -m benchmarks.sizes --times {times:g}"
    found, strips = {}, []
    for size in (NEW, *SIZES):
        worlds = {"all": together, "alone": trained(data, (size,), folder / named(size), steps)}
        found[named(size)] = compared(data.split("test"), size, worlds)
        strips.append(strip(data.split("test"), size, worlds))
        film.save_picture(picture, beside(strips))
        card = {"steps": steps, "goals": goals, "sizes": found, "provenance": provenance(command)}
        write_card(card, out)
        print(named(size), found[named(size)], flush=True)


def compared(data: Dataset, size: Size, worlds: dict[str, DiffusionWorld]) -> dict[str, Any]:
    """Errors of the worlds' dreams, of all over that of one, and of copying the last frame."""
    clips, errors = clips_at(data, size, worlds["alone"], PLAN), {}
    for name, world in worlds.items():
        with tqdm(total=len(clips), desc=f"{named(size)}, {name}", file=sys.stderr) as bar:
            errors[name] = dream(world_at(world, size), clips, clips.actions, 32, bar.update).mse
    ratios = action_following(errors["alone"], errors["all"], clips.cluster)
    return {
        "trained": size in SIZES, "error, all over alone": ratios, "clips": len(clips),
        "psnr": {name: curve(mse) for name, mse in errors.items()},
        "persistence": curve(persistence(clips)),
    }  # fmt: skip


def named(size: Size) -> str:
    """Height and width in words."""
    return f"{size[0]}x{size[1]}"


def recorded(folder: Path, *, quick: bool) -> Dataset:
    """Drives of the recipe's own mix; the car is seen at every shape, since all are as high."""
    base = car_racing().seen(crop=(28, 84, 0, 96), size=(56, 96))
    if quick:
        base = base.seen(max_frames=120)
    jobs = [
        Job(split=split, name=episode_name(seed), seed=seed, policy=base.policy(seed).name)
        for split, count in EPISODES.items()
        for seed in base.seeds[split][: min(count, 2) if quick else count]
    ]
    return base.collect(folder, workers=1, jobs=jobs)


def trained(
    data: Dataset, sizes: tuple[Size, ...], folder: Path, steps: dict[str, int]
) -> DiffusionWorld:
    """A world of these frame sizes; where it is finished already, that one.

    One of a single size has as many clips a step as it has in the world of several.
    """
    (height, width), (first_height, first_width) = sizes[0], SIZES[0]
    clips = batch_for(16, height * width / (first_height * first_width))
    parts = {
        name: replace(part, fit=replace(part.fit, batch=8 if name == "vae" else clips, steps=count))
        for name, count in steps.items() for part in [getattr(QUICK, name)]
    }  # fmt: skip
    parts["teacher"] = replace(parts["teacher"], resample=0.0, damage=0.0)
    parts["distill"] = replace(parts["distill"], targets=10, dreamt=0.0)
    return train(
        data, out=folder / "world", run=folder / "run", preset="tiny", sizes=sizes,
        windows="drawn" if len(sizes) > 1 else "centred", recipe=replace(QUICK, **parts),
        changed=dict(NETWORKS), compile=steps["forced"] > 100, card=False, overwrite=True,
        num_steps=2,
    )  # fmt: skip


@torch.no_grad()
def strip(data: Dataset, size: Size, worlds: dict[str, DiffusionWorld]) -> np.ndarray[Any, Any]:
    """What happened, and what each world dreamt, a row each."""
    episode, rows = at_size(data, size).episode(0), []
    for world in worlds.values():
        seen = world_at(world, size)
        real, dreamt = dream_along(seen, episode, 30, AT[-1])
        chunk, begun = world.spec.chunk, world.spec.context * world.spec.chunk
        places = [begun - 1 + t * chunk for t in AT]
        rows += [[real[i] for i in places]] * (not rows) + [[dreamt[i] for i in places]]
    heads = [f"step {t}" for t in AT]
    return film.sheet(rows, ["real", *worlds], heads, 3)


def beside(pictures: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Pictures in a column, each filled to the width of the widest."""
    wide = max(picture.shape[1] for picture in pictures)
    filled = [np.pad(p, ((0, 0), (0, wide - p.shape[1]), (0, 0))) for p in pictures]
    return np.concatenate(filled)


if __name__ == "__main__":
    tyro.cli(main, args=refuse_repeated(sys.argv[1:]))
