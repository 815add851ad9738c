"""LeRobot v3.0 folders written by pyarrow and PyAV."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from worldsim.files import atomic_path

from .captions import by_chunk
from .dataset import Dataset, DatasetSpec, Episode
from .encode import write_film
from .export import CRF, by_frame, frames_of
from .indexed import say
from .parquet import pyarrow_parquet

CAMERA = "observation.images.main"
FILE_FRAMES = 50_000  # rows and frames of one file
GOP = 8
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


def to_lerobot(data: Dataset, folder: Path) -> None:
    """Write all episodes; `info.json` comes last, so that a folder without it is half-written.

    `action` of a row is taken at its frame and leads into the next one; the action that led into
    an episode's first frame has no place there, and the last row repeats the one before. A row has
    one task: of captions that lie side by side the first.
    """
    pyarrow_parquet()  # what is missing is told before anything is written
    tasks: dict[str, int] = {}
    episodes: list[dict[str, Any]] = []
    statistics = Statistics()
    for number, places in enumerate(_files(data)):
        rows = _write_file(data, places, number, folder, tasks, episodes)
        statistics.add(rows)
    for number, row in enumerate(episodes):
        row["episode_index"] = number
    write_table(folder / "meta/episodes/chunk-000/file-000.parquet", described(episodes))
    write_tasks(folder / "meta/tasks.parquet", tasks)
    write_json(folder / "meta/stats.json", statistics.summary())
    write_json(folder / "meta/info.json", info(data.spec, episodes, tasks))


def _files(data: Dataset) -> Iterator[list[int]]:
    places, frames = [], 0
    for place, length in enumerate(data.lengths):
        if places and frames + length * data.spec.chunk > FILE_FRAMES:
            yield places
            places, frames = [], 0
        places, frames = [*places, place], frames + length * data.spec.chunk
    yield places


def _write_file(
    data: Dataset, places: list[int], number: int, folder: Path, tasks: dict[str, int],
    episodes: list[dict[str, Any]],
) -> dict[str, NDArray[Any]]:  # fmt: skip
    at = {"chunk_index": number // 1000, "file_index": number % 1000}
    spec, parts, start = data.spec, [], 0

    def frames() -> Iterator[NDArray[np.uint8]]:
        nonlocal start
        for place in tqdm(places, desc="episodes"):
            episode = data.episode(place)
            index = len(episodes)
            first = episodes[-1]["dataset_to_index"] if episodes else 0
            count = len(episode.frames)
            texts = by_chunk(episode)
            numbers = np.array([tasks.setdefault(text, len(tasks)) for text in texts])
            parts.append(rows_of(episode, spec, index, first, numbers))
            named = tuple(dict.fromkeys(texts))
            episodes.append(episode_row(index, named, first, count, start, spec.fps, at))
            start += count
            yield from frames_of(episode)

    film = folder / VIDEO.format(video_key=CAMERA, **at)
    film.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(film) as part:
        write_film(part, frames(), spec.fps, crf=CRF, gop=GOP)
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    write_table(folder / DATA.format(**at), rows)
    return rows


def episode_row(
    index: int, tasks: Sequence[str], first: int, length: int, start: int, fps: float,
    at: dict[str, int],
) -> dict[str, Any]:  # fmt: skip
    """What `meta/episodes` says of an episode: `length` rows from `first` on, and as many frames
    of its file from frame `start` on. at: chunk_index and file_index of film and table."""
    return {
        "episode_index": index, "tasks": list(tasks), "length": length,
        "dataset_from_index": first, "dataset_to_index": first + length,
        **{f"data/{k}": v for k, v in at.items()},
        **{f"videos/{CAMERA}/{k}": v for k, v in at.items()},
        f"videos/{CAMERA}/from_timestamp": start / fps,
        f"videos/{CAMERA}/to_timestamp": (start + length) / fps,
        "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0,
    }  # fmt: skip


def rows_of(
    episode: Episode, spec: DatasetSpec, index: int, first: int, tasks: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """The rows of one episode, one a frame; tasks (N,), the number of each chunk's."""
    count, held = len(episode.frames), by_frame(episode, spec)
    numbers = np.arange(count)
    following = np.minimum(numbers + 1, count - 1)
    rows: dict[str, NDArray[Any]] = {}
    if spec.action.kind != "none":
        if not held.known[1:].all():
            say(f"{episode.name}: LeRobot knows no unknown actions: they are written as the least")
        actions = held.actions.numpy()[following]
        rows["action"] = actions.reshape(count, -1)
    if spec.state:
        absent = np.zeros((len(episode), len(spec.state)), np.float32)
        state = absent if episode.state is None else episode.state
        rows["observation.state"] = np.repeat(state, episode.chunk, 0)
    if spec.has_rewards:
        rewards = held.rewards.numpy()[following]
        rewards[-1] = 0
        rows["next.reward"] = rewards
    done = np.zeros(count, bool)
    done[-1] = episode.terminated or episode.truncated
    rows |= {
        "next.done": done, "timestamp": (numbers / spec.fps).astype(np.float32),
        "frame_index": numbers, "episode_index": np.full(count, index), "index": first + numbers,
        "task_index": np.repeat(tasks, episode.chunk),
    }  # fmt: skip
    return rows


