"""Worlds of a recording that is labelled in full, in part, or not at all, on Pendulum.

All have the autoencoder of the bundled world and the same number of steps, and differ only in what
they were told of actions. Their error is that of frames dreamt from test clips under recorded
actions; a planner swings the real pendulum with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldsim.agents.actor_critic import AgentConfig, DreamPolicy
from worldsim.agents.planners import CEM, PlanningPolicy
from worldsim.agents.settings import ImaginationConfig
from worldsim.agents.training import AgentTrainingConfig, train_agent
from worldsim.data.dataset import Dataset, DatasetSpec, Episode
from worldsim.data.labelled import LabelledDataset
from worldsim.data.view import DatasetView
from worldsim.evaluate.clips import Clips, even_clips
from worldsim.evaluate.horizon import dream, persistence
from worldsim.latent_actions.labelling import label
from worldsim.latent_actions.labels import Labels
from worldsim.latent_actions.mapping import map_actions
from worldsim.metrics import bootstrap, weighted_mean
from worldsim.models.latent_actions import LatentActionModel
from worldsim.presets import sizes_of
from worldsim.store.folder import load
from worldsim.store.tensors import save_tensors
from worldsim.train.checks import fit_to_data
from worldsim.train.dynamics import train_dynamics
from worldsim.train.recipe import (
    QUICK,
    finish,
    latents_of,
    load_final,
    new_dynamics,
    start_clips,
    world_of,
    world_spec,
)
from worldsim.world.diffusion import DiffusionWorld, Sampling

from .latent_actions import SHARE, Setting
from .pendulum import SEARCH, blind, play, thoughtful

TENTH = 10  # of the episodes one is labelled
HORIZON = 8
STARTS = 6  # clips of each test episode
ROWS = 128
SAMPLING = Sampling(method="euler", num_steps=2)
PLAYED = range(5000, 5020)  # episodes of the real pendulum, by their seeds


class Part:
    """Some episodes of a recording, some without their actions.

    every: one of so many episodes is labelled. alone: whether the others are left out.
    """

    def __init__(self, data: Dataset, every: int, *, alone: bool = False) -> None:
        self.data, self.every, self.alone = data, every, alone
        step = every if alone and every else 1
        self.places = list(range(0, len(data), step))
        self.spec: DatasetSpec = data.spec
        self.names: Sequence[str] = [data.names[i] for i in self.places]
        self.lengths: Sequence[int] = [data.lengths[i] for i in self.places]
        self.splits: Sequence[str] = ("train",)

    def __len__(self) -> int:
        return len(self.places)

    def episode(self, index: int) -> Episode:
        """One episode, with or without its actions."""
        place = self.places[index]
        episode = self.data.episode(place)
        if self.every and place % self.every == 0:
            return episode
        return replace(episode, actions=None, known=None)

    def split(self, name: str) -> Part:
        """It is all for training."""
        return self

    def fingerprint(self) -> str:
        """Of the recording and the part."""
        return f"{self.data.fingerprint()}-{self.every}-{self.alone}"


class Few(DatasetView):
    """The recording with the actions of some chunks alone."""

    def __init__(self, data: Dataset, labels: Labels) -> None:
        super().__init__(data)
        self.rows = labels.rows

    def episode(self, index: int) -> Episode:
        """One episode, with the actions that are labelled."""
        episode = self.data.episode(index)
        known = np.zeros(len(episode), bool)
        if episode.name in self.rows:
            known[self.rows[episode.name][0]] = True
        return replace(episode, known=known)

    def over(self, data: Dataset) -> Dataset:
        """The same view of other data."""
        return Few(data, Labels(data.spec.action, self.rows))

    def fingerprint(self) -> str:
        """Of the recording and how many are labelled."""
        return f"{self.data.fingerprint()}-{sum(len(x) for x, _ in self.rows.values())}"


def trained(setting: Setting, name: str, data: Dataset) -> DiffusionWorld:
    """A world of this part of the recording; trained where it is not there yet."""
    run, base = setting.runs / f"world-{name}", load("pendulum")
    sizes, recipe = fit_to_data(data, sizes_of("tiny"), QUICK)
    sizes = replace(sizes, vae=base.config.vae)
    (run / "vae").mkdir(parents=True, exist_ok=True)
    save_tensors(run / "vae" / "final.safetensors", base.vae.state_dict())
    model = new_dynamics(data, sizes)
    if not (run / "forced" / "final.safetensors").exists():
        fit = replace(recipe.forced.fit, steps=setting.world_steps)
        training = replace(recipe.forced, fit=fit, compile=False)
        latents = latents_of(data, "train", sizes, run)
        made = train_dynamics(latents, model, sizes.context, training, run / "forced")
        finish(made, run / "forced")
    load_final(model, run / "forced")
    spec = world_spec(data, sizes, name, 100)
    starts = start_clips(data, sizes.context, 4)
    return world_of(spec, sizes, base.vae, model, SAMPLING, starts, data.spec.environment)


def test_clips(data: Dataset, context: int) -> Clips:
    """Clips spread over every test episode."""
    return even_clips(data.split("test"), context, HORIZON, STARTS)


def error(world: DiffusionWorld, clips: Clips) -> Tensor:
    """Mean squared error of frames over the horizon, of each clip, (N,)."""
    return dream(world, clips, clips.actions, ROWS, lambda _: None).mse.mean(1)


def ratio(ours: Tensor, theirs: Tensor, clips: Clips) -> dict[str, float]:
    """Error of ours over theirs with its interval over episodes."""

    def figure(weights: Tensor) -> Tensor:
        return weighted_mean(ours, weights) / weighted_mean(theirs, weights)

    return bootstrap(figure, clips.cluster)._asdict()


def arm(setting: Setting, name: str) -> DiffusionWorld:
    """A world by what it was told: "all" actions, those of a "tenth" of the episodes and of no
    others, "mixed": these and latent actions of all, "video": latent actions alone; "NAME, mapped"
    is stepped by real actions through latent ones, mapped by those that are known."""
    data = setting.recorded("pendulum")
    train = data.split("train")
    model, _ = setting.model("pendulum-labels", data, SHARE)
    kind, _, through = name.partition(", ")
    if through:
        few = Few(train, Labels.of(train, SHARE))  # those that the model was trained with
        known = few if kind == "video" else Part(train, TENTH, alone=True)
        return mapped(arm(setting, kind), model, known)
    told = {
        "all": Part(train, 1),
        "tenth": Part(train, TENTH, alone=True),
        "mixed": Part(train, TENTH),
        "video": Part(train, 0),
    }[kind]
    inferred = kind in ("mixed", "video")
    return trained(setting, kind, LabelledDataset(told, label(train, model)) if inferred else told)


def mapped(
    world: DiffusionWorld, model: LatentActionModel, labelled: Dataset, count: int | None = None
) -> DiffusionWorld:
    """The world stepped by real actions through their latent ones."""
    config = replace(world.config, latent_actions=model.config)
    inferring = DiffusionWorld(config, world.vae, world.dynamics, world.starts,
                               latent_actions=model)  # fmt: skip
    return map_actions(inferring, labelled, count=count, card=False)


def worlds(setting: Setting) -> dict[str, Any]:
    """Errors of all arms, and ratios to the fully labelled one and to the tenth alone."""
    made = {name: arm(setting, name) for name in ("all", "tenth", "mixed", "mixed, mapped")}
    clips = test_clips(setting.recorded("pendulum"), made["all"].spec.context)
    errors = {name: error(world, clips) for name, world in made.items()}
    found: dict[str, Any] = {
        name: {
            "mse": float(mse.mean()),
            "to_all": ratio(mse, errors["all"], clips),
            "to_tenth": ratio(mse, errors["tenth"], clips),
        }
        for name, mse in errors.items()
    }
    still = persistence(clips).mean(1)
    return {
        "steps": setting.world_steps, "clips": len(clips), "horizon": HORIZON, "worlds": found,
        "still": {"mse": float(still.mean())},
    }  # fmt: skip


def planner(setting: Setting) -> dict[str, Any]:
    """Returns of the same planner in the worlds of all actions and of video with few labels."""
    data = setting.recorded("pendulum")
    environment = data.spec.environment
    assert environment is not None
    found = {"random": play(blind(), environment, 2, name="random", seeds=PLAYED)}
    for name in ("all", "tenth", "video, mapped"):
        world = arm(setting, name)
        think = PlanningPolicy(world, search(), torch.Generator().manual_seed(0))
        act, context = thoughtful(world, think), world.spec.context
        found[name] = play(act, environment, context, name=name, seeds=PLAYED)
    gap = difference(found["video, mapped"], found["all"])
    return {"episodes": len(PLAYED), **found, "gap": gap}


DREAMS = AgentTrainingConfig(
    agent=AgentConfig(spread=0.45), best=1.0, iterations=120, lr=7e-4,
    imagination=ImaginationConfig(scale=0.02, gamma=0.97, entropy=1e-3),
)  # fmt: skip
"""As the agents of the bundled world were trained (docs/reference/worlds/pendulum.md)."""


def agents(setting: Setting) -> dict[str, Any]:
    """Real returns of agents that learned from nothing in the dreams of the same two worlds; those
    of video begin in states whose actions are not known."""
    data = setting.recorded("pendulum")
    train, environment = data.split("train"), data.spec.environment
    assert environment is not None
    recipe = replace(DREAMS, iterations=setting.iterations)
    found: dict[str, Any] = {"iterations": setting.iterations}
    for name, begun in (("all", Part(train, 1)), ("video, mapped", Part(train, 0))):
        world = arm(setting, name)
        run = setting.runs / f"agent-{name.split(',')[0]}"
        act = DreamPolicy(world, train_agent(world, begun, recipe, run / "seed-0"))
        found[name] = play(
            thoughtful(world, act), environment, world.spec.context, name=name, seeds=PLAYED
        )
    return found | {"gap": difference(found["video, mapped"], found["all"])}


def difference(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    """Returns of ours above theirs in the same episodes, with the interval over these."""
    gap = torch.tensor(ours["returns"]) - torch.tensor(theirs["returns"])
    return bootstrap(lambda w: weighted_mean(gap, w), torch.arange(len(gap)))._asdict()


def search() -> CEM:
    """The planner of the Pendulum table, with less of a search."""
    return replace(SEARCH, candidates=24, elites=5, horizon=12)
