"""Distill a teacher."""

from __future__ import annotations

from pathlib import Path

from worldsim.data.native import NativeDataset
from worldsim.presets import SIZES
from worldsim.store.folder import load, save
from worldsim.train.recipe import Recipe, assemble, fit_student

from .flags import SizeName, use_threads


def distill(
    out: Path,
    data: Path = Path("data/car-racing"),
    run: Path = Path("runs/car-racing"),
    size: SizeName = "small",
    recipe: Recipe = Recipe(),  # noqa: B008
    begin: str | None = None,
    time_limit: int = 475,
    passes: int = 2,
    threads: int | None = None,
    overwrite: bool = False,
) -> None:
    """Distill the teacher to a few-step student and save the world folder.

    Args:
        out: the world folder to write; its name is the world's.
        data: a folder of episodes.
        run: the run's folder.
        size: the networks' size.
        recipe: how to train.
        begin: a world whose student goes on here; the run's teacher is distilled without.
        time_limit: steps after which the world's environments truncate an episode.
        passes: in which the world draws a step.
        threads: CPU threads; all by default.
        overwrite: replace a world that is there.
    """
    use_threads(threads)
    dataset, sizes = NativeDataset(data), SIZES[size]()
    fit_student(dataset, sizes, recipe.distill, run, load(begin) if begin else None)
    world = assemble(dataset, sizes, run, out.name, time_limit=time_limit, passes=passes)
    save(world, out, overwrite=overwrite)
    print(f"saved {out}; measure it: worldsim eval --world {out} --data {data}")
