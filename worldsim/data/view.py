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
