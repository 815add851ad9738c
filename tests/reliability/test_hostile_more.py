"""More inputs made to harm: files of trainings and shards, pictures, messages, tables of texts."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn

from tests.data.films import noise, write
from tests.data.test_lerobot import write_v3
from tests.reliability.test_hostile import soon  # noqa: F401  (each test is timed)
from worldsim.cli.media import read_media
from worldsim.config import ConfigError, parse_json
from worldsim.core import WorldError
from worldsim.data.captions import by_chunk
from worldsim.data.dataset import Caption, DatasetError, Episode, repeated
from worldsim.data.labelled import LatentLabels
from worldsim.data.open import open_dataset
from worldsim.data.parquet import read_parquet
from worldsim.data.tables import read_tables
from worldsim.latent_actions.labels import Labels
from worldsim.models.latent_actions import LatentActionConfig, LatentActionModel
from worldsim.play.messages import parse
from worldsim.shards import manifest
from worldsim.store.folder import load
from worldsim.store.latent_actions import (
    load_labels,
    load_latent_actions,
    save_labels,
    save_latent_actions,
)
from worldsim.store.provenance import training_cost
from worldsim.store.tensors import TensorFileError, load_tensors, load_weights, save_tensors
from worldsim.train.checkpoint import CheckpointError
from worldsim.train.loop import FitConfig, Run
from worldsim.train.plan import StagePlan, trained_seconds
from worldsim.train.state import RunState

# --- JSON -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["{},", "[],", '{"a":1},'])
def test_values_by_the_million_are_counted_before_they_are_made(part: str):
    with pytest.raises(ConfigError, match="more than 524288 values"):
        parse_json("[" + part * 2_000_000 + "0]", "x")


def test_a_message_s_clock_is_a_number(tmp_path: Path):
    told = {"v": 1, "type": "rewind", "step": 3}
    assert parse(json.dumps(told | {"time": 5}))[1] == 5.0
    for time in (10**400, True, "1", None):
        with pytest.raises(WorldError, match="message.time: expected"):
            parse(json.dumps(told | {"time": time}))


# --- trainings ------------------------------------------------------------------------------------


def _run(folder: Path) -> Run:
    return Run(folder, nn.Linear(2, 1), FitConfig(steps=3, bf16=False), {"a": 1})


def test_a_pipe_in_a_run_folder_is_not_waited_for(tmp_path: Path):
    for name in ("checkpoint", "log.jsonl"):
        (tmp_path / name).mkdir()
        os.mkfifo(tmp_path / name / name)
        with pytest.raises(CheckpointError, match="no regular file"):
            _run(tmp_path / name)


@pytest.mark.parametrize(
    "change",
    [{"seconds": "1"}, {"seconds": 10**400}, {"format": "x"}, {"plans": {"vae": {"steps": 1}}},
     {"plans": {"vae": {"steps": "x", "compile": False, "step_seconds": 0.0, "until": 0.0}}},
     {"plans": {"vae": {"steps": 0, "compile": False, "step_seconds": 0.0, "until": 0.0}}}],
)  # fmt: skip
def test_a_run_s_plans_are_checked_when_they_are_read(tmp_path: Path, change: dict[str, Any]):
    RunState(tmp_path, {"a": 1}).plan("vae", StagePlan(5, False))
    path = tmp_path / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match="expected the settings of a training run"):
        RunState(tmp_path, {"a": 1})


def test_numbers_of_a_log_are_finite_or_none(tmp_path: Path):
    rows = [(1, 1.0, 2), (2, "x", 10**400), ([], 3.0, -1), (4, 5, None)]
    lines = (dict(zip(("step", "time", "seconds"), row, strict=True)) for row in rows)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "log.jsonl").write_text(text + '{"step": NaN, "time": 1e999}\n')
    assert trained_seconds(tmp_path / "vae") == 2.0
    assert training_cost(tmp_path)["stages"] == {"vae": {"seconds": 4.0, "steps": 4}}


def test_weights_of_another_network_are_told_apart_by_name_type_and_shape(tmp_path: Path):
    network = nn.Linear(2, 1)
    for other in (nn.Linear(3, 1), nn.Linear(2, 1).double(), nn.Linear(2, 1, bias=False)):
        save_tensors(tmp_path / "x", other.state_dict())
        with pytest.raises(TensorFileError, match="give the sizes and the data"):
            load_weights(tmp_path / "x", network)
    save_tensors(tmp_path / "x", network.state_dict())
    torch.set_default_dtype(torch.float64)
    try:
        assert load_weights(tmp_path / "x", nn.Linear(2, 1)).weight.dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_latent_action_model_takes_no_memory_before_it_fits(tmp_path: Path):
    path = tmp_path / "model"
    save_latent_actions(LatentActionModel(LatentActionConfig(chunk=2, size=(8, 8))), path)
    tensors, about = load_tensors(path)
    save_tensors(path, tensors, about | {"config": about["config"] | {"window": 10**7}})
    with pytest.raises(TensorFileError, match="expected float32"):
        load_latent_actions(path)


@pytest.mark.parametrize(
    "change",
    [{"latent": torch.zeros(3, 2)}, {"confidence": torch.zeros(2)}, {"lengths": torch.tensor([9])},
     {"lengths": torch.tensor([-1, 4])}, {"names": torch.zeros(3, dtype=torch.uint8)},
     {"latent": torch.zeros(3, 6, dtype=torch.float16)}],
)  # fmt: skip
def test_labels_fit_each_other(tmp_path: Path, change: dict[str, torch.Tensor]):
    path, latent = tmp_path / "x", {"a": torch.ones(2, 6), "b": torch.zeros(1, 6)}
    save_labels(LatentLabels(6, latent, {n: x[:, 0] for n, x in latent.items()}), path)
    assert torch.equal(load_labels(path).latent["a"], latent["a"])
    tensors, about = load_tensors(path)
    save_tensors(path, tensors | change, about)
    with pytest.raises(TensorFileError, match="expected a whole file"):
        load_labels(path)
    for width in (None, "x", 10**400):
        save_tensors(path, tensors, about | {"width": width})
        with pytest.raises(TensorFileError, match="width"):
            load_labels(path)


# --- shards ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "", "a\0b", "x" * 999])
def test_a_shard_s_manifest_names_files_of_its_own_folder(tmp_path: Path, path: str):
    place = manifest.shard_path(tmp_path, 0)
    place.parent.mkdir()
    file = {"path": path, "bytes": 1, "sha256": ""}
    place.write_text(json.dumps({"shard": 0, "files": [file], "episodes": []}))
    assert manifest.read_shard(tmp_path, 0) is None


# --- links ----------------------------------------------------------------------------------------


def test_a_loop_of_links_is_refused_where_it_is_met(tmp_path: Path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(WorldError, match="expected"):
        load(loop)
    folder = write_v3(tmp_path / "set")
    [rows] = (folder / "data").rglob("*.parquet")
    rows.unlink()
    rows.symlink_to(rows)
    with pytest.raises(DatasetError, match="symbolic link"):
        open_dataset(folder, camera="top")


# --- pictures -------------------------------------------------------------------------------------


def test_a_picture_is_of_a_listed_format_and_size(tmp_path: Path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    with pytest.raises(WorldError, match="picture.png: expected a picture"):
        read_media(path, (8, 8), 10.0)
    Image.new("1", (12_000, 12_000)).save(path)
    with pytest.raises(WorldError, match="144000000 pixels, more than"):
        read_media(path, (8, 8), 10.0)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(WorldError, match="no regular file"):
        read_media(path, (8, 8), 10.0)


# --- tables ---------------------------------------------------------------------------------------


def test_a_long_text_that_many_rows_share_is_held_once(tmp_path: Path):
    path = tmp_path / "t.parquet"
    rows = pa.array(np.zeros(50_000, np.int32))
    words = pa.DictionaryArray.from_arrays(rows, pa.array(["x" * 10**6]))
    lists = pa.ListArray.from_arrays(pa.array(np.arange(50_001, dtype=np.int32)), words)
    plain = pa.table({"text": words, "several": lists, "reward": np.zeros(50_000)})
    pq.write_table(plain.replace_schema_metadata(), path, compression="zstd", store_schema=False,
                   row_group_size=20_000)  # fmt: skip
    assert path.stat().st_size < 10**6
    found = read_parquet(path)
    assert found["text"][0] is found["text"][-1] and len(found["several"]) == 50_000
    assert np.asarray(found["reward"]).dtype == np.float64


def test_no_byte_of_a_table_s_metadata_ends_the_process(tmp_path: Path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"action": [[0.5, 1.0]] * 6}), path, store_schema=False)
    good = path.read_bytes()
    refused = 0
    for place in range(len(good) - 8 - int.from_bytes(good[-8:-4], "little"), len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        try:
            read_parquet(path)
        except DatasetError:
            refused += 1
    assert refused > 100


def test_values_are_counted_where_they_lie(tmp_path: Path):
    path = tmp_path / "t.parquet"
    row = pa.ListArray.from_arrays(pa.array([0, 2**20]), pa.array(np.zeros(2**20, np.float32)))
    pq.write_table(pa.table({"action": row}), path)
    few, many = b"\x80\x80\x80\1", b"\xfe\xff\xff\x7f"  # 2**20, 2**27 - 1 in Thrift's way
    page, metadata = path.read_bytes().split(few, 1)
    path.write_bytes(page + many + metadata)
    with pytest.raises(
        DatasetError, match="at most 67108864 bytes unpacked, got 1073741824 bytes or more"
    ):
        read_parquet(path)


def test_an_action_of_texts_is_no_array_of_them(tmp_path: Path):
    folder = write_v3(tmp_path / "set")
    for path in (folder / "data").rglob("*.parquet"):
        table = pq.read_table(path)
        texts = pa.array(["a"] * (len(table) - 1) + ["x" * 10**6])
        place = table.schema.get_field_index("action")
        pq.write_table(table.set_column(place, "action", texts), path)
    with pytest.raises(DatasetError, match=r"columns: expected numbers.*\['action'\]"):
        open_dataset(folder, camera="top")


def test_cells_of_a_table_are_counted(tmp_path: Path):
    (tmp_path / "t.csv").write_text("a,b\n" + "1,2\n" * 600_000)
    with pytest.raises(DatasetError, match="size: expected at most 1048576 cells"):
        read_tables(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("a,b\n" + "\n" * 2_000_000)
    with pytest.raises(DatasetError, match="more than 1048576 lines"):
        read_tables(tmp_path / "t.csv")


@pytest.mark.parametrize("row", ["a,1e300,0", "a,x,0", "a,0.5,0", "a,,0", "a,0,"])
def test_labels_of_no_chunk_are_refused(tmp_path: Path, row: str):
    (tmp_path / "t.csv").write_text(f"episode,chunk,action\n{row}\n")
    with pytest.raises(WorldError, match="expected"):
        Labels.read(tmp_path / "t.csv")


# --- cost -----------------------------------------------------------------------------------------


def _many_names() -> None:
    names = [str(i) for i in range(100_000)]
    assert repeated([*names, "99999"]) == "99999" and repeated(names) is None


def _many_captions() -> None:
    count = 30_000
    said = [Caption(first=0, stop=count - i, text=str(i)) for i in range(count)]
    frames = np.zeros((count, 8, 8, 3), np.uint8)
    told = by_chunk(Episode(name="a", frames=frames, chunk=1, fps=1.0, captions=tuple(said)))
    assert told[0] == str(count - 1) and told[-1] == "0"


@pytest.mark.parametrize("work", [_many_names, _many_captions])
def test_no_cost_grows_with_the_square(work: Callable[[], None]):
    work()


def test_a_folder_of_many_tables_is_looked_through_once(tmp_path: Path):
    write(tmp_path / "film.mkv", noise(4, 16, 16), fps=10)
    names = "".join(f"film-{i}.mkv,1\n" for i in range(20_000))
    (tmp_path / "all.csv").write_text("file,reward\n" + names)
    with pytest.raises(DatasetError, match="file: expected a film in"):
        open_dataset(tmp_path)
