import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.contracts import check_dataset
from tests.measured_data import stored
from worldsim.core import ActionSpec, EnvironmentSpec
from worldsim.data import DatasetError, DatasetSpec, Episode, NativeDataset, NativeWriter
from worldsim.data.native import file_name, load_episode, save_episode

SPEC = DatasetSpec(
    name="test",
    frame_shape=(8, 16, 3),
    fps=50.0,
    chunk=2,
    action=ActionSpec(kind="continuous", low=(-1.0, 0.0), high=(1.0, 500.7)),
    state=("x", "y"),
    has_rewards=True,
    has_text=True,
    environment=EnvironmentSpec(id="X-v0", size=(8, 16), kwargs={"level": [1, {"a": None}]}),
)


def episode(seed: int = 0, chunks: int = 70, **changes: Any) -> Episode:
    rng = np.random.default_rng(seed)
    values: dict[str, Any] = dict(
        name=f"e{seed}",
        frames=rng.integers(0, 256, (chunks * 2, 8, 16, 3), np.uint8),
        chunk=2,
        fps=50.0,
        actions=rng.uniform(0, 1, (chunks, 2)).astype(np.float32),
        known=rng.random(chunks) < 0.5,
        state=rng.standard_normal((chunks, 2)).astype(np.float32),
        rewards=rng.standard_normal(chunks).astype(np.float32),
        terminated=True,
        text="a car, größer\n",
        policy="weave",
        seed=seed,
    )
    return Episode(**(values | changes))


def assert_equal(a: Episode, b: Episode) -> None:
    for name in vars(a):
        x, y = getattr(a, name), getattr(b, name)
        x, y = (x[:], y[:]) if name == "frames" else (x, y)
        assert np.asarray(x).dtype == np.asarray(y).dtype, name
        np.testing.assert_array_equal(x, y, err_msg=name)


