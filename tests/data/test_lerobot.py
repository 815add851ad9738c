"""LeRobot sets written here by pyarrow and PyAV after the public description of the format."""

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.contracts import check_dataset
from tests.data.films import noise, write
from tests.measured_data import stored, stripes
from worldsim.core import ActionSpec
from worldsim.data import DatasetError, DatasetSpec, Episode
from worldsim.data.captions import by_chunk
from worldsim.data.dataset import Caption
from worldsim.data.export import export
from worldsim.data.lerobot import LeRobotDataset
from worldsim.data.open import open_dataset

LENGTHS = (6, 9, 5)
CAMERAS = ("observation.images.top", "observation.images.wrist")
TASKS = ("push the block", "go home")


def columns(index: int) -> dict[str, np.ndarray]:
    """The rows of an episode."""
    rng, count = np.random.default_rng(index), LENGTHS[index]
    return {
        "action": rng.uniform(-1, 1, (count, 2)).astype(np.float32),
        "observation.state": rng.standard_normal((count, 3)).astype(np.float32),
        "next.reward": rng.standard_normal(count).astype(np.float32),
        "next.done": np.arange(count) == count - 1,
        "timestamp": np.arange(count, dtype=np.float32) / 10,
        "frame_index": np.arange(count),
        "episode_index": np.full(count, index),
        "index": sum(LENGTHS[:index]) + np.arange(count),
        "task_index": np.full(count, index % 2),
    }


def pictures(index: int, camera: int) -> np.ndarray:
    return noise(LENGTHS[index], 16, 24, 10 * camera + index)


