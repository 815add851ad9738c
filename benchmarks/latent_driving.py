"""A driver of CarRacing that was cloned from actions which a model read off the video.

Few actions of the recording are known; the model that they taught reads the others. Beside it one
that was cloned from all recorded actions: the same episodes, network, steps and tracks. Both see
pixels. What is cloned are the episodes with the best scores, which both know. Actions are read
around the car, where the front wheels are seen: the rest of the picture tells little of them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from worldsim.agents.actor_critic import ActorCritic, AgentConfig
from worldsim.agents.cloning import Recorded, cloning_loss, moments, returns_to_go
from worldsim.agents.deploy import RealPolicy
from worldsim.collect.environment import RecordedEnv, make_environment
from worldsim.data.columns import columns_of
from worldsim.data.dataset import Dataset, Episode
from worldsim.data.loader import load_recording
from worldsim.data.view import DatasetView
from worldsim.latent_actions.labels import Labels
from worldsim.latent_actions.reading import read_actions
from worldsim.metrics import bootstrap, weighted_mean
from worldsim.store.folder import load
from worldsim.train.loop import FitConfig, fit

from .latent_actions import MOST, RECORDED, SHARE, Setting
from .latent_worlds import Few, First, reads

AROUND = slice(38, 54), slice(24, 40)
"""Rows and columns of the picture around the car."""
BEST = 0.25
"""Share of the episodes that are cloned, by score."""
CLONING = FitConfig(steps=2000, batch=64, lr=1e-3, ema=0.995, warmup=50)
TRACKS = range(5000, 5020)
CHECKED = 10
"""Validation episodes by which the reading is judged."""


class Around(DatasetView):
    """The recording, of which only the car is seen."""

    def __init__(self, data: Dataset) -> None:
        super().__init__(data)
        rows, columns = AROUND
        self.spec = replace(
            data.spec, frame_shape=(rows.stop - rows.start, columns.stop - columns.start, 3)
        )

    def episode(self, index: int) -> Episode:
        """One episode, its frames cropped."""
        episode = self.data.episode(index)
        return replace(episode, frames=np.array(episode.frames[:])[:, AROUND[0], AROUND[1]])

    def over(self, data: Dataset) -> Dataset:
        """The same view of other data."""
        return Around(data)

    def fingerprint(self) -> str:
        """Of the recording and of what is seen."""
        return f"{self.data.fingerprint()}-around-{AROUND}"


def best(data: Dataset) -> list[int]:
    """Places of the `BEST` episodes of a recording."""
    scores = [np.nansum(columns_of(data.episode(i), data.spec.action).rewards)
              for i in tqdm(range(len(data)), desc="scores", leave=False)]  # fmt: skip
    return np.argsort(scores)[-max(1, round(BEST * len(data))) :].tolist()


def cloned(data: Dataset, read: Dataset, places: list[int], folder: Path) -> ActorCritic:
    """A driver that does as was done in these episodes, as `read` says; resumes in `folder`."""
    recording = load_recording(data, places)
    actions = torch.cat([columns_of(read.episode(i), data.spec.action).actions for i in places])
    seen = Recorded(recording.frames, actions, recording.rewards, recording.windows.lengths)
    torch.manual_seed(0)
    agent = ActorCritic(load("car-racing").spec, AgentConfig(sees="pixels"))
    loss = cloning_loss(seen, moments(seen), returns_to_go(seen, 0.97, 0.02), CLONING.batch)
    made = fit(agent, loss, CLONING, folder, {"read": read.fingerprint()})
    assert isinstance(made, ActorCritic)
    return made.eval()


def drive(agent: ActorCritic, env: RecordedEnv, track: int) -> float:
    """The return of one real episode."""
    policy, total, over = RealPolicy(agent, actions="native"), 0.0, False
    frames, _ = env.reset(seed=track)
    while not over:
        frames, reward, terminated, truncated, _ = env.step(policy(frames))
        total, over = total + float(reward), terminated or truncated
    return total


def driving(setting: Setting) -> dict[str, Any]:
    """Returns of both drivers on the same tracks, and how well actions were read."""
    data = setting.recorded(RECORDED["car-racing"])
    train = First(data.split("train"), MOST["car-racing"])
    seen, few = Around(train), Labels.of(train, SHARE)
    model, _ = setting.model("car-racing-around", seen, SHARE, size=seen.spec.frame_shape[:2])
    read = read_actions(Few(seen, few), model)
    arms = {"all": train, "read": read}
    places = best(train)
    agents = {name: cloned(train, told, places, setting.runs / f"driver-{name}")
              for name, told in arms.items()}  # fmt: skip
    assert data.spec.environment is not None
    env = make_environment(data.spec.environment, observation="chunk", actions="native")
    right = reads(read, Around(First(data.split("val"), CHECKED)))
    row: dict[str, Any] = {"labels": SHARE, "episodes": len(places), "steps": CLONING.steps}
    row["read"] = right
    found = {name: [drive(agent, env, i) for i in tqdm(TRACKS, desc=name)]
             for name, agent in agents.items()}  # fmt: skip
    driven: dict[str, Any] = {name: interval(x) | {"returns": x} for name, x in found.items()}
    row["test"] = driven | {"ratio": over(found["read"], found["all"])}
    env.close()
    return row


def interval(values: list[float]) -> dict[str, float]:
    """The mean with its interval over tracks."""
    known = torch.tensor(values)
    return bootstrap(lambda w: weighted_mean(known, w), torch.arange(len(known)))._asdict()


def over(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Mean return of ours over that of theirs on the same tracks, with its interval."""
    own, other = torch.tensor(ours), torch.tensor(theirs)

    def figure(weights: Tensor) -> Tensor:
        return weighted_mean(own, weights) / weighted_mean(other, weights)

    return bootstrap(figure, torch.arange(len(own)))._asdict()