def rewrite(path: Path, method: Any = 0, **changes: np.ndarray | bytes | None) -> None:
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
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def meta(path: Path, **changes: Any) -> np.ndarray:
    with np.load(path) as file:
        return np.array(json.dumps(json.loads(file["meta"].item()) | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    stored(tmp_path, SPEC, train=[episode(), episode(1)], val=[episode(2)])
    return tmp_path


@pytest.fixture
def saved(folder: Path) -> Path:
    return folder / "train" / "e0.npz"


def load(path: Path) -> Episode:
    data = NativeDataset(path.parent.parent)
    found = data.episode(data.names.index(path.stem))
    return replace(found, frames=found.frames[:])


def test_a_dataset_keeps_the_contract_and_every_value(folder: Path):
    data = NativeDataset(folder)
    check_dataset(data)
    assert data.spec == SPEC
    for place in range(3):
        assert_equal(data.episode(place), episode(place))
    data.episode(0).frames[0:2][0] = 0  # torch refuses read-only memory


def test_what_is_absent_stays_absent(tmp_path: Path):
    spec = DatasetSpec(
        name="films", frame_shape=(8, 16, 3), fps=50.0, chunk=2, action=ActionSpec(kind="none")
    )
    none: dict[str, Any] = dict.fromkeys(("actions", "known", "state", "rewards", "seed"))
    bare = episode(terminated=False, text="", policy="", **none)
    assert_equal(stored(tmp_path, spec, train=[bare]).episode(0), bare)


def test_equal_episodes_give_equal_bytes(tmp_path: Path):
    for name in ("a", "b"):
        save_episode(tmp_path / name, episode())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_views_other_byte_orders_and_rounded_bounds_are_stored_right(tmp_path: Path):
    plain = episode(actions=np.full((70, 2), np.float32(0.5)), known=None)
    assert plain.actions is not None and plain.rewards is not None
    plain.actions[:, 1] = np.float32(500.7)  # beyond 500.7 as a float64
    odd = replace(
        plain,
        frames=plain.frames[:][:, ::-1, :, ::-1],
        actions=plain.actions.astype(">f8")[::-1],
        rewards=plain.rewards.astype(">f4"),
        seed=None,
    )
    found = stored(tmp_path, SPEC, train=[odd]).episode(0)
    np.testing.assert_array_equal(found.frames[:], plain.frames[:][:, ::-1, :, ::-1])
    np.testing.assert_array_equal(found.actions, plain.actions[::-1])
    np.testing.assert_array_equal(found.rewards, plain.rewards)


def test_the_fingerprint_is_of_the_content_alone(folder: Path, tmp_path: Path):
    first = NativeDataset(folder).fingerprint()
    os.utime(folder / "train" / "e0.npz", (0, 0))
    assert NativeDataset(folder).fingerprint() == first
    other = episode()
    assert other.rewards is not None
    other.rewards[3] += 1  # corrected in place: the file keeps its name and size
    NativeWriter(folder, SPEC).write("train", other)
    assert NativeDataset(folder).fingerprint() != first
    NativeWriter(folder, SPEC).write("train", episode())
    assert NativeDataset(folder).fingerprint() == first
    (folder / "train" / "e1.npz").rename(folder / "train" / "e9.npz")
    assert NativeDataset(folder).fingerprint() != first


def test_a_file_that_was_changed_after_it_was_checked_is_refused(saved: Path):
    found = NativeDataset(saved.parent.parent).episode(0)
    save_episode(saved, episode(5))
    with pytest.raises(DatasetError, match="file: expected the file that was opened"):
        found.frames[:]


def test_half_written_files_are_not_listed_and_names_are_of_one_split(folder: Path):
    (folder / "train" / ".e7.npz.77.tmp").write_bytes(b"half")
    assert NativeDataset(folder).names == ["e0", "e1", "e2"]
    with pytest.raises(DatasetError, match=r"split: expected one of \['train', 'val'\]"):
        NativeDataset(folder).split("test")
    (folder / "val" / "e0.npz").write_bytes((folder / "train" / "e0.npz").read_bytes())
    with pytest.raises(DatasetError, match="names: expected each episode in one split only"):
        NativeDataset(folder)


def test_a_writer_refuses_another_dataset_and_names_that_leave_the_folder(folder: Path):
    with pytest.raises(DatasetError, match="chunk: expected 1, .* got a dataset of 2"):
        NativeWriter(folder, replace(SPEC, chunk=1))
    for name in ("../e", ".e", "", "a/b", "x" * 201):
        with pytest.raises(DatasetError, match="name: expected"):
            NativeWriter(folder, SPEC).write("train", episode(name=name))
    assert file_name("süd/../film 1.mp4") == "s%C3%BCd%2F..%2Ffilm%201.mp4"
    NativeWriter(folder, SPEC).path("train", file_name("é" * 300))


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("frames", {"frames": np.zeros((140, 8, 8, 3), np.uint8)}),
        ("frames", {"frames": np.zeros((139, 8, 16, 3), np.uint8)}),
        ("frames", {"frames": np.zeros((140, 8, 16, 3), np.float32)}),
        ("chunk", {"chunk": 1}),
        ("fps", {"fps": 25.0}),
        ("actions", {"actions": np.zeros((69, 2), np.float32)}),
        ("actions", {"actions": np.full((70, 2), np.nan, np.float32)}),
        ("actions", {"actions": np.full((70, 2), -0.5, np.float32)}),
        ("known", {"actions": None}),
        ("known", {"known": np.zeros(70)}),
        ("state", {"state": np.zeros((70, 3), np.float32)}),
        ("rewards", {"rewards": np.full(70, np.inf)}),
        ("seed", {"seed": -1}),
    ],
)
def test_an_unfit_episode_is_refused_before_anything_is_written(tmp_path: Path, field, changes):
    writer = NativeWriter(tmp_path, SPEC)
    with pytest.raises(DatasetError, match=f"episode e0: {field}: expected .*, got .*; record"):
        writer.write("train", replace(episode(), **changes))
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -1])
def test_a_truncated_file_is_refused(saved: Path, keep: float):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(DatasetError, match="e0.npz: file: expected a whole .npz file"):
        load(saved)


