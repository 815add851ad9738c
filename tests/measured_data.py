"""A small dataset for tests of measuring: moving stripes that fit the tiny world."""

from pathlib import Path

import numpy as np

from worldsim.core import ActionSpec
from worldsim.data import DatasetSpec, Episode, NativeDataset, NativeWriter

CHUNK = 2
LENGTHS = (20, 23, 20)  # chunks of the test episodes; the second one terminates


def stripes(seed: int, chunks: int, terminated: bool = False) -> Episode:
    """Chunk k is rewarded where k % 5 == 0; its first action entry is k / 100."""
    times = np.arange(chunks * CHUNK)[:, None, None, None]
    columns = np.arange(24)[None, None, :, None]
    value = 128 + 100 * np.sin((columns + times * (1 + seed % 3)) / 3)
    frames = np.broadcast_to(value, (chunks * CHUNK, 16, 24, 3)).astype(np.uint8)
    steps = np.arange(chunks, dtype=np.float32)
    return Episode(
        name=f"stripes-{seed:06d}",
        frames=frames,
        chunk=CHUNK,
        fps=12.5,
        actions=np.stack([steps / 100, np.full_like(steps, seed % 10 / 10)], 1),
        rewards=np.where(np.arange(chunks) % 5 == 0, 3.0, -0.2).astype(np.float32),
        terminated=terminated,
        truncated=not terminated,
        seed=seed,
        policy="stripes",
    )


SPEC = DatasetSpec(
    name="stripes",
    frame_shape=(16, 24, 3),
    fps=12.5,
    chunk=CHUNK,
    action=ActionSpec(kind="continuous", low=(-1.0, 0.0), high=(1.0, 1.0)),
    has_rewards=True,
)


def stripes_data(folder: Path, **more: list[Episode]) -> NativeDataset:
    """Three test episodes on disk, and more episodes in other splits."""
    tests = [stripes(5000 + i, length, i == 1) for i, length in enumerate(LENGTHS)]
    return stored(folder, SPEC, test=tests, **more)


def stored(folder: Path, spec: DatasetSpec, **splits: list[Episode]) -> NativeDataset:
    """A dataset of these episodes on disk."""
    writer = NativeWriter(folder, spec)
    for split, episodes in splits.items():
        for episode in episodes:
            writer.write(split, episode)
    return writer.dataset()
