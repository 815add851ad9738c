"""A small dataset for tests of measuring: moving stripes that fit the tiny world."""

from pathlib import Path

import numpy as np

from worldsim.data.episode import Episode, save_episode
from worldsim.data.native import ActionInfo, Dataset, DatasetInfo, open_dataset

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
        frames=frames,
        actions=np.stack([steps / 100, np.full_like(steps, seed % 10 / 10)], 1),
        rewards=np.where(np.arange(chunks) % 5 == 0, 3.0, -0.2).astype(np.float32),
        terminated=terminated,
        truncated=not terminated,
        seed=seed,
        behaviour="stripes",
    )


def stripes_data(folder: Path) -> Dataset:
    """Three test episodes on disk."""
    action = ActionInfo(kind="continuous", low=(-1.0, 0.0), high=(1.0, 1.0))
    DatasetInfo(env_id="", chunk=CHUNK, fps=12.5, frame_shape=(16, 24, 3), action=action).save(
        folder
    )
    data = open_dataset(folder)
    (folder / "test").mkdir()
    for i, length in enumerate(LENGTHS):
        save_episode(data.path("test", 5000 + i), stripes(5000 + i, length, i == 1))
    return data
