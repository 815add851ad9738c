"""Whether prompts teach: agents of the same clone of day, dreaming by day or under drawn prompts.

Both drive the real CarRacing in every condition, on tracks of the test split.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from worldsim.agents.actor_critic import AgentConfig
from worldsim.agents.settings import ImaginationConfig
from worldsim.agents.training import AgentTrainingConfig, train_agent
from worldsim.data.dataset import Dataset
from worldsim.metrics import bootstrap, weighted_mean
from worldsim.recipes.car_racing.settings import scenery
from worldsim.train.loop import FitConfig
from worldsim.world.compiled import compiled
from worldsim.world.diffusion import DiffusionWorld

from .text_augmentation import CONDITIONS, SAID, driven
from .text_prompts import Judge
from .text_twins import PLAIN

DAY = "green meadows on a clear day"
PROMPTS = {"day": (DAY,), "drawn": (DAY, *SAID.values())}
TRACKS = range(5000, 5006)
RECIPE = AgentTrainingConfig(
    begin="clone",
    agent=AgentConfig(sees="pixels", width=32),
    cloning=FitConfig(steps=1500, batch=64, lr=1e-3, bf16=False, ema=0.995),
    imagination=ImaginationConfig(rows=64, horizon=15),
    iterations=60,
    lr=1.5e-4,
    best=1.0,
)


def training(judge: Judge, *, quick: bool) -> dict[str, Any]:
    """Mean real return by condition of the clone and of both agents, and the gain of drawn prompts
    with its interval over tracks."""
    tracks, length = (TRACKS[:1], 4) if quick else (TRACKS, 250)
    with tempfile.TemporaryDirectory() as folder:
        data = by_day(Path(folder) / "day", 1 if quick else 16)
        agents = trained(judge.world, data, Path(folder), quick)
        returns = {
            name: torch.tensor([
                [driven(judge, agent, seed, {**PLAIN, **look}, length) for seed in tracks]
                for look in tqdm(CONDITIONS.values(), desc=name, file=sys.stderr, leave=False)
            ])
            for name, agent in agents.items()
        }  # fmt: skip
    by = {name: dict(zip(CONDITIONS, each.mean(1).tolist(), strict=True))
          for name, each in returns.items()}  # fmt: skip
    gain = returns["drawn"] - returns["day"]
    return {**by, "tracks": len(tracks), "chunks": length,
            "drawn above day": over_tracks(gain),
            "drawn above the clone": over_tracks(returns["drawn"] - returns["clone"])}  # fmt: skip


def by_day(folder: Path, drives: int) -> Dataset:
    """Drives of the training split as the recipe records them, on a clear day on meadows."""
    recipe = scenery()
    plain = {"scenery": dict(PLAIN), "changes": False}
    recipe = replace(recipe, environment=replace(recipe.environment, kwargs=plain))
    jobs = [job for job in recipe.jobs() if job.split == "train"][:drives]
    return recipe.collect(folder, jobs=jobs, workers=1)


def trained(world: DiffusionWorld, data: Dataset, folder: Path, quick: bool) -> dict[str, Any]:
    """The clone, and agents that went on from it, all by their prompts."""
    recipe = RECIPE
    if quick:
        imagination = replace(recipe.imagination, rows=2, horizon=2, minibatch=4)
        cloning = replace(recipe.cloning, steps=4)
        recipe = replace(recipe, iterations=1, cloning=cloning, imagination=imagination)
    dreamt = world if quick else compiled(world)
    agents = {"clone": train_agent(dreamt, data, replace(recipe, iterations=0), folder / "clone")}
    for name, texts in PROMPTS.items():
        told = replace(recipe, imagination=replace(recipe.imagination, text=texts))
        agents[name] = train_agent(dreamt, data, told, folder / name)
    return agents


def over_tracks(gain: Tensor) -> dict[str, float]:
    """Mean gain (conditions, tracks) with its interval over tracks."""
    rows = gain.mean(0)
    return bootstrap(lambda w: weighted_mean(rows, w), torch.arange(len(rows)))._asdict()
