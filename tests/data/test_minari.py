"""Minari sets written by the minari package itself."""

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from tests.data.contracts import check_dataset
from tests.data.films import noise
from worldsim.data import DatasetError
from worldsim.data.open import open_dataset

h5py = pytest.importorskip("h5py")
pytest.importorskip("minari")

LENGTHS = (4, 6, 3)  # steps
spaces = gymnasium.spaces


def buffer(i: int, names: list[str]) -> Any:
    from minari.data_collector import EpisodeBuffer

    rng, n = np.random.default_rng(i), LENGTHS[i]
    values = {
        "image": [*smooth(i)],
        "wrist": [*noise(n + 1, 32, 48, seed=50 + i)],
        "vector": [*rng.standard_normal((n + 1, 2)).astype(np.float32)],
    }
    return EpisodeBuffer(
        id=i,
        seed=100 + i,
        observations={name: values[name] for name in names},
        actions=[*rng.uniform(-1, 1, (n, 2)).astype(np.float32)],
        rewards=[*rng.standard_normal(n)],
        terminations=[False] * (n - 1) + [i == 1],
        truncations=[False] * (n - 1) + [i != 1],
    )


def made(root: Path, *, jpeg: bool = False, second: bool = False) -> Path:
    """A dataset of images and vectors."""
    from minari.dataset.minari_storage import MinariStorage

    folder = root / "test" / "made-v0" / "data"
    folder.mkdir(parents=True)
    image = spaces.Box(0, 255, (32, 48, 3), np.uint8)
    seen = {"image": image, "vector": spaces.Box(-9, 9, (2,), np.float32)}
    seen |= {"wrist": image} if second else {}
    storage = MinariStorage.new(
        folder,
        spaces.Dict(seen),
        spaces.Box(-1, 1, (2,), np.float32),
        data_format="hdf5",
        jpeg_encoding=jpeg,
    )
    storage.update_episodes([buffer(i, list(seen)) for i in range(3)])
    return folder.parent


def smooth(i: int) -> np.ndarray:
    return np.repeat(np.repeat(noise(LENGTHS[i] + 1, 2, 3, seed=i), 16, 1), 16, 2)


@pytest.mark.parametrize("jpeg", [False, True])
def test_every_value_is_the_source_s(tmp_path: Path, jpeg: bool, capsys):
    data = open_dataset(made(tmp_path, jpeg=jpeg))
    assert "Minari tells no frame rate: 30 is taken" in capsys.readouterr().err
    check_dataset(data)
    assert data.lengths == [5, 7, 4] and data.spec.action.shape == (2,)
    for i in range(3):
        episode, source = data.episode(i), buffer(i, ["image", "vector"])
        if jpeg:
            assert abs(episode.frames[:].astype(int) - smooth(i)).mean() < 8
        else:
            np.testing.assert_array_equal(episode.frames[:], smooth(i))
        assert episode.actions is not None and episode.known is not None
        assert episode.known.tolist() == [False] + [True] * LENGTHS[i]
        np.testing.assert_array_equal(episode.actions[1:], source.actions)
        np.testing.assert_allclose(episode.rewards, [0, *source.rewards], rtol=1e-6)
        np.testing.assert_array_equal(episode.state, source.observations["vector"])
        assert (episode.terminated, episode.truncated, episode.seed) == (i == 1, i != 1, 100 + i)


def test_a_set_is_found_by_name_and_its_image_by_key(tmp_path: Path, monkeypatch):
    made(tmp_path, second=True)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with pytest.raises(DatasetError, match=r"camera: expected one of .*\['image', 'wrist'\]"):
        open_dataset("minari:test/made-v0")
    data = open_dataset("minari:test/made-v0", camera="wrist", size=(8, 8), fps=12)
    assert data.spec.fps == 12 and data.episode(0).frames[:].shape == (5, 8, 8, 3)
    with pytest.raises(DatasetError, match="dataset: expected main_data.hdf5"):
        open_dataset("minari:test/other-v0")
    with pytest.raises(DatasetError, match="chunk: expected none"):
        open_dataset("minari:test/made-v0", camera="wrist", chunk=2)


def test_damage_and_foreign_metadata_are_named(tmp_path: Path):
    folder = made(tmp_path)
    meta, film = folder / "data/metadata.json", folder / "data/main_data.hdf5"
    told, whole = json.loads(meta.read_text()), film.read_bytes()
    for change in ({"action_space": '{"type": "Text"}'}, {"action_space": 3}):
        meta.write_text(json.dumps(told | change))
        with pytest.raises(DatasetError, match="metadata.json: action_space: expected"):
            open_dataset(folder)
    meta.write_text(json.dumps(told))
    for data in (whole[: len(whole) // 2], b"no hdf5", b""):
        film.write_bytes(data)
        with pytest.raises(DatasetError, match="main_data.hdf5: file: expected"):
            open_dataset(folder)
