import dataclasses
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from worldsim.data import Episode, EpisodeError, load_episode, save_episode


def episode(chunks: int = 3, chunk: int = 2, seed: int = 0, **changes: object) -> Episode:
    rng = np.random.default_rng(seed)
    values: dict = dict(
        frames=rng.integers(0, 256, (chunks * chunk, 8, 16, 3), np.uint8),
        actions=rng.standard_normal((chunks, 2)).astype(np.float32),
        rewards=rng.standard_normal(chunks).astype(np.float32),
        terminated=True,
        truncated=False,
        seed=seed,
        behaviour="weave",
    )
    return Episode(**(values | changes))


def assert_equal(a: Episode, b: Episode) -> None:
    for item in dataclasses.fields(Episode):
        x, y = getattr(a, item.name), getattr(b, item.name)
        assert np.asarray(x).dtype == np.asarray(y).dtype
        np.testing.assert_array_equal(x, y)


def rewrite(path: Path, **changes: np.ndarray | bytes | None) -> None:
    """Replace, add or (None) drop arrays of a saved episode; bytes go in as they are."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    for name, value in changes.items():
        buffer = io.BytesIO(value if isinstance(value, bytes) else b"")
        if isinstance(value, np.ndarray):
            np.save(buffer, value, allow_pickle=True)
        entries[f"{name}.npy"] = buffer.getvalue()
        if value is None:
            del entries[f"{name}.npy"]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "episode_000000.npz"
    save_episode(path, episode())
    return path


@pytest.mark.parametrize("actions", [np.ones((3, 2), np.float32), np.array([0, 4, 1])])
def test_round_trip(tmp_path: Path, actions: np.ndarray):
    before = episode(actions=actions)
    save_episode(tmp_path / "e.npz", before)
    after = load_episode(tmp_path / "e.npz")
    assert_equal(after, before)
    assert after.chunk == 2
    after.frames[0] = 0  # torch refuses read-only memory


def test_equal_episodes_give_equal_bytes(tmp_path: Path):
    for name in ("a", "b"):
        save_episode(tmp_path / name, episode())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -1])
def test_a_truncated_file_is_refused(saved: Path, keep: float):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(EpisodeError, match="episode_000000.npz: file: expected a whole .npz file"):
        load_episode(saved)


def test_no_flipped_bit_passes_unnoticed(saved: Path):
    data, whole, refused = saved.read_bytes(), load_episode(saved), 0
    for place in range(0, len(data), 7):
        broken = bytearray(data)
        broken[place] ^= 1 << place % 8
        saved.write_bytes(broken)
        try:  # some bits of a zip (dates, flags said twice) carry nothing
            assert_equal(load_episode(saved), whole)
        except EpisodeError:
            refused += 1
    assert refused > 0.8 * len(data) / 7


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("frames", np.zeros((6, 8, 16, 3), np.float32)),
        ("frames", np.zeros((6, 8, 16, 3), np.uint16)),
        ("frames", np.zeros((6, 8, 16, 1), np.uint8)),
        ("frames", np.zeros((7, 8, 16, 3), np.uint8)),
        ("frames", np.zeros((0, 8, 16, 3), np.uint8)),
        ("frames", np.asfortranarray(np.zeros((6, 8, 16, 3), np.uint8))),
        ("actions", np.zeros((3, 2), np.float64)),
        ("actions", np.zeros((4, 2), np.float32)),
        ("actions", np.full((3, 2), np.nan, np.float32)),
        ("actions", np.array([{}, {}, {}])),
        ("rewards", np.zeros((2,), np.float32)),
        ("rewards", np.full((3,), np.inf, np.float32)),
        ("terminated", np.array(1)),
        ("seed", np.array(-1)),
        ("seed", np.array([1, 2])),
        ("behaviour", np.array(b"weave")),
        ("format", np.array("other-format")),
        ("version", np.array(2)),
    ],
)
def test_an_unfit_array_is_refused(saved: Path, field: str, value: np.ndarray):
    rewrite(saved, **{field: value})
    with pytest.raises(EpisodeError, match="episode_000000.npz: .*expected .*, got .*; collect"):
        load_episode(saved)


def test_missing_and_unknown_arrays_are_refused(saved: Path):
    rewrite(saved, extra=np.zeros(3))
    with pytest.raises(EpisodeError, match="arrays: expected exactly"):
        load_episode(saved)
    rewrite(saved, extra=None, rewards=None)
    with pytest.raises(EpisodeError, match="arrays: expected exactly"):
        load_episode(saved)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"\x93NUMPY"])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "e.npz"
    path.write_bytes(content)
    with pytest.raises(EpisodeError):
        load_episode(path)
    with pytest.raises(EpisodeError):
        load_episode(tmp_path / "missing.npz")


def test_a_pickle_is_never_opened(saved: Path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(saved.parent / "boom"),)

    rewrite(saved, actions=np.array([Bomb()], dtype=object))
    with pytest.raises(EpisodeError):
        load_episode(saved)
    assert not (saved.parent / "boom").exists()


def header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    spec = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, spec)
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(10**9, 1000, 1000, 3), (-2, -1, 8, 3), (0, 10**30, 1, 3)])
def test_a_lying_header_is_refused_before_memory_is_taken(saved: Path, shape: tuple[int, ...]):
    rewrite(saved, frames=header(shape) + bytes(48))
    with pytest.raises(EpisodeError, match="frames: expected"):
        load_episode(saved)


def test_a_large_declaration_is_refused_before_memory_is_taken(saved: Path):
    with pytest.raises(EpisodeError, match="size: expected at most 2000 bytes unpacked"):
        load_episode(saved, max_bytes=2000)


def test_an_interrupted_save_leaves_what_was_there(saved: Path, monkeypatch: pytest.MonkeyPatch):
    before = saved.read_bytes()

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    for path in (saved, saved.with_name("new.npz")):
        with pytest.raises(KeyboardInterrupt):
            save_episode(path, episode(seed=1))
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    assert saved.read_bytes() == before


def test_the_error_survives_a_process_border():
    error = EpisodeError("here", "frames", "uint8", np.float32)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert "here: frames: expected uint8, got" in str(error)
