import json
from pathlib import Path

import numpy as np
import pytest

from worldsim.data import (
    ActionInfo,
    Dataset,
    DatasetError,
    DatasetInfo,
    Episode,
    EpisodeError,
    open_dataset,
    save_episode,
)


def info(**changes: object) -> DatasetInfo:
    values: dict = dict(
        env_id="Some-v0",
        chunk=2,
        fps=50.0,
        frame_shape=(8, 16, 3),
        action=ActionInfo(kind="continuous", low=(-1.0, 0.0), high=(1.0, 1.0)),
        crop=(0, 84, 0, 96),
        env_kwargs={"level": [1, 2]},
    )
    return DatasetInfo(**(values | changes))


def episode(seed: int, action: float = 0.5, size: int = 8) -> Episode:
    return Episode(
        frames=np.zeros((4, size, 16, 3), np.uint8),
        actions=np.full((2, 2), action, np.float32),
        rewards=np.zeros(2, np.float32),
        terminated=False,
        truncated=True,
        seed=seed,
        behaviour="still",
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    info().save(tmp_path)
    for split in ("train", "val", "test"):
        (tmp_path / split).mkdir()
    return open_dataset(tmp_path)


@pytest.mark.parametrize(
    "value", [info(), info(action=ActionInfo(kind="discrete", n=5), crop=None, env_kwargs={})]
)
def test_round_trip(tmp_path: Path, value: DatasetInfo):
    value.save(tmp_path)
    assert DatasetInfo.load(tmp_path) == value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, r"unknown keys \['colour'\]"),
        ({"chunk": None}, r"missing keys \['chunk'\]"),
        ({"format": "other"}, "format: expected"),
        ({"version": 2}, "version: expected 1, got 2"),
        ({"chunk": 0}, "chunk: expected"),
        ({"chunk": True}, "chunk: expected"),
        ({"fps": float("nan")}, "fps: expected"),
        ({"frame_shape": [8, 16, 4]}, "frame_shape: expected"),
        ({"frame_shape": 8}, "frame_shape: expected"),
        ({"action": {"kind": "discrete", "n": 0}}, "action: expected"),
        ({"action": {"kind": "continuous", "low": [0], "high": [1, 2]}}, "action: expected"),
        ({"action": {"kind": "continuous", "low": [2], "high": [1]}}, "action: expected"),
        ({"action": {"kind": "other"}}, "action: expected"),
        ({"action": {"kind": "discrete", "n": 2, "extra": 1}}, "unknown keys"),
        ({"action": 3}, "action: expected an object"),
        ({"splits": {"train": [0, 10], "val": [5, 20]}}, "splits: expected disjoint"),
        ({"splits": {"train": [10, 10]}}, "splits: expected disjoint"),
    ],
)
def test_an_unfit_description_is_refused(tmp_path: Path, changes: dict, message: str):
    info().save(tmp_path)
    path = tmp_path / "dataset.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: v for key, v in values.items() if v is not None}))
    with pytest.raises(DatasetError, match=message):
        open_dataset(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{", "3", "\x00"])
def test_a_foreign_description_is_refused(tmp_path: Path, content: str):
    with pytest.raises(DatasetError, match="dataset.json"):
        open_dataset(tmp_path)
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(DatasetError, match="dataset.json"):
        open_dataset(tmp_path)


def test_episodes_are_listed_by_seed_and_half_written_ones_are_not(dataset: Dataset):
    for seed in (11, 2):
        save_episode(dataset.path("train", seed), episode(seed))
    (dataset.folder / "train" / ".episode_000003.npz.77.tmp").write_bytes(b"half")
    names = [path.name for path in dataset.episodes("train")]
    assert names == ["episode_000002.npz", "episode_000011.npz"]
    assert dataset.episodes("val") == []
    with pytest.raises(DatasetError, match="split: expected one of"):
        dataset.episodes("holdout")


def test_an_episode_of_another_dataset_is_refused(dataset: Dataset):
    path = dataset.path("train", 1)
    save_episode(path, episode(1))
    assert dataset.load(path).seed == 1
    save_episode(path, episode(1, size=16))
    with pytest.raises(EpisodeError, match=r"frames: expected chunks of 2 frames \(8, 16, 3\)"):
        dataset.load(path)
    save_episode(path, episode(1, action=-0.5))
    with pytest.raises(EpisodeError, match="actions: expected 2 numbers"):
        dataset.load(path)


def test_a_test_episode_cannot_slip_into_training(dataset: Dataset):
    save_episode(dataset.path("train", 5000), episode(5000))
    save_episode(dataset.path("train", 7), episode(5000))
    for path in dataset.episodes("train"):
        with pytest.raises(EpisodeError, match="seed: expected the seed in its name"):
            dataset.load(path)
