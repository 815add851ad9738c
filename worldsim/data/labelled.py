"""A recording beside latent actions that were inferred of it: a file of labels, and a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256

import torch
from torch import Tensor

from worldsim.config import short
from worldsim.core import ActionSpec, WorldError

from .dataset import Dataset, Episode
from .latents import LatentRecording
from .view import DatasetView

MOST_WIDTH = 4096  # numbers of a latent action


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

    def __post_init__(self) -> None:
        """Raise WorldError for others than so many numbers a chunk, and how sure each is."""
        if type(self.width) is not int or not 0 < self.width <= MOST_WIDTH:
            got = short(self.width)
            raise WorldError(f"labels: expected a width from 1 to {MOST_WIDTH}, got {got}")
        for name in self.latent.keys() | self.confidence.keys():
            latent, sure = self.latent.get(name), self.confidence.get(name)
            if latent is None or sure is None or not self._fits(latent, sure):
                raise WorldError(
                    f"labels: expected float32 (n, {self.width}) and (n,) of {short(name)}, got "
                    f"{_told(latent)} and {_told(sure)}"
                )

    def _fits(self, latent: Tensor, sure: Tensor) -> bool:
        shapes = sure.ndim == 1 and latent.shape == (len(sure), self.width)
        return shapes and latent.dtype == sure.dtype == torch.float32

    def check(self, data: Dataset) -> None:
        """Raise WorldError unless every episode has as many labels as chunks."""
        for name, length in zip(data.names, data.lengths, strict=True):
            got = len(self.latent[name]) if name in self.latent else "none"
            if got != length:
                raise WorldError(
                    f"labels: expected {length} of {name!r} in {data.spec.name}, got {got}; label "
                    "this recording: worldsim label"
                )


def _told(x: Tensor | None) -> str:
    return "none" if x is None else f"{x.dtype} {tuple(x.shape)}"


class LabelledDataset(DatasetView):
    """The `Dataset` with latent actions beside it; episodes are as they were.

    Attributes: labels, and `width` L of each.
    """

    def __init__(self, data: Dataset, labels: LatentLabels) -> None:
        labels.check(data)
        super().__init__(data)
        self.labels, self.width = labels, labels.width

    def over(self, data: Dataset) -> Dataset:
        """The same view of other data."""
        return LabelledDataset(data, self.labels)

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

    def over(self, data: Dataset) -> Dataset:
        """The same view of other data."""
        return CodedDataset(data, self.labels, self.spec.action, self.book)

    def fingerprint(self) -> str:
        """Of the recording, the labels, and what they are made to: its actions are others."""
        book = b"" if self.book is None else self.book.contiguous().numpy().tobytes()
        whole = sha256(super().fingerprint().encode() + repr(self.spec.action).encode() + book)
        return whole.hexdigest()


def latent_width(data: Dataset) -> int:
    """Numbers of a latent action that this recording is labelled with, 0 without."""
    return data.width if isinstance(data, LabelledDataset) else 0
