"""What every reader of datasets promises; a reader's own test calls `check_dataset`."""

import pickle

import numpy as np

from worldsim.data import Dataset
from worldsim.data.episode import check_episode


def check_dataset(data: Dataset) -> None:
    """Raise AssertionError where a dataset breaks the protocol."""
    assert isinstance(data, Dataset)
    assert len(data) == len(data.names) == len(data.lengths) == len(set(data.names)) > 0
    for place, (name, length) in enumerate(zip(data.names, data.lengths, strict=True)):
        episode = data.episode(place)
        assert (episode.name, len(episode)) == (name, length)
        assert (episode.chunk, tuple(episode.frames.shape[1:])) == (
            data.spec.chunk, data.spec.frame_shape,
        )  # fmt: skip
        check_episode(episode, data.spec)
    _check_lazy_frames(data)
    _check_splits(data)
    again = pickle.loads(pickle.dumps(data))
    assert again.names == data.names and again.fingerprint() == data.fingerprint()


def _check_lazy_frames(data: Dataset) -> None:
    frames = data.episode(len(data) - 1).frames
    whole = np.asarray(frames[:])
    assert whole.dtype == np.uint8 and whole.shape == tuple(frames.shape)
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = sorted(rng.integers(0, len(whole) + 1, 2))
        np.testing.assert_array_equal(frames[a:b], whole[a:b])
    np.testing.assert_array_equal(frames[-2:], whole[-2:])
    assert len(frames[3:3]) == 0


def _check_splits(data: Dataset) -> None:
    parts = {name: data.split(name) for name in data.splits}
    assert parts and set(parts) <= {"train", "val", "test"}
    names = [name for part in parts.values() for name in part.names]
    assert sorted(names) == sorted(data.names), "splits are disjoint and whole"
    for split, part in parts.items():
        assert list(part.splits) == [split] and len(part) == len(part.lengths) > 0
        assert part.episode(0).name == part.names[0]
        assert part.spec == data.spec
    prints = {part.fingerprint() for part in parts.values()}
    assert len(prints) == len(parts)
