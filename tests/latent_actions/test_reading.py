"""Actions are read off the whole window where enough are known, by the readout where not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.latent_actions.pushes import pushes
from worldsim.core import ActionSpec
from worldsim.data.columns import columns_of
from worldsim.data.dataset import Dataset, Episode
from worldsim.data.view import DatasetView, WithoutActions
from worldsim.latent_actions.measures import as_numbers, explained
from worldsim.latent_actions.reading import ReadDataset, read_actions
from worldsim.latent_actions.training import train_latent_actions
from worldsim.models.latent_actions import LatentActionModel

TURNS = ActionSpec(kind="discrete", n=2)


class Partly(DatasetView):
    """The first episodes of a recording with their actions, the others without."""

    def __init__(self, data: Dataset, labelled: int) -> None:
        super().__init__(data)
        self.labelled = labelled

    def episode(self, index: int) -> Episode:
        """One episode, with or without its actions."""
        episode = self.data.episode(index)
        return episode if index < self.labelled else replace(episode, actions=None, known=None)

    def over(self, data: Dataset) -> Dataset:
        """The same view of other data."""
        return Partly(data, self.labelled)

    def fingerprint(self) -> str:
        """Of the recording and how much is labelled."""
        return f"{self.data.fingerprint()}-{self.labelled}"


def right(read: ReadDataset, data: Dataset) -> float:
    """R^2 of the actions that are read in other episodes."""
    spec, said = data.spec.action, read.over(WithoutActions(data))
    ours, real = [], []
    for i in range(len(data)):
        columns = columns_of(said.episode(i), spec)
        ours.append(as_numbers(spec, columns.actions[columns.known]))
        real.append(as_numbers(spec, columns_of(data.episode(i), spec).actions[columns.known]))
    return float(explained(torch.cat(ours), torch.cat(real)).mean())


def barely_trained(films: Dataset) -> LatentActionModel:
    """A model whose readout has learned next to nothing yet."""
    return train_latent_actions(films, 1.0, steps=3)


@pytest.mark.parametrize("action", [None, TURNS])
def test_known_actions_teach_to_read_the_others(action: ActionSpec | None) -> None:
    films = pushes() if action is None else pushes(action)
    train, test = films.split("train"), films.split("test")
    read = read_actions(Partly(train, 6), barely_trained(films))
    assert read.reader is not None and len(read.reader.windows) == 6 * 23
    assert right(read, test) > 0.8 > right(ReadDataset(train, read.model, None), test)
    own = columns_of(train.episode(0), films.spec.action).actions
    assert torch.equal(columns_of(read.episode(0), films.spec.action).actions, own)
    assert read.fingerprint() != ReadDataset(read.data, read.model, None).fingerprint()


def test_few_known_actions_are_left_to_the_readout() -> None:
    films = pushes()
    read = read_actions(Partly(films.split("train"), 2), barely_trained(films))
    assert read.reader is None
    latent = read.model.infer(
        torch.from_numpy(np.array(films.split("test").episode(0).frames))[None]
    )
    said = read.over(WithoutActions(films.split("test"))).episode(0).actions
    assert said is not None
    np.testing.assert_allclose(
        said[1:], read.model.actions(latent.latent[0])[1:].numpy(), atol=1e-5
    )
