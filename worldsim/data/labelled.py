"""A recording beside latent actions that were inferred of it: a file of labels, and a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import torch
from torch import Tensor

from worldsim.core import ActionSpec, WorldError

from .dataset import Dataset, DatasetSpec, Episode
from .latents import LatentRecording


@dataclass(frozen=True)
class LatentLabels:
    """Latent actions of every chunk of some episodes, and how sure they are.

    Attributes:
        width: numbers L of each.
        latent: for an episode's name (N, L) float32. confidence: (N,) from 0 to 1; what has 0 is
            not known, as an episode's first chunks.
    """

    width: int
    latent: Mapping[str, Tensor]
    confidence: Mapping[str, Tensor]

    def check(self, data: Dataset) -> None:
        """Raise WorldError unless every episode has as many labels as chunks."""
        for name, length in zip(data.names, data.lengths, strict=True):
            got = len(self.latent[name]) if name in self.latent else "none"
            if got != length:
                raise WorldError(
                    f"labels: expected {length} of {name!r} in {data.spec.name}, got {got}; label "
                    "this recording: worldsim label"
                )


class LabelledDataset:
    """The `Dataset` with latent actions beside it; episodes are as they were.

    Attributes: labels, and `width` L of each.
    """

    def __init__(self, data: Dataset, labels: LatentLabels) -> None:
        labels.check(data)
        self.data, self.labels, self.width = data, labels, labels.width
        self.spec: DatasetSpec = data.spec
        self.names: Sequence[str] = data.names
        self.lengths: Sequence[int] = data.lengths
        self.splits: Sequence[str] = data.splits

    def __len__(self) -> int:
        return len(self.data)

    def episode(self, index: int) -> Episode:
        """One episode."""
        return self.data.episode(index)

    def split(self, name: str) -> LabelledDataset:
        """The episodes of one split."""
        return LabelledDataset(self.data.split(name), self.labels)

    def fingerprint(self) -> str:
        """Of the recording and the labels."""
        whole = sha256(self.data.fingerprint().encode())
        for name in self.names:
            whole.update(self.labels.latent[name].contiguous().numpy().data)
        return whole.hexdigest()

    def beside(self, recording: LatentRecording) -> LatentRecording:
        """The recording's latents with the labels of its chunks."""
        latent = torch.cat([self.labels.latent[name] for name in self.names])
        sure = torch.cat([self.labels.confidence[name] for name in self.names])
        return replace(recording, latent_actions=latent, latent_known=sure > 0)


class CodedDataset(LabelledDataset):
    """The same with the latent actions in place of the recorded ones, as a world that is stepped by
    them has them: numbers of codes, or a box of latents.

    action: `of_codes`' or a box. numbers: (N, L) -> actions (N, *action).
    """

    def __init__(
        self, data: Dataset, labels: LatentLabels, action: ActionSpec, book: Tensor | None
    ):
        super().__init__(data, labels)
        self.spec, self.book = replace(data.spec, action=action), book

    def episode(self, index: int) -> Episode:
        """One episode under its latent actions."""
        episode, name = self.data.episode(index), self.names[index]
        latent, known = self.labels.latent[name], self.labels.confidence[name] > 0
        if self.book is not None:
            actions = torch.cdist(latent, self.book).argmin(-1)
        else:
            low, high = (torch.tensor(x) for x in (self.spec.action.low, self.spec.action.high))
            actions = latent.clamp(low, high)
        return replace(episode, actions=actions.numpy(), known=known.numpy())

    def split(self, name: str) -> CodedDataset:
        """The episodes of one split."""
        return CodedDataset(self.data.split(name), self.labels, self.spec.action, self.book)


class WithoutActions:
    """The `Dataset` as video that tells nothing of what was done."""

    def __init__(self, data: Dataset) -> None:
        self.data = data
        self.spec: DatasetSpec = replace(data.spec, action=ActionSpec(kind="none"))
        self.names: Sequence[str] = data.names
        self.lengths: Sequence[int] = data.lengths
        self.splits: Sequence[str] = data.splits

    def __len__(self) -> int:
        return len(self.data)

    def episode(self, index: int) -> Episode:
        """One episode without its actions."""
        return replace(self.data.episode(index), actions=None, known=None)

    def split(self, name: str) -> WithoutActions:
        """The episodes of one split."""
        return WithoutActions(self.data.split(name))

    def fingerprint(self) -> str:
        """Of the recording, marked."""
        return sha256(f"{self.data.fingerprint()} without actions".encode()).hexdigest()


def latent_width(data: Dataset) -> int:
    """Numbers of a latent action that this recording is labelled with, 0 without."""
    return data.width if isinstance(data, LabelledDataset) else 0
