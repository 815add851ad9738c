"""Actions read off video where nobody recorded them, by a model that few labels taught to.

A world that is trained on them has one kind of actions, the environment's own, as if all had been
recorded (VPT, 2206.11795).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from worldsim.core import WorldError
from worldsim.data.dataset import Dataset, Episode
from worldsim.data.view import DatasetView
from worldsim.models.latent_actions import LatentActionModel
from worldsim.train.checkpoint import fingerprint

from .labelling import label_episode
from .reader import Reader, fit_reader, windows_of


class ReadDataset(DatasetView):
    """The `Dataset` with the actions that `model` reads where none are known; see `read_actions`.

    Episodes are read when they are asked for. reader: learned of known actions, None to read by the
    model's own readout.
    """

    def __init__(self, data: Dataset, model: LatentActionModel, reader: Reader | None) -> None:
        super().__init__(data)
        self.model, self.reader = model, reader
        self.spec = replace(data.spec, action=model.config.action)

    def episode(self, index: int) -> Episode:
        """One episode; where the video does not tell, its actions stay unknown."""
        episode = self.data.episode(index)
        latent, confidence = label_episode(episode, self.model)
        actions, known = self.model.actions(latent).numpy(), (confidence > 0).numpy()
        if self.reader is not None:
            first = self.model.config.window - 1
            actions[first:] = self.reader.read(windows_of(self.model, episode)).numpy()
        if episode.actions is not None:
            own = np.ones(len(episode), bool) if episode.known is None else episode.known
            actions[own], known = episode.actions[own], known | own
        return replace(episode, actions=actions, known=known)

    def over(self, data: Dataset) -> ReadDataset:
        """The same view of other data."""
        return ReadDataset(data, self.model, self.reader)

    def fingerprint(self) -> str:
        """Of the recording and of who reads it."""
        reader = self.reader
        seen = "" if reader is None else f"-{len(reader.windows)}-pixels-{reader.width:g}"
        return f"{self.data.fingerprint()}-read-{fingerprint(self.model)}{seen}"


def read_actions(data: Dataset, model: LatentActionModel) -> ReadDataset:
    """The recording with actions read off its video wherever none were recorded.

        lam = worldsim.train_latent_actions(films, labels="labels.csv")
        world = worldsim.train(worldsim.read_actions(films, lam), out="worlds/films")

    Recorded actions stay as they are, and teach how to read the others where there are a hundred of
    them; else the model's own readout reads. Raises WorldError for a model that was trained without
    labels, and for one of other actions or chunks than the recording's.
    """
    read, own = model.config.action, data.spec.action
    if read.kind == "none":
        raise WorldError("model: expected one that was trained with some labels, got one of none")
    if own.kind != "none" and own != read:
        raise WorldError(f"model: expected one that reads {own}, got one of {read}")
    if data.spec.chunk != model.config.chunk:
        raise WorldError(
            f"data: expected chunks of {model.config.chunk} frames, as the model saw, got "
            f"{data.spec.chunk} in {data.spec.name}; open it with that chunk"
        )
    return ReadDataset(data, model, fit_reader(model, data))
