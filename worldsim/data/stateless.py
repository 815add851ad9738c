"""A dataset as if it had been recorded without state vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .dataset import Dataset, DatasetSpec, Episode


class Stateless:
    """`data` without its state vectors, for a world that is to know pixels alone."""

    def __init__(self, data: Dataset) -> None:
        self._data = data

    @property
    def spec(self) -> DatasetSpec:
        """What holds for every episode."""
        return replace(self._data.spec, state=())

    @property
    def names(self) -> Sequence[str]:
        """Identity of each episode."""
        return self._data.names

    @property
    def lengths(self) -> Sequence[int]:
        """Chunks of each episode."""
        return self._data.lengths

    @property
    def splits(self) -> Sequence[str]:
        """Names of the splits."""
        return self._data.splits

    def __len__(self) -> int:
        return len(self._data)

    def episode(self, index: int) -> Episode:
        """One episode."""
        return replace(self._data.episode(index), state=None)

    def split(self, name: str) -> Dataset:
        """The episodes of one split."""
        return Stateless(self._data.split(name))

    def fingerprint(self) -> str:
        """Of the content."""
        return f"{self._data.fingerprint()}-stateless"