def test_no_flipped_bit_passes_unnoticed(tmp_path: Path):
    small = episode(chunks=2, frames=np.zeros((4, 8, 16, 3), np.uint8))
    stored(tmp_path, SPEC, train=[small])
    path, refused = tmp_path / "train" / "e0.npz", 0
    data, whole = path.read_bytes(), load(path)
    for place in range(0, len(data), 7):
        broken = bytearray(data)
        broken[place] ^= 1 << place % 8
        path.write_bytes(broken)
        try:  # some bits of a zip (dates, flags said twice) carry nothing
            assert_equal(load(path), whole)
        except DatasetError:
            refused += 1
    assert refused > 0.7 * len(data) / 7


def header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    spec = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, spec)
    return buffer.getvalue()


PIECE = "frames_000000"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (PIECE, np.zeros((64, 8, 16, 3), np.float32)),
        (PIECE, np.zeros((63, 8, 16, 3), np.uint8)),
        (PIECE, np.asfortranarray(np.zeros((64, 8, 16, 3), np.uint8))),
        (PIECE, header((10**9, 1000, 1000, 3)) + bytes(48)),
        (PIECE, header((-2, -1, 8, 3)) + bytes(48)),
        (PIECE, header((0, 10**30, 1, 3)) + bytes(48)),
        ("actions", np.zeros((4, 2), np.float32)),
        ("actions", np.array([{}, {}, {}])),
        ("rewards", np.zeros((70, 1), np.float32)),
        ("meta", np.array("{")),
        ("meta", np.array(7)),
    ],
)
def test_an_unfit_array_is_refused(saved: Path, field: str, value: np.ndarray):
    rewrite(saved, **{field: value})
    with pytest.raises(DatasetError, match=f"e0.npz: {field}: expected .*, got .*"):
        load(saved)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("format", {"format": "other"}),
        ("format", {"version": 1}),
        ("meta", {"terminated": 1}),
        ("meta", {"colour": 1}),
        ("frames", {"frames": [140, 8, 16, 4]}),
        ("frames", {"frames": [141, 8, 16, 3]}),
        ("frames", {"frames": [10**12, 10**6, 10**6, 3]}),
        ("arrays", {"frames": [2 * 10**9, 8, 16, 3]}),
        ("frames", {"piece": 0}),
        ("arrays", {"piece": 1}),
        ("frames", {"chunk": 0}),
    ],
)
def test_an_unfit_description_is_refused(saved: Path, field: str, changes: dict):
    rewrite(saved, meta=meta(saved, **changes))
    with pytest.raises(DatasetError, match=f"e0.npz: {field}: expected .*, got .*"):
        load(saved)


def test_missing_unknown_and_repeated_arrays_are_refused(saved: Path):
    whole = saved.read_bytes()
    for change in ({"extra": np.zeros(3)}, {PIECE: None}):
        rewrite(saved, **change)
        with pytest.raises(DatasetError, match="arrays: expected meta, 3 pieces"):
            load(saved)
        saved.write_bytes(whole)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(saved, "a") as archive:
        archive.writestr("meta.npy", b"other")
    with pytest.raises(DatasetError, match="arrays: expected one .npy member of each name"):
        load(saved)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_a_bound_are_refused(saved: Path, method: int):
    rewrite(saved, method)
    with pytest.raises(DatasetError, match="arrays: expected stored or deflated"):
        load(saved)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"\x93NUMPY", b"PK\5\6" + b"\xff" * 18])