def write_rows(path: Path, rows: list[dict[str, np.ndarray]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {k: np.concatenate([r[k] for r in rows]) for k in rows[0]}
    pq.write_table(pa.table({k: v.tolist() for k, v in whole.items()}), path)


def info(version: str, **paths: str) -> dict[str, Any]:
    video = {"dtype": "video", "shape": [16, 24, 3], "names": ["height", "width", "channel"]}
    return {
        "codebase_version": version, "fps": 10, "chunks_size": 1000, "total_episodes": 3, **paths,
        "features": {
            **dict.fromkeys(CAMERAS, video),
            "action": {"dtype": "float32", "shape": [2], "names": None},
            "observation.state": {"dtype": "float32", "shape": [3], "names": ["x", "y", "z"]},
            "next.reward": {"dtype": "float32", "shape": [1], "names": None},
            "next.done": {"dtype": "bool", "shape": [1], "names": None},
        },
    }  # fmt: skip


def write_v2(root: Path) -> Path:
    for i in range(3):
        write_rows(root / f"data/chunk-000/episode_{i:06d}.parquet", [columns(i)])
        for c, name in enumerate(CAMERAS):
            write(root / f"videos/chunk-000/{name}/episode_{i:06d}.mkv", pictures(i, c), fps=10)
    (root / "meta").mkdir()
    chunk, file = "chunk-{episode_chunk:03d}", "episode_{episode_index:06d}"
    paths = {
        "data_path": f"data/{chunk}/{file}.parquet",
        "video_path": f"videos/{chunk}/{{video_key}}/{file}.mkv",
    }
    (root / "meta/info.json").write_text(json.dumps(info("v2.1", **paths)))
    lines = [{"episode_index": i, "tasks": [TASKS[i % 2]], "length": LENGTHS[i]} for i in range(3)]
    (root / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    (root / "meta/tasks.jsonl").write_text(
        "\n".join(json.dumps({"task_index": i, "task": t}) for i, t in enumerate(TASKS))
    )
    return root


def write_v3(root: Path) -> Path:
    write_rows(root / "data/chunk-000/file-000.parquet", [columns(i) for i in range(3)])
    rows, start = [], 0
    for i, length in enumerate(LENGTHS):
        at = {"chunk_index": 0, "file_index": 0}
        rows.append({
            "episode_index": i, "tasks": [TASKS[i % 2]], "length": length,
            "dataset_from_index": start, "dataset_to_index": start + length,
            **{f"data/{k}": v for k, v in at.items()},
            **{f"videos/{c}/{k}": v for c in CAMERAS for k, v in at.items()},
            **{f"videos/{c}/from_timestamp": start / 10 for c in CAMERAS},
            **{f"videos/{c}/to_timestamp": (start + length) / 10 for c in CAMERAS},
        })  # fmt: skip
        start += length
    for c, name in enumerate(CAMERAS):
        frames = np.concatenate([pictures(i, c) for i in range(3)])
        write(root / f"videos/{name}/chunk-000/file-000.mkv", frames, fps=10)
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    table = pa.table({k: [row[k] for row in rows] for k in rows[0]})
    pq.write_table(table, root / "meta/episodes/chunk-000/file-000.parquet")
    paths = {
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mkv",
    }
    (root / "meta/info.json").write_text(json.dumps(info("v3.0", **paths)))
    return root


@pytest.mark.parametrize("make", [write_v2, write_v3])
def test_every_value_is_the_source_s(tmp_path: Path, make):
    data = open_dataset(make(tmp_path), camera="wrist")
    check_dataset(data)
    assert data.lengths == [6, 9, 5] and data.spec.fps == 10
    assert data.spec.state == ("x", "y", "z") and data.spec.frame_shape == (16, 24, 3)
    for i in range(3):
        episode, source = data.episode(i), columns(i)
        np.testing.assert_array_equal(episode.frames[:], pictures(i, 1))
        assert episode.actions is not None and episode.known is not None
        assert episode.known.tolist() == [False] + [True] * (LENGTHS[i] - 1)
        np.testing.assert_array_equal(episode.actions[1:], source["action"][:-1])
        assert episode.rewards is not None and episode.rewards[0] == 0
        np.testing.assert_array_equal(episode.rewards[1:], source["next.reward"][:-1])
        np.testing.assert_array_equal(episode.state, source["observation.state"])
        assert episode.text == TASKS[i % 2]


def test_several_cameras_are_chosen_or_tiled(tmp_path: Path):
    write_v3(tmp_path)
    with pytest.raises(DatasetError, match=r"camera: expected one of \['top', 'wrist'\], or"):
        open_dataset(f"lerobot:{tmp_path}")
    tiled = open_dataset(tmp_path, camera="tile").episode(2).frames
    assert tiled.shape == (5, 16, 48, 3)
    np.testing.assert_array_equal(tiled[1:3], np.concatenate(
        [pictures(2, 0)[1:3], pictures(2, 1)[1:3]], 2))  # fmt: skip
    with pytest.raises(DatasetError, match="chunk: expected 1, as an action is given for each"):
        LeRobotDataset(tmp_path, chunk=2, camera="top")


def test_rows_that_do_not_fit_their_episode_are_refused(tmp_path: Path):
    write_v3(tmp_path)
    write_rows(tmp_path / "data/chunk-000/file-000.parquet", [columns(0), columns(1)])
    with pytest.raises(DatasetError, match=r"file-000.parquet: episode 2: expected 5 rows, got 0"):
        open_dataset(tmp_path, camera="top")


# --- export, read back by pyarrow and PyAV alone ---


def exported(tmp_path: Path):
    spec = DatasetSpec(
        name="held", frame_shape=(16, 24, 3), fps=12.5, chunk=2, has_rewards=True, has_text=True,
        action=ActionSpec(kind="continuous", low=(-1.0, 0.0), high=(1.0, 1.0)), state=("v",),
    )  # fmt: skip

    def made(seed: int, chunks: int) -> Episode:
        bare = stripes(seed, chunks)
        state = np.arange(chunks, dtype=np.float32)[:, None]
        values = vars(bare) | {"text": f"task {seed % 2}", "state": state}
        if seed == 2:
            later = Caption(first=3, stop=chunks, text="go home")
            values |= {"text": "", "captions": (Caption(first=0, stop=3, text="push it"), later)}
        return Episode(**values)

    data = stored(tmp_path / "own", spec, train=[made(i, 5 + i) for i in range(3)])
    return data, export(data, tmp_path / "out", "lerobot")


def test_an_export_is_read_by_another_reader(tmp_path: Path):
    data, folder = exported(tmp_path)
    told = json.loads((folder / "meta/info.json").read_text())
    assert told["codebase_version"] == "v3.0" and told["total_frames"] == 36
    table = pq.read_table(folder / told["data_path"].format(chunk_index=0, file_index=0))
    table = table.to_pydict()
    film = folder / told["video_path"].format(
        video_key="observation.images.main", chunk_index=0, file_index=0
    )
    with av.open(str(film)) as container:
        shown = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    tasks = pq.read_table(folder / "meta/tasks.parquet").to_pydict()
    names = dict(zip(tasks["task_index"], tasks["__index_level_0__"], strict=True))
    rows = pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    for i, row in enumerate(rows):
        episode, here = data.episode(i), slice(row["dataset_from_index"], row["dataset_to_index"])
        assert row["length"] == len(episode.frames) and row["tasks"] == list(
            dict.fromkeys(by_chunk(episode))
        )
        assert abs(shown[here].astype(int) - episode.frames[:]).mean() < 4
        assert episode.actions is not None and episode.rewards is not None
        led = np.repeat(episode.actions, 2, 0)[1:]
        np.testing.assert_array_equal(np.asarray(table["action"][here], np.float32)[:-1], led)
        earned = np.asarray(table["next.reward"][here], np.float32)
        np.testing.assert_array_equal(earned[0::2], episode.rewards)
        told = [names[t] for t in table["task_index"][here]]
        assert told == [text for text in by_chunk(episode) for _ in range(2)]
        assert table["next.done"][here] == [False] * (row["length"] - 1) + [True]
        start = row["videos/observation.images.main/from_timestamp"]
        assert start == pytest.approx(row["dataset_from_index"] / 12.5)


def test_an_export_is_read_by_ours_and_by_torchrl(tmp_path: Path):
    data, folder = exported(tmp_path)
    again = open_dataset(folder)
    check_dataset(again)
    assert again.spec.action.shape == (2,) and again.spec.state == ("v",)
    for i in range(3):
        assert abs(again.episode(i).frames[:].astype(int) - data.episode(i).frames[:]).mean() < 4
        assert again.episode(i).text == data.episode(i).text
        by_frame = [text for text in by_chunk(data.episode(i)) for _ in range(2)]
        assert by_chunk(again.episode(i)) == by_frame
    lerobot = pytest.importorskip("torchrl.data.datasets.lerobot")
    snapshot = object.__new__(lerobot._LeRobotSnapshot)
    snapshot.root, snapshot.info = folder, json.loads((folder / "meta/info.json").read_text())
    snapshot.major_version, snapshot.fps = 3, 12.5
    snapshot.episodes, snapshot.tasks = snapshot._load_episodes(), snapshot._load_tasks()
    paths, counts = snapshot.video_segments("observation.images.main")
    assert [Path(p).name for p in paths] == ["file-000.mp4"] and counts == [36]
    assert snapshot.tasks == dict(enumerate(("task 0", "task 1", "push it", "go home")))


@pytest.mark.parametrize("kind", ["native", "video"])
def test_other_formats_bring_back_what_went_out(tmp_path: Path, kind):
    data, _ = exported(tmp_path)
    again = open_dataset(export(data, tmp_path / kind, kind))
    check_dataset(again)
    for i in range(3):
        before, after = data.episode(i), again.episode(i)
        assert after.text == before.text or kind == "video"  # whose first row counts
        assert abs(after.frames[:].astype(int) - before.frames[:]).mean() < 4
        held = 1 if kind == "native" else 2
        assert before.actions is not None and before.rewards is not None
        np.testing.assert_allclose(after.actions, np.repeat(before.actions, held, 0), rtol=1e-6)
        assert after.rewards is not None
        assert after.rewards.sum() == pytest.approx(before.rewards.sum(), rel=1e-5)
