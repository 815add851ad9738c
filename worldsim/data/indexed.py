"""What readers of other people's formats share: splits by name, checked episodes, fitted frames."""

from __future__ import annotations

import copy
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from worldsim.config import to_json
from worldsim.errors import printable
from worldsim.files import open_plain

from .dataset import MULTIPLE, DatasetSpec, Episode, Frames, repeated, splits_of, unfit
from .episode import check_episode
from .resize import area_resize

PIECE = 2**24
"""Numbers of a source's frames that are resized at a time, about."""


class IndexedDataset(ABC):
    """A `Dataset` of numbered episodes that come without splits.

    Args:
        spec: of all episodes.
        names, lengths: of each episode, lengths in chunks.
    """

    def __init__(self, spec: DatasetSpec, names: Sequence[str], lengths: Sequence[int]) -> None:
        if not names:
            raise unfit(spec.name, "episodes", "at least one", "none", "give another folder")
        if (twice := repeated(names)) is not None:
            raise unfit(spec.name, "episodes", "each once", f"{twice} twice", "take one out")
        self.spec, self._names, self._lengths = spec, tuple(names), tuple(lengths)
        self._splits = splits_of(self._names)
        self._places: Sequence[int] = range(len(names))
        self._only: str | None = None

    @abstractmethod
    def _read(self, place: int) -> Episode:
        """One episode by its number among all."""

    @abstractmethod
    def _key(self, place: int) -> str:
        """What an episode's content is told by."""

    def __len__(self) -> int:
        return len(self._places)

    @property
    def names(self) -> Sequence[str]:
        """Identity of each episode."""
        return [self._names[i] for i in self._places]

    @property
    def lengths(self) -> Sequence[int]:
        """Chunks of each episode."""
        return [self._lengths[i] for i in self._places]

    @property
    def splits(self) -> Sequence[str]:
        """Those that hold an episode."""
        return [self._only] if self._only else list(self._splits)

    def episode(self, index: int) -> Episode:
        """One episode; raises DatasetError where it is damaged or does not fit."""
        episode = self._read(self._places[index])
        return check_episode(episode, self.spec, f"{self.spec.name}: {episode.name}")

    def split(self, name: str) -> Self:
        """The episodes of one split."""
        if name not in self.splits:
            expected = f"one of {list(self.splits)}"
            remedy = "add episodes: their names decide which split they are in"
            raise unfit(self.spec.name, "split", expected, repr(name), remedy)
        if self._only:
            return self
        part = copy.copy(self)
        part._places, part._only = self._splits[name], name
        return part

    def fingerprint(self) -> str:
        """SHA-256 of description, names and content."""
        whole = sha256(json.dumps(to_json(self.spec)).encode())
        for place in self._places:
            whole.update(json.dumps([self._names[place], self._key(place)]).encode())
        return whole.hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a plain file."""
    whole = sha256()
    with open_plain(path) as file:
        while data := file.read(2**20):
            whole.update(data)
    return whole.hexdigest()


@dataclass(frozen=True)
class Fit:
    """How frames of a source become frames of a dataset: resized by area, or padded at the edges.

    Attributes:
        source, target: (height, width).
        resize: whether to resize; frames are padded with their last pixels if not.
    """

    source: tuple[int, int]
    target: tuple[int, int]
    resize: bool

    @classmethod
    def of(cls, source: tuple[int, int], size: tuple[int, int] | None, name: str) -> Fit:
        """To `size`, or to the next sides that are divisible by 8, which is said aloud."""
        if size is not None:
            return cls(source, size, resize=True)
        height, width = (-(-side // MULTIPLE) * MULTIPLE for side in source)
        if (height, width) != source:
            say(
                f"{name}: frames of {source[0]}x{source[1]} are padded to {height}x{width}: sides "
                f"must be divisible by {MULTIPLE}; give size=(height, width) to resize instead"
            )
        return cls(source, (height, width), resize=False)

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(n, *source, 3) -> (n, *target, 3)."""
        if self.source == self.target:
            return frames
        if self.resize:
            return area_resize(frames, self.target)
        more = [(0, t - s) for s, t in zip(self.source, self.target, strict=True)]
        return np.pad(frames, [(0, 0), *more, (0, 0)], mode="edge")


class FittedFrames:
    """Frames of a dataset, from those of its source."""

    dtype = np.dtype(np.uint8)

    def __init__(self, frames: Frames, fit: Fit, count: int | None = None) -> None:
        count = len(frames) if count is None else count
        self.source, self.fit, self.shape = frames, fit, (count, *fit.target, 3)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, span: slice, /) -> NDArray[np.uint8]:
        start, stop, _ = span.indices(len(self))
        if stop <= start:
            return np.zeros((0, *self.shape[1:]), np.uint8)
        most = max(1, PIECE // prod(self.source.shape[1:]))  # of a piece; resizing takes floats
        pieces = range(start, stop, most)
        return np.concatenate([self.fit(self.source[a : min(a + most, stop)]) for a in pieces])


def say(message: str) -> None:
    """One line for the user: what was changed on the way in."""
    print(f"worldsim: {printable(message)}", file=sys.stderr)
