"""Record episodes of a Gymnasium environment."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import tyro

from worldsim.collect.recorder import CollectConfig
from worldsim.recipes.registry import RECIPES, main


def collect(
    env: tyro.conf.Positional[str],
    folder: Path | None = None,
    policy: str | None = None,
    workers: int = os.cpu_count() or 1,
    episodes: int | None = None,
    chunk: int = 2,
    size: tuple[int, int] = (64, 64),
) -> None:
    """Record episodes of a Gymnasium environment into a folder.

    Args:
        env: "car-racing", "car-racing-panel" or "pendulum" for the measured recipes, or any
            Gymnasium id.
        folder: where to; data/NAME by default.
        policy: "module:function", a policy obs -> action; by default the environment's mix of
            behaviours if this house has one (CarRacing-v3, Pendulum-v1), else random actions.
        workers: processes.
        episodes: training episodes; all of the recipe by default.
        chunk: frames an action is repeated for (where there is no recipe).
        size: (height, width) to resize frames to, divisible by 8.
    """
    folder = folder or Path("data") / env.replace("/", "-")
    if env in RECIPES:
        config = replace(RECIPES[env](folder), workers=workers)
    else:
        config = CollectConfig(env_id=env, folder=folder, chunk=chunk, size=size, workers=workers)
    if episodes is not None:
        config = replace(config, train=(config.train[0], config.train[0] + episodes))
    main(config, policy)
