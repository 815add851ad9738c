"""Train a world's networks."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import tyro

from worldsim.core import WorldError
from worldsim.data.native import NativeDataset
from worldsim.presets import SIZES
from worldsim.store.folder import load
from worldsim.train.recipe import Recipe, fit_forced, fit_teacher, fit_vae

from .flags import SizeName, use_threads


def train(
    stage: tyro.conf.Positional[Literal["vae", "dynamics"]],
    data: Path = Path("data/car-racing"),
    run: Path = Path("runs/car-racing"),
    size: SizeName = "small",
    recipe: Recipe = Recipe(),  # noqa: B008
    begin: str | None = None,
    threads: int | None = None,
) -> None:
    """Train a stage: first "vae", then "dynamics" (the teacher, in two runs).

    Args:
        stage: what to train.
        data: a folder of episodes.
        run: the run's folder; a run goes on where it stood.
        size: the networks' size.
        recipe: how to train.
        begin: a world whose VAE goes on here, a bundled one's name or a folder; "vae" only.
        threads: CPU threads; all by default.
    """
    use_threads(threads)
    dataset, sizes = NativeDataset(data), SIZES[size]()
    if stage == "vae":
        fit_vae(dataset, sizes, recipe.vae, run, load(begin) if begin else None)
    elif begin:
        raise WorldError(f"begin: expected none for a teacher, got {begin!r}; `distill` takes it")
    else:
        fit_forced(dataset, sizes, recipe.forced, run)
        fit_teacher(dataset, sizes, recipe.teacher, run)