class Statistics:
    """Least, most, mean and spread of each column, over all files."""

    def __init__(self) -> None:
        self.parts: dict[str, list[tuple[Any, ...]]] = {}

    def add(self, rows: dict[str, NDArray[Any]]) -> None:
        """Take the rows of a file into account."""
        for name, values in rows.items():
            x = values.reshape(len(values), -1).astype(np.float64)
            self.parts.setdefault(name, []).append(
                (len(x), x.min(0), x.max(0), x.sum(0), (x**2).sum(0))
            )

    def summary(self) -> dict[str, Any]:
        """What `meta/stats.json` says."""
        found = {}
        for name, parts in self.parts.items():
            counts, lows, highs, sums, squares = zip(*parts, strict=True)
            count = sum(counts)
            mean = np.sum(sums, 0) / count
            std = np.sqrt(np.maximum(np.sum(squares, 0) / count - mean**2, 0))
            low, high = np.min(lows, 0), np.max(highs, 0)
            values = {"min": low, "max": high, "mean": mean, "std": std}
            found[name] = {k: v.tolist() for k, v in values.items()} | {"count": [count]}
        return found


def info(spec: DatasetSpec, episodes: list[Any], tasks: dict[str, int]) -> dict[str, Any]:
    """What `meta/info.json` says of episodes described by `episode_row`."""
    height, width, _ = spec.frame_shape
    scalar = {"dtype": "int64", "shape": [1], "names": None}
    features: dict[str, Any] = {
        CAMERA: {
            "dtype": "video", "shape": [height, width, 3], "names": ["height", "width", "channels"],
            "info": {
                "video.fps": spec.fps, "video.height": height, "video.width": width,
                "video.channels": 3, "video.codec": "h264", "video.pix_fmt": "yuv420p",
                "video.is_depth_map": False, "has_audio": False,
            },
        },
        **{n: scalar for n in ("frame_index", "episode_index", "index", "task_index")},
        "timestamp": scalar | {"dtype": "float32"}, "next.done": scalar | {"dtype": "bool"},
    }  # fmt: skip
    if spec.action.kind != "none":
        width = int(np.prod(spec.action.shape))
        dtype = "int64" if spec.action.is_discrete else "float32"
        features["action"] = {"dtype": dtype, "shape": [width], "names": None}
    if spec.state:
        shape, names = [len(spec.state)], list(spec.state)
        features["observation.state"] = {"dtype": "float32", "shape": shape, "names": names}
    if spec.has_rewards:
        features["next.reward"] = scalar | {"dtype": "float32"}
    total = episodes[-1]["dataset_to_index"]
    return {
        "codebase_version": "v3.0", "robot_type": "worldsim", "total_episodes": len(episodes),
        "total_frames": total, "total_tasks": len(tasks), "chunks_size": 1000,
        "data_files_size_in_mb": 100, "video_files_size_in_mb": 200,
        "fps": int(spec.fps) if spec.fps == int(spec.fps) else spec.fps,
        "splits": {"train": f"0:{len(episodes)}"}, "data_path": DATA, "video_path": VIDEO,
        "features": features,
    }  # fmt: skip


def described(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows as columns."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def write_table(
    path: Path, columns: dict[str, Any], metadata: dict[str, str] | None = None
) -> None:
    """Write a Parquet table; an array of two dimensions is a list a row."""
    parquet, arrow = pyarrow_parquet(), import_module("pyarrow")
    arrays = {
        name: arrow.FixedSizeListArray.from_arrays(values.reshape(-1), values.shape[1])
        if isinstance(values, np.ndarray) and values.ndim == 2
        else arrow.array(values)
        for name, values in columns.items()
    }
    table = arrow.table(arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
        parquet.write_table(table.replace_schema_metadata(metadata), part)


def write_tasks(path: Path, tasks: dict[str, int]) -> None:
    """Tasks as the index of a pandas table, which is where LeRobot looks for them."""
    index = {"name": None, "field_name": "__index_level_0__", "pandas_type": "unicode",
             "numpy_type": "object", "metadata": None}  # fmt: skip
    column = {"name": "task_index", "field_name": "task_index", "pandas_type": "int64",
              "numpy_type": "int64", "metadata": None}  # fmt: skip
    told = {"index_columns": ["__index_level_0__"], "columns": [column, index],
            "column_indexes": [], "pandas_version": "2.2.0"}  # fmt: skip
    columns = {"task_index": list(tasks.values()), "__index_level_0__": list(tasks)}
    write_table(path, columns, {"pandas": json.dumps(told)})


def write_json(path: Path, value: Any) -> None:
    """Write JSON, all or nothing."""
    with atomic_path(path) as part:
        part.write_text(json.dumps(value, indent=4) + "\n", encoding="utf-8")