def test_a_foreign_file_is_refused(saved: Path, content: bytes):
    saved.write_bytes(content)
    with pytest.raises(DatasetError, match="e0.npz: "):
        load(saved)


@pytest.mark.parametrize("header", [b"{'shape': (3L\n", b"\0", b"(" * 400, b"{'descr': 1e999}"])
def test_a_header_that_no_parser_takes_is_refused(saved: Path, header: bytes):
    """numpy hands headers on to Python's tokenizer and compiler, whose errors are many."""
    rewrite(saved, actions=b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header)
    with pytest.raises(DatasetError, match="e0.npz: actions: expected a .npy array"):
        load(saved)


def test_a_pickle_is_never_opened(saved: Path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(saved.parent / "boom"),)

    rewrite(saved, actions=np.array([Bomb()], dtype=object))
    with pytest.raises(DatasetError):
        load(saved)
    assert not (saved.parent / "boom").exists()


def test_an_interrupted_save_leaves_what_was_there(saved: Path, monkeypatch: pytest.MonkeyPatch):
    before = saved.read_bytes()

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    names = sorted(saved.parent.iterdir())
    for path in (saved, saved.with_name("new.npz")):
        with pytest.raises(KeyboardInterrupt):
            save_episode(path, episode(seed=1))
    assert sorted(saved.parent.iterdir()) == names
    assert saved.read_bytes() == before


def test_the_error_survives_a_process_border_and_cannot_move_a_cursor(tmp_path: Path):
    with pytest.raises(DatasetError) as caught:
        load_episode(tmp_path / "\x1b[2Jname.npz")
    assert "\x1b" not in str(caught.value) and "x1b[2Jname.npz" in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


Change = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, "unknown key 'colour'"),
        ({"chunk": None}, r"missing keys \['chunk'\]"),
        ({"format": "other"}, "format: expected"),
        ({"version": 1}, "format: expected"),
        ({"chunk": 0}, "chunk: expected"),
        ({"chunk": True}, "chunk: expected"),
        ({"fps": -1}, "fps: expected"),
        ({"frame_shape": [8, 16, 4]}, "frame_shape: expected"),
        ({"frame_shape": [8, 15, 3]}, "frame_shape: expected .* divisible by 8"),
        ({"frame_shape": 8}, "frame_shape: expected"),
        ({"action": {"kind": "discrete", "n": 0}}, "action: expected"),
        ({"action": {"kind": "continuous", "low": [2], "high": [1]}}, "action: expected"),
        ({"action": {"kind": "other"}}, "action.kind: expected"),
        ({"action": 3}, "action: expected an object"),
        ({"environment": {"id": "X-v0"}}, "environment: missing keys"),
    ],
)
def test_an_unfit_dataset_description_is_refused(folder: Path, changes: dict, message: str):
    path = folder / "dataset.json"
    values = json.loads(path.read_text()) | changes
    keep = "environment" if changes.get("chunk", 1) is None else None
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None or k == keep}))
    with pytest.raises(DatasetError, match=message):
        NativeDataset(folder)


def test_a_description_by_hand_may_leave_out_what_is_absent(tmp_path: Path):
    (tmp_path / "dataset.json").write_text(json.dumps({
        "format": "worldsim-dataset", "version": 2, "frame_shape": [8, 16, 3], "fps": 30,
        "chunk": 1, "action": {"kind": "discrete", "n": 4},
    }))  # fmt: skip
    spec = NativeDataset(tmp_path).spec
    assert (spec.name, spec.fps, spec.action.n, spec.environment) == (tmp_path.name, 30.0, 4, None)


@pytest.mark.parametrize("content", ["", "[]", "{", "3", "\x00", '{"a":' * 50_000])
def test_a_foreign_description_is_refused(tmp_path: Path, content: str):
    with pytest.raises(DatasetError, match="dataset.json"):
        NativeDataset(tmp_path)
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(DatasetError, match="dataset.json"):
        NativeDataset(tmp_path)
