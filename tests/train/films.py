"""Small films in memory whose every frame shows the action that led into it."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np

from worldsim.core import ActionSpec
from worldsim.data.dataset import DatasetSpec, Episode

CHOICES = ActionSpec(kind="discrete", n=3)
FORCE = ActionSpec(kind="continuous", low=(-1.0,), high=(1.0,))
NONE = ActionSpec(kind="none")
TIMES = {"train": 8, "val": 2, "test": 2}


class Films:
    """A dataset in memory; `worldsim.data.dataset.Dataset`."""

    def __init__(self, spec: DatasetSpec, splits: dict[str, list[Episode]]) -> None:
        self.spec, self._splits = spec, splits
        self._episodes = [e for part in splits.values() for e in part]
        self.names: Sequence[str] = [e.name for e in self._episodes]
        self.lengths: Sequence[int] = [len(e) for e in self._episodes]
        self.splits: Sequence[str] = list(splits)

    def __len__(self) -> int:
        return len(self._episodes)

    def episode(self, index: int) -> Episode:
        return self._episodes[index]

    def split(self, name: str) -> Films:
        return Films(self.spec, {name: self._splits[name]})

    def fingerprint(self) -> str:
        whole = sha256(repr((self.spec, self.names)).encode())
        for episode in self._episodes:
            whole.update(np.ascontiguousarray(episode.frames[:]))
        return whole.hexdigest()


def films(
    action: ActionSpec = CHOICES,
    *,
    chunk: int = 2,
    size: tuple[int, int] = (16, 24),
    chunks: int = 8,
    rewards: bool = True,
    scale: float = 1.0,
    times: dict[str, int] | None = None,
) -> Films:
    """Episodes of a square that stands where the action puts it, on a ground of noise."""
    spec = DatasetSpec(
        name="films", frame_shape=(*size, 3), fps=10.0 * chunk, chunk=chunk, action=action,
        has_rewards=rewards,
    )  # fmt: skip
    count, splits = 0, {}
    for split, number in (times or TIMES).items():
        splits[split] = []
        for _ in range(number):
            splits[split].append(film(spec, count, chunks, rewards, scale))
            count += 1
    return Films(spec, splits)


def film(spec: DatasetSpec, seed: int, chunks: int, rewards: bool, scale: float) -> Episode:
    """One episode: a third of the frame is bright, which one says the action."""
    rng = np.random.default_rng(seed)
    place = rng.integers(0, 3, chunks)
    frames = np.full((chunks * spec.chunk, *spec.frame_shape), 40, np.uint8)
    third = spec.frame_shape[1] // 3
    for t, at in enumerate(place.repeat(spec.chunk)):
        frames[t, :, at * third : (at + 1) * third] = 220
    actions = {
        "discrete": place.astype(np.int64),
        "continuous": (place[:, None] - 1).astype(np.float32),
        "none": None,
    }[spec.action.kind]
    return Episode(
        name=f"film-{seed}", frames=frames, chunk=spec.chunk, fps=spec.fps, actions=actions,
        rewards=(scale * (place == 2)).astype(np.float32) if rewards else None,
        terminated=rewards and seed % 2 == 0, truncated=rewards and seed % 2 == 1,
    )  # fmt: skip
