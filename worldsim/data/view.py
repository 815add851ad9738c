"""A dataset seen otherwise: with something beside it, or without something that it has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

from worldsim.core import ActionSpec

from .dataset import Dataset, DatasetSpec, Episode


class DatasetView(ABC):
    """A `Dataset` made of another; a subclass says what is different.

    Attributes: `data`, the other one, and those of the `Dataset` protocol.
    """

    def __init__(self, data: Dataset) -> None:
        self.data = data
        self.spec: DatasetSpec = data.spec
        self.names: Sequence[str] = data.names
        self.lengths: Sequence[int] = data.lengths
        self.splits: Sequence[str] = data.splits

    def __len__(self) -> int:
        return len(self.data)

    def episode(self, index: int) -> Episode:
        """One episode."""
        return self.data.episode(index)

    def split(self, name: str) -> Dataset:
        """The episodes of one split."""
        return self.over(self.data.split(name))

    @abstractmethod
    def over(self, data: Dataset) -> Dataset:
        """The same view of other data."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Of the other's content, and of what is different."""


class WithoutActions(DatasetView):
    """Video that tells nothing of what was done."""

    def __init__(self, data: Dataset) -> None:
        super().__init__(data)
        self.spec = replace(data.spec, action=ActionSpec(kind="none"))

    def episode(self, index: int) -> Episode:
        """One episode without its actions."""
        return replace(self.data.episode(index), actions=None, known=None)

    def over(self, data: Dataset) -> Dataset:
        """The same view of other data."""
        return WithoutActions(data)

    def fingerprint(self) -> str:
        """Of the recording, marked."""
        return sha256(f"{self.data.fingerprint()} without actions".encode()).hexdigest()


class WithoutStates(DatasetView):
    """A recording without its state vectors, for a world that is to know pixels alone."""

    def __init__(self, data: Dataset) -> None:
        super().__init__(data)
        self.spec = replace(data.spec, state=())

    def episode(self, index: int) -> Episode:
        """One episode without its states."""
        return replace(self.data.episode(index), state=None)

    def over(self, data: Dataset) -> Dataset:
        """The same view of other data."""
        return WithoutStates(data)

    def fingerprint(self) -> str:
        """Of the recording, marked."""
        return sha256(f"{self.data.fingerprint()} without states".encode()).hexdigest()


class OfLength(DatasetView):
    """The episodes of at least `least` chunks and fewer than `below`, any number if None."""

    def __init__(self, data: Dataset, least: int, below: int | None = None) -> None:
        super().__init__(data)
        self.least, self.below = least, below
        most = float("inf") if below is None else below
        self.places = [i for i, n in enumerate(data.lengths) if least <= n < most]
        self.names = [data.names[i] for i in self.places]
        self.lengths = [data.lengths[i] for i in self.places]
        held = set(self.names)
        if len(data.splits) > 1:
            self.splits = [s for s in data.splits if held & set(data.split(s).names)]

    def __len__(self) -> int:
        return len(self.places)

    def episode(self, index: int) -> Episode:
        """One of these episodes."""
        return self.data.episode(self.places[index])

    def over(self, data: Dataset) -> Dataset:
        """Those of other data."""
        return OfLength(data, self.least, self.below)

    def fingerprint(self) -> str:
        """Of the recording, and which episodes count."""
        told = f"{self.data.fingerprint()} of {self.least} to {self.below} chunks"
        return sha256(told.encode()).hexdigest()
