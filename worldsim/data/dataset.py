"""A dataset is a protocol: episodes that are decoded when asked for, whoever recorded them.

`worldsim.open(uri)` gives one for a folder of ours, a folder of video files, Minari and LeRobot.
Nothing here assumes that a recording fits into memory, that it has actions or rewards, or that an
environment made it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import isfinite
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from worldsim.core import ActionSpec, EnvironmentSpec, WorldError

REMEDY = "record or copy it again, or write it with worldsim.data.NativeWriter"
MAX_SIDE = 16384  # of a frame
SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}  # of episodes that come without splits
SPLITS = tuple(SHARES)
MULTIPLE = 8  # what sides of frames are divisible by: the autoencoder halves them three times


class DatasetError(WorldError):
    """A dataset that cannot be read, or data that do not fit it: names file, episode and field."""


def unfit(
    where: object, field: str, expected: str, got: object, remedy: str = REMEDY
) -> DatasetError:
    """The one sentence of all refusals; what could move a terminal's cursor is escaped."""
    text = f"{where}: {field}: expected {expected}, got {got}; {remedy}"
    safe = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:2000])
    return DatasetError(safe)


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """What holds for every episode of a dataset.

    Attributes:
        name: for messages and for the world that is made of it.
        frame_shape: (H, W, 3) of the frames as episodes give them, H and W divisible by 8.
        fps: frames a second.
        chunk: frames that an action holds for.
        action: the actions; kind "none" where there are none.
        state: names of the entries of the state vector (proprioception), () where there is none.
        has_rewards, has_text: whether episodes hold rewards; captions.
        environment: how the environment that was recorded is made, None for video without one.
    """

    name: str
    frame_shape: tuple[int, int, int]
    fps: float
    chunk: int
    action: ActionSpec
    state: tuple[str, ...] = ()
    has_rewards: bool = False
    has_text: bool = False
    environment: EnvironmentSpec | None = None

    def __post_init__(self) -> None:
        sides, last = self.frame_shape[:-1], self.frame_shape[-1:]
        whole = all(type(x) is int and 0 < x <= MAX_SIDE for x in self.frame_shape)
        rules = {
            "frame_shape": (
                whole and len(sides) == 2 and last == (3,) and not any(s % MULTIPLE for s in sides),
                f"(H, W, 3) with H and W divisible by {MULTIPLE} and at most {MAX_SIDE}",
            ),
            "fps": (isfinite(self.fps) and 0 < self.fps <= 1e6, "a number > 0"),
            "chunk": (type(self.chunk) is int and 0 < self.chunk <= 1000, "a whole number >= 1"),
        }
        for name, (fits, expected) in rules.items():
            if not fits:
                raise unfit("dataset", name, expected, getattr(self, name), "choose another")


class Frames(Protocol):
    """Frames (T, H, W, 3) uint8, decoded when a slice is asked for; an array is one, too."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, H, W, 3), known without decoding."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, span: slice, /) -> NDArray[np.uint8]:
        """Frames [start, stop), (n, H, W, 3); steps other than 1 are not asked for."""
        ...


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What is said of the chunks from `first` to before `stop`."""

    first: int
    stop: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Episode:
    """N chunks of one episode; `actions[k]` led into `frames[k * chunk : (k + 1) * chunk]`.

    What an episode lacks is None, not invented.

    Attributes:
        name: identity within the dataset, stable across readings.
        frames: (N * chunk, H, W, 3) uint8. One that ended inside a chunk repeats its last frame.
        chunk: frames an action holds for.
        fps: frames a second.
        actions: (N, *action) float32 or int64.
        known: (N,) bool, which actions are known; None where all are. The picture that an episode
            starts with has none.
        state: (N, S) float32, at the end of each chunk.
        rewards: (N,) float32, summed over the chunk.
        terminated, truncated: whether the last chunk ended the episode, as Gymnasium means it.
        text: a caption of the whole, "" where there is none.
        captions: what is said of stretches, several of one side by side.
        policy: name of who acted, "" where unknown.
        seed: the environment's reset seed, None where there was none.
    """

    name: str
    frames: Frames
    chunk: int
    fps: float
    actions: NDArray[Any] | None = None
    known: NDArray[np.bool_] | None = None
    state: NDArray[np.float32] | None = None
    rewards: NDArray[np.float32] | None = None
    terminated: bool = False
    truncated: bool = False
    text: str = ""
    captions: tuple[Caption, ...] = ()
    policy: str = ""
    seed: int | None = None

    def __len__(self) -> int:
        """Chunks."""
        return len(self.frames) // self.chunk


def split_of(name: str) -> str:
    """The split of an episode that came without one, by its name alone."""
    point = int.from_bytes(sha256(name.encode(errors="surrogatepass")).digest()[:8]) / 2**64
    for split, share in SHARES.items():
        point -= share
        if point < 0:
            return split
    return SPLITS[-1]


def repeated(names: Sequence[str]) -> str | None:
    """A name that more than one episode has."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def splits_of(names: Sequence[str]) -> dict[str, list[int]]:
    """Places of the episodes of each split that has any; all are for training if none were."""
    found: dict[str, list[int]] = {split: [] for split in SPLITS}
    for place, name in enumerate(names):
        found[split_of(name)].append(place)
    if not found["train"]:
        return {"train": list(range(len(names)))}
    return {split: places for split, places in found.items() if places}


@runtime_checkable
class Dataset(Protocol):
    """Episodes by number; `tests/data/contracts.py` says what a reader promises.

    Attributes:
        spec: what holds for every episode.
        names: identity of each episode, in order.
        lengths: chunks of each episode, known without decoding frames.
        splits: names of the splits: those of "train", "val" and "test" that hold an episode.
    """

    @property
    def spec(self) -> DatasetSpec: ...  # noqa: D102

    @property
    def names(self) -> Sequence[str]: ...  # noqa: D102

    @property
    def lengths(self) -> Sequence[int]: ...  # noqa: D102

    @property
    def splits(self) -> Sequence[str]: ...  # noqa: D102

    def __len__(self) -> int: ...

    def episode(self, index: int) -> Episode:
        """One episode; raises DatasetError naming file, episode and field if it does not fit."""
        ...

    def split(self, name: str) -> Dataset:
        """The episodes of one split, as a dataset of their own (whose only split it is).

        Datasets without splits of their own are split by their episodes' names: the same episode
        is in the same split on every machine, however many others there are beside it.
        """
        ...

    def fingerprint(self) -> str:
        """SHA-256 of the content: equal data, equal fingerprint; what caches are keyed by."""
        ...
