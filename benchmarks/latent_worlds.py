"""Worlds of a recording that is labelled in full, in part, or not at all, on Pendulum.

All have the autoencoder of the bundled world and the same number of steps, and differ only in what
they were told of actions. Errors are those of frames dreamt from held clips under recorded actions,
by worlds of so short a recording that a tenth of it is too little; planners and agents are of
worlds of the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldsim.agents.actor_critic import AgentConfig, DreamPolicy
from worldsim.agents.planners import PlanningPolicy
from worldsim.agents.settings import ImaginationConfig
from worldsim.agents.training import AgentTrainingConfig, train_agent
from worldsim.data.columns import columns_of
from worldsim.data.dataset import Dataset, DatasetSpec, Episode
from worldsim.data.labelled import LabelledDataset
from worldsim.data.view import DatasetView, WithoutActions
from worldsim.evaluate.clips import Clips, even_clips
from worldsim.evaluate.horizon import dream, persistence
from worldsim.latent_actions.labelling import label
from worldsim.latent_actions.labels import Labels
from worldsim.latent_actions.mapping import map_actions
from worldsim.latent_actions.measures import as_numbers, explained
from worldsim.latent_actions.reading import ReadDataset, read_actions
from worldsim.metrics import bootstrap, weighted_mean
from worldsim.models.latent_actions import LatentActionModel
from worldsim.presets import sizes_of
from worldsim.store.folder import load
from worldsim.train.begin import keep_vae
from worldsim.train.checks import fit_to_data
from worldsim.train.dynamics import train_dynamics
from worldsim.train.final import finish, load_final
from worldsim.train.recipe import (
    QUICK,
    latents_of,
    new_dynamics,
    start_clips,
    world_of,
    world_spec,
)
from worldsim.world.compiled import compiled
from worldsim.world.diffusion import DiffusionWorld, Sampling
from worldsim.world.fixed_batch import FixedBatch

from .latent_actions import SHARE, Setting
from .pendulum import GROUP, SEARCH, Act, blind, play, thoughtful

TENTH = 10  # of the episodes one is labelled
EPISODES = 40  # that worlds see: so few that a tenth of them is too little
HORIZON = 8
STARTS = 6  # clips of each test episode
ROWS = 128
BATCH = 8  # clips
SAMPLING = Sampling(method="euler", num_steps=2)
PLAYED = range(5000, 5020)  # episodes of the real pendulum, by their seeds
TOLD = ("all", "video, mapped")


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


class First(DatasetView):
    """The first episodes of a split, as a recording of their own."""

    def __init__(self, data: Dataset, count: int) -> None:
        super().__init__(data)
        self.names, self.lengths = list(data.names[:count]), list(data.lengths[:count])
        self.splits = ("train",)

    def __len__(self) -> int:
        return len(self.names)

    def split(self, name: str) -> Dataset:
        """It is all for training."""
        return self

    def over(self, data: Dataset) -> Dataset:
        """The same view of other data."""
        return First(data, len(self))

    def fingerprint(self) -> str:
        """Of the recording and how much of it."""
        return f"{self.data.fingerprint()}-first-{len(self)}"


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
    keep_vae(base, run)
    model = new_dynamics(data, sizes)
    if not (run / "forced" / "final.safetensors").exists():
        fit = replace(recipe.forced.fit, steps=setting.world_steps, batch=BATCH)
        training = replace(recipe.forced, fit=fit)
        latents = latents_of(data, "train", sizes, run)
        made = train_dynamics(latents, model, sizes.context, training, run / "forced")
        finish(made, run / "forced")
    load_final(model, run / "forced")
    spec = world_spec(data, sizes, name, 100)
    starts = start_clips(data, sizes.context, 4)
    return world_of(spec, sizes, base.vae, model, SAMPLING, starts, data.spec.environment)


def held_clips(data: Dataset, split: str, context: int) -> Clips:
    """Clips spread over every episode of a split."""
    return even_clips(data.split(split), context, HORIZON, STARTS)


def error(world: DiffusionWorld, clips: Clips) -> Tensor:
    """Mean squared error of frames over the horizon, of each clip, (N,)."""
    return dream(world, clips, clips.actions, ROWS, lambda _: None).mse.mean(1)


def ratio(ours: Tensor, theirs: Tensor, clips: Clips) -> dict[str, float]:
    """Error of ours over theirs with its interval over episodes."""

    def figure(weights: Tensor) -> Tensor:
        return weighted_mean(ours, weights) / weighted_mean(theirs, weights)

    return bootstrap(figure, clips.cluster)._asdict()


ARMS = ("all", "tenth", "read")


def arm(setting: Setting, name: str) -> DiffusionWorld:
    """A world of the first `EPISODES` by what it was told.

    "all" actions; those of a "tenth" of the episodes and of no others; "read": these, and of the
    others what a model reads that was trained with them; "video, mapped": latent actions alone,
    stepped by real ones, which the few labels map that their model was trained with.
    """
    whole = setting.recorded("pendulum")
    train = First(whole.split("train"), EPISODES)
    if name == "all":
        return trained(setting, name, Part(train, 1))
    if name == "tenth":
        return trained(setting, name, Part(train, TENTH, alone=True))
    if name == "read":
        return trained(setting, name, read_part(setting))
    model, _ = setting.model("pendulum-labels", whole, SHARE)
    world = trained(setting, "video", LabelledDataset(Part(train, 0), label(train, model)))
    every = whole.split("train")
    return mapped(world, model, Few(every, Labels.of(every, SHARE)))


def read_part(setting: Setting) -> ReadDataset:
    """The first `EPISODES`, a tenth with its actions and the others with those that are read."""
    part = Part(First(setting.recorded("pendulum").split("train"), EPISODES), TENTH)
    model, _ = setting.model("pendulum-tenth", part, 1.0)
    return read_actions(part, model)


def reads(read: ReadDataset, data: Dataset) -> list[float]:
    """R² of each entry of the actions that are read in other episodes."""
    spec, said = data.spec.action, read.over(WithoutActions(data))
    both = [(columns_of(said.episode(i), spec), columns_of(data.episode(i), spec))
            for i in range(len(data))]  # fmt: skip
    ours, real = (
        as_numbers(spec, torch.cat([pair[k].actions[pair[0].known] for pair in both]))
        for k in (0, 1)
    )
    return explained(ours, real).tolist()


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
    data, made = setting.recorded("pendulum"), {name: arm(setting, name) for name in ARMS}
    read = read_part(setting)
    row: dict[str, Any] = {
        "steps": setting.world_steps, "episodes": EPISODES, "labelled": EPISODES // TENTH,
        "horizon": HORIZON,
    }  # fmt: skip
    for split in ("val", "test"):
        clips = held_clips(data, split, made["all"].spec.context)
        errors = {name: error(world, clips) for name, world in made.items()}
        row[split] = {
            "clips": len(clips),
            "worlds": {
                name: {
                    "mse": float(mse.mean()),
                    "to_all": ratio(mse, errors["all"], clips),
                    "to_tenth": ratio(mse, errors["tenth"], clips),
                }
                for name, mse in errors.items()
            },
            "still": float(persistence(clips).mean(1).mean()),
            "read": reads(read, data.split(split)),
        }
    return row


def planner(setting: Setting) -> dict[str, Any]:
    """Returns of the same planner in the worlds of all actions and of video with few labels."""
    data = setting.recorded("pendulum")
    environment = data.spec.environment
    assert environment is not None
    found = {"random": play(blind(), environment, 2, name="random", seeds=PLAYED)}
    for name in TOLD:
        world = arm(setting, name)
        found[name] = play(planning(world), environment, world.spec.context, name=name,
                           seeds=PLAYED)  # fmt: skip
    return {"episodes": len(PLAYED), "steps": setting.world_steps, **found, **gaps(found)}


def planning(world: DiffusionWorld) -> Act:
    """The planner of the Pendulum table in this world, with less of a search."""
    search = replace(SEARCH, candidates=24, elites=5, horizon=12)
    think = PlanningPolicy(
        FixedBatch(compiled(world), GROUP), search, torch.Generator().manual_seed(0)
    )
    return thoughtful(world, think)


def gaps(found: dict[str, Any]) -> dict[str, Any]:
    """Returns above those of all actions, in the same episodes."""
    return {f"gap of {name}": difference(found[name], found["all"]) for name in TOLD[1:]}


DREAMS = AgentTrainingConfig(
    agent=AgentConfig(spread=0.45), best=1.0, iterations=120, lr=7e-4,
    imagination=ImaginationConfig(scale=0.02, gamma=0.97, entropy=1e-3),
)  # fmt: skip
"""As the agents of the bundled world were trained (docs/reference/worlds/pendulum.md)."""


def agents(setting: Setting) -> dict[str, Any]:
    """Real returns of agents that learned from nothing in the dreams of the same worlds; those of
    mapped video begin in states whose actions are not known."""
    data = setting.recorded("pendulum")
    train, environment = First(data.split("train"), EPISODES), data.spec.environment
    assert environment is not None
    recipe = replace(DREAMS, iterations=setting.iterations)
    found: dict[str, Any] = {"iterations": setting.iterations, "steps": setting.world_steps}
    for name in TOLD:
        world = arm(setting, name)
        run = setting.runs / f"agent-{name.replace(', ', '-')}"
        begun = Part(train, 1 if name == "all" else 0)
        act = DreamPolicy(world, train_agent(world, begun, recipe, run / "seed-0"))
        found[name] = play(
            thoughtful(world, act), environment, world.spec.context, name=name, seeds=PLAYED
        )
    return found | gaps(found)


def difference(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    """Returns of ours above theirs in the same episodes, with the interval over these."""
    gap = torch.tensor(ours["returns"]) - torch.tensor(theirs["returns"])
    return bootstrap(lambda w: weighted_mean(gap, w), torch.arange(len(gap)))._asdict()
