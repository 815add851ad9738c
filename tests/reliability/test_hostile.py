"""Inputs made to harm: refused in our words, small and soon; nothing runs and nothing is lost.

Each stands for a kind of fault that was found once; the fuzzer of `nightly/fuzz.py` looks for more.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.films import noise, write
from tests.data.test_lerobot import write_v2, write_v3
from worldsim import cli
from worldsim.config import ConfigError, from_json, parse_json, read_json, read_json_lines
from worldsim.core import ActionSpec, EnvironmentSpec, WorldError
from worldsim.data import DatasetError
from worldsim.data.open import open_dataset
from worldsim.data.parquet import read_parquet
from worldsim.data.tables import read_tables
from worldsim.evaluate.describe import describe

SECONDS = 2.0


@pytest.fixture(autouse=True)
def soon():
    begun = time.process_time()
    yield
    assert time.process_time() - begun < SECONDS + 3  # what makes the input counts, too


# --- LeRobot --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": {"action": 3}}, "'action': expected an object"),
        ({"features": {"observation.state": {"shape": [10**12]}}}, "observation.state: expected"),
        ({"data_path": "data/{episode_index:099999999d}.parquet"}, "data_path: expected"),
        ({"data_path": "../../{episode_index}"}, "within the folder"),
        ({"data_path": "data/{episode_index:q}"}, "data_path: expected"),
        ({"fps": 0}, "fps: expected"),
        ({"chunks_size": 0}, "episode: expected"),
        ({"codebase_version": "v2.\x1b[31m"}, "codebase_version"),
        ({"data_path": "{episode_index.__class__}"}, "data_path: expected a template"),
    ],
)
def test_what_lerobot_s_info_declares_is_checked(
    tmp_path: Path, changes: dict[str, Any], message: str
):
    folder = write_v2(tmp_path / "set")
    path = folder / "meta" / "info.json"
    info = json.loads(path.read_text())
    info |= changes | {"features": info["features"] | changes.get("features", {})}
    path.write_text(json.dumps(info))
    with pytest.raises(DatasetError, match=message) as caught:
        open_dataset(folder, camera="top")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("line", ['{"episode_index": 0, "length": -3}', '{"episode_index": 1e99}'])
def test_an_episode_of_no_length_is_refused(tmp_path: Path, line: str):
    folder = write_v2(tmp_path / "set")
    (folder / "meta" / "episodes.jsonl").write_text(line + "\n")
    with pytest.raises(DatasetError, match=r"episodes.jsonl: episode: expected"):
        open_dataset(folder, camera="top")


def test_a_missing_column_is_named(tmp_path: Path):
    folder = write_v3(tmp_path / "set")
    for path in (folder / "data").rglob("*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns(["action"]), path)
    with pytest.raises(DatasetError, match="columns: expected one called action"):
        open_dataset(folder, camera="top")


# --- tables ---------------------------------------------------------------------------------------


def test_equal_values_by_the_million_are_no_table(tmp_path: Path):
    path = tmp_path / "bomb.parquet"
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10**7, np.int8)), pa.array([1.5]))
    pq.write_table(pa.table({"action": column}), path, compression="zstd")
    assert path.stat().st_size < 100_000
    with pytest.raises(DatasetError, match="at most 67108864 bytes unpacked, got"):
        read_parquet(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("," * 10**6, "a line of more than 65536 bytes"),
        ("action,reward\n" + "1,2\n" * 9 + "1\n", "line 11: expected 2 cells"),
        ("action\n1e999\n", "finite numbers"),
        ("a,a\n", "distinct names"),
        ("\x1b[2J\n1\n", "among the columns"),
    ],
)
def test_a_csv_that_is_none_is_refused_at_its_line(tmp_path: Path, text: str, message: str):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DatasetError, match=message) as caught:
        read_tables(tmp_path / "t.csv")
    assert str(caught.value).isprintable()


# --- HDF5 -----------------------------------------------------------------------------------------


def _cycle(file: Any) -> None:
    file["episode_0/again"] = file["/"]


def _declared(file: Any) -> None:
    del file["episode_0/rewards"]
    file.create_dataset("episode_0/rewards", (2**22,), "f8", chunks=(2**10,))


def _vast_piece(file: Any) -> None:
    del file["episode_0/observations"]
    shape = (3, 2**14, 2**14, 3)
    file.create_dataset("episode_0/observations", shape, "u1", chunks=shape, compression=9)


def _outside(file: Any) -> None:
    import h5py

    del file["episode_0/rewards"]
    file["episode_0/rewards"] = h5py.ExternalLink("/etc/passwd", "/")


def _soft(file: Any) -> None:
    import h5py

    file["episode_0/more"] = h5py.SoftLink("/episode_0")


def _stored_elsewhere(file: Any) -> None:
    file["episode_0"].create_dataset("more", (4,), "u1", external=[("/etc/passwd", 0, 4)])


def _virtual(file: Any) -> None:
    import h5py

    file["episode_0"].create_virtual_dataset("more", h5py.VirtualLayout((4,), "u1"))


def _named_type(file: Any) -> None:
    file["episode_0/kind"] = np.dtype("f8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_cycle, "each group once"),
        (_declared, "the 33554432 bytes that it declares"),
        (_vast_piece, "expected"),
        (_outside, "data in the file itself"),
        (_soft, "data in the file itself"),
        (_named_type, "groups and arrays"),
        (_stored_elsewhere, "more: expected"),
        (_virtual, "more: expected"),
    ],
)
def test_hdf5_is_looked_at_before_any_of_it_is_read(
    tmp_path: Path, change: Callable[[Any], None], message: str
):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "main_data.hdf5", "w") as file:
        episode = file.create_group("episode_0")
        episode["observations"] = np.zeros((3, 8, 8, 3), np.uint8)
        for name in ("actions", "rewards", "terminations", "truncations"):
            episode[name] = np.zeros(2, np.int64)
        change(file)
    (tmp_path / "metadata.json").write_text('{"action_space": {"type": "Discrete", "n": 2}}')
    with pytest.raises(DatasetError, match=message):
        open_dataset(f"minari:{tmp_path}", fps=10)


@pytest.mark.parametrize(
    "space",
    [
        {"type": "MultiBinary", "n": [10**12]},
        {"type": "Discrete", "n": 10**15},
        {"type": "Discrete", "n": 2, "start": 10**30},
        {"type": "Box", "low": [1.0], "high": [1.0 + 1e-12]},
        {"type": "evil.module:Space"},
    ],
)
def test_a_vast_space_is_none(tmp_path: Path, space: dict[str, Any]):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "main_data.hdf5", "w") as file:
        file["episode_0/observations"] = np.zeros((3, 8, 8, 3), np.uint8)
        file["episode_0/rewards"] = np.zeros(2)
    env_spec = {"id": "X-v0", "entry_point": "payload:X"}  # which nothing of ours looks at
    told = {"action_space": json.dumps(space), "env_spec": json.dumps(env_spec)}
    (tmp_path / "metadata.json").write_text(json.dumps(told))
    with pytest.raises(DatasetError, match="action_space"):
        open_dataset(f"minari:{tmp_path}", fps=10)


# --- films ----------------------------------------------------------------------------------------


def test_an_index_that_a_film_only_declares_is_not_built(tmp_path: Path):
    path = tmp_path / "film.mp4"
    write(path, noise(8, 16, 16), fps=10)
    data = bytearray(path.read_bytes())
    place = data.index(b"stsz")  # version and flags, then the size of all samples, their number
    data[place + 8 : place + 16] = (1).to_bytes(4, "big") + (150_000_000).to_bytes(4, "big")
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"film\.mp4"):
        open_dataset(tmp_path)


# --- JSON that a user names -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fifo", "endless", "sparse", "deep", "nothing", "text"])
def test_json_that_is_named_on_a_command_line_is_read_with_care(tmp_path: Path, kind: str):
    path = tmp_path / "figures.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(3 * 2**30)
    elif kind in ("deep", "text"):
        path.write_text("[" * 10**5 if kind == "deep" else "\x1b[31mno")
    path = Path("/dev/zero") if kind == "endless" else path
    with pytest.raises(ConfigError) as caught:
        read_json(path)
    assert str(path) in str(caught.value) and str(caught.value).isprintable()
    if kind in ("fifo", "endless", "sparse"):
        with pytest.raises(ConfigError):
            list(read_json_lines(path))


def test_lists_within_lists_are_refused_wherever_they_are_looked_at():
    deep = parse_json("[" * 900 + "]" * 900, "x")
    with pytest.raises(WorldError):
        told = {"id": "X-v0", "size": [8, 8], "kwargs": {"a": deep}, "source": "render"}
        told |= {"crop": None, "chunk": 1, "warmup": 0, "max_frames": 9, "wrappers": []}
        from_json(EnvironmentSpec, told | {"image": "", "state": []})


def test_torn_lines_of_a_log_are_left_out(tmp_path: Path):
    (tmp_path / "log").write_bytes(b'{"a": 1}\n[2]\n\xff\n{"b": \n{"c": 3}')
    assert list(read_json_lines(tmp_path / "log")) == [{"a": 1}, {"c": 3}]
    assert list(read_json_lines(tmp_path / "none")) == []


@pytest.mark.parametrize(
    "card", [{}, {"lines": 3}, {"lines": [{}]}, {"lines": [], "data": {"a": 1}}]
)
def test_a_card_that_is_none_is_told_of_as_one(card: dict[str, Any]):
    with pytest.raises(WorldError, match="card: expected what worldsim eval writes"):
        describe(card)


def test_what_a_card_quotes_moves_no_cursor():
    line = {"figure": "x\x1b[2J", "value": 1.0, "unit": "", "goal": None, "most": False,
            "interval": None, "passed": None, "note": "\u202e"}  # fmt: skip
    text = describe({"lines": [line], "not_measured": {"a": "\x1b]0;b\x07"}})
    assert all(part.isprintable() for part in text.split("\n"))


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {"kind": "discrete", "n": 2**20},
        {"kind": "multi_discrete", "nvec": (2, 2**40)},
        {"kind": "multi_binary", "nvec": (2,) * 5000},
        {"kind": "continuous", "low": (0.0,), "high": (1e300,)},
        {"kind": "continuous", "low": (1.0,), "high": (1.0 + 1e-12,)},
    ],
)
def test_actions_are_bounded_before_networks_are_made_of_them(given: dict[str, Any]):
    with pytest.raises(WorldError, match="action: expected"):
        ActionSpec(**given)


@pytest.mark.parametrize("changes", [{"warmup": 10**9}, {"chunk": 10**9}, {"size": (2**20, 8)}])
def test_an_environment_asks_for_no_endless_work(changes: dict[str, Any]):
    with pytest.raises(WorldError, match="expected"):
        EnvironmentSpec(**{"id": "X-v0", "size": (8, 8), **changes})


def test_a_file_s_name_is_printed_without_its_controls(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["eval", "--world", "pendulum", "--data", "no\x1b[31m"]) == 2
    assert "\x1b" not in capsys.readouterr().err
