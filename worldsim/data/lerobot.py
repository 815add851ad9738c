"""LeRobot datasets, v2.1 and v3, read where they lie by pyarrow and PyAV."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from worldsim.config import short
from worldsim.core import ActionSpec

from .dataset import DatasetSpec, Episode, Frames, unfit
from .decode import Film, FilmFrames, probe
from .indexed import Fit, FittedFrames, IndexedDataset, file_hash
from .lerobot_meta import IMAGES, Row, features_of, get, read_info, rows_v2, rows_v3
from .lerobot_tasks import captions_of, read_tasks
from .parquet import read_parquet

MAX_STATE = 4096  # entries of a state vector
COLUMNS = ("action", "observation.state", "next.reward", "next.done", "episode_index",
           "frame_index", "task_index")  # fmt: skip


class LeRobotDataset(IndexedDataset):
    """The episodes of a LeRobot folder; `action[t]` was taken at frame t and led into frame t + 1.

    So `actions[k]` of an episode is the action of row k - 1, the first one is unknown, and the
    same holds of rewards. Tasks become text, several of an episode captions of its rows,
    `observation.state` the state.

    Args:
        folder: with `meta/info.json`.
        size: (height, width) to resize to. camera: which of several, by its full name or what
            comes after "observation.images."; "tile" puts all side by side.
        chunk: 1 where there are actions.
    """

    def __init__(
        self, folder: Path | str, *, size: tuple[int, int] | None = None,
        chunk: int | None = None, camera: str | None = None,
    ) -> None:  # fmt: skip
        self.folder = Path(folder).absolute()
        self.info = read_info(self.folder / "meta" / "info.json")
        version = str(get(self.info, "codebase_version", str, self.folder))
        if not re.fullmatch(r"v[23]\.\d+", version):
            raise unfit(self.folder, "codebase_version", "v2.x or v3.x", version, "convert it")
        fps = get(self.info, "fps", (int, float), self.folder)
        if not 0 < fps <= 1e6:
            raise unfit(self.folder / "meta/info.json", "fps", "a number above 0", short(fps, 80))
        self.fps = float(fps)
        self._features = features_of(self.info, self.folder)
        self._cameras = _chosen(self._features, camera, self.folder)
        self._rows = (rows_v2 if version < "v3" else rows_v3)(self.folder, self.info)
        self._films: dict[Path, Film] = {}
        self._hashes: dict[tuple[Path, int, int], str] = {}
        self._tables: dict[Path, dict[str, NDArray[Any]]] = {}
        self._tasks: dict[int, str] | None = None
        if not self._rows:
            raise unfit(self.folder, "episodes", "at least one", "none", "give another folder")
        first = [self._film(self._rows[0], name).size for name in self._cameras]
        self._fits = [Fit.of(s, size, self.folder.name) for s in first]
        spec = self._spec(chunk or 1)
        names = [f"episode_{row.index:06d}" for row in self._rows]
        super().__init__(spec, names, [row.length // spec.chunk for row in self._rows])

    def _spec(self, chunk: int) -> DatasetSpec:
        heights = {fit.target[0] for fit in self._fits}
        if len(heights) > 1:
            expected = "cameras of one height"
            raise unfit(self.folder, "camera", expected, sorted(heights), "give size=")
        width = sum(fit.target[1] for fit in self._fits)
        action = self._action()
        if action.kind != "none" and chunk != 1:
            expected = "1, as an action is given for each frame"
            raise unfit(self.folder, "chunk", expected, chunk, "take chunk=1")
        return DatasetSpec(
            name=self.folder.resolve().name, frame_shape=(heights.pop(), width, 3), fps=self.fps,
            chunk=chunk, action=action, state=_names(self._features, self.folder),
            has_rewards="next.reward" in self._features,
            has_text=any(any(row.tasks) for row in self._rows),
        )  # fmt: skip

    def _action(self) -> ActionSpec:
        if "action" not in self._features:
            return ActionSpec(kind="none")
        arrays = []
        for row in tqdm(self._rows, desc="actions", leave=False, delay=2):
            columns = self._columns(row)
            if "action" not in columns:
                raise unfit(row.data, "columns", "one called action", sorted(columns))
            arrays.append(columns["action"])
        if len({(a.shape[1:], a.dtype) for a in arrays}) > 1:
            raise unfit(self.folder, "action", "rows of one shape and type", "several")
        every = np.concatenate(arrays)
        if every.ndim == 1 or (every.dtype.kind in "iu" and every.shape[1] == 1):
            every = every.reshape(len(every))
            if every.dtype.kind in "iu":
                low, high = int(every.min()), int(every.max())
                return ActionSpec(kind="discrete", start=low, n=high - low + 1)
        every = every.reshape(len(every), -1)
        low, high = every.min(0).astype(np.float64), every.max(0).astype(np.float64)
        high = np.where(high > low, high, low + 1)
        return ActionSpec(kind="continuous", low=tuple(low.tolist()), high=tuple(high.tolist()))

    def _columns(self, row: Row) -> dict[str, NDArray[Any]]:
        """The arrays of one episode, checked against its length."""
        if row.data not in self._tables:
            read = read_parquet(row.data, COLUMNS)
            table = {
                name: values for name, values in read.items() if isinstance(values, np.ndarray)
            }
            if others := sorted(read.keys() - table):
                raise unfit(row.data, "columns", "numbers, in rows of one shape", f"{others}")
            order = table.get("episode_index", np.zeros(0))
            if order.ndim != 1:
                raise unfit(row.data, "episode_index", "a number a row", f"{order.ndim - 1} axes")
            if (np.diff(order) < 0).any():
                table = {name: x[np.argsort(order, kind="stable")] for name, x in table.items()}
            self._tables = {row.data: table}  # the last one: episodes of a file follow each other
        table = self._tables[row.data]
        if "episode_index" not in table:
            raise unfit(row.data, "columns", "one called episode_index", sorted(table))
        first, stop = np.searchsorted(table["episode_index"], [row.index, row.index + 1])
        if stop - first != row.length:
            got = f"{stop - first} in order"
            raise unfit(row.data, f"episode {row.index}", f"{row.length} rows", got)
        found = {name: values[first:stop] for name, values in table.items()}
        for name, values in found.items():
            if values.dtype.kind not in "biuf":
                raise unfit(row.data, name, "numbers", values.dtype)
        return found

    def _film(self, row: Row, camera: str) -> Film:
        path = row.films[camera][0]
        if path not in self._films:
            self._films[path] = probe(path)
        return self._films[path]

    def _frames(self, row: Row) -> Frames:
        parts = []
        for camera, fit in zip(self._cameras, self._fits, strict=True):
            film, (path, seconds) = self._film(row, camera), row.films[camera]
            times = (film.times - film.times[0]) * film.seconds
            first = int(np.searchsorted(times, seconds - 0.5 / self.fps))
            if first + row.length > len(times) or film.size != fit.source:
                expected = f"{row.length} frames {fit.source} from {seconds:.3f} s"
                got = f"{len(times) - first} of {film.size}"
                raise unfit(path, f"episode {row.index}", expected, got)
            parts.append(FittedFrames(_Part(FilmFrames(film), first, row.length), fit))
        return parts[0] if len(parts) == 1 else _Tiled(parts)

    def _read(self, place: int) -> Episode:
        row, chunk = self._rows[place], self.spec.chunk
        told: dict[str, Any] = {}
        if len(self._features.keys() & {"action", "observation.state", "next.reward"}):
            told = self._told(row) if chunk == 1 else {}
        frames = self._frames(row)
        if row.length % chunk:
            frames = _Part(frames, 0, row.length // chunk * chunk)
        if len(row.tasks) > 1:
            if self._tasks is None:
                self._tasks = read_tasks(self.folder)
            numbers = _shaped(row, self._columns(row), "task_index", ())
            told["captions"] = captions_of(numbers, chunk, self._tasks, self.folder)
        return Episode(
            name=self._names[place], frames=frames, chunk=chunk, fps=self.fps, text=row.text, **told
        )

    def _told(self, row: Row) -> dict[str, Any]:
        told: dict[str, Any] = {}
        columns = self._columns(row)
        count = len(next(iter(columns.values())))
        if "action" in columns:
            actions = _shaped(row, columns, "action", self.spec.action.shape)
            told["actions"] = np.concatenate([actions[:1], actions[:-1]])
            told["known"] = np.arange(count) > 0
        if self.spec.state:
            told["state"] = _shaped(row, columns, "observation.state", (len(self.spec.state),))
        if "next.reward" in columns:
            rewards = _shaped(row, columns, "next.reward", ()).astype(np.float32)
            told["rewards"] = np.concatenate([np.zeros(1, np.float32), rewards[:-1]])
        if "next.done" in columns and bool(_shaped(row, columns, "next.done", ())[-1]):
            told["truncated"] = True  # it ended; whether by itself is not said
        return told

    def _key(self, place: int) -> str:
        row = self._rows[place]
        paths = [row.data, *(row.films[camera][0] for camera in self._cameras)]
        return f"{row.index} {row.length} " + " ".join(self._hash(path) for path in paths)

    def _hash(self, path: Path) -> str:
        status = path.stat()
        stamp = (path, status.st_size, status.st_mtime_ns)
        if stamp not in self._hashes:
            self._hashes[stamp] = file_hash(path)
        return self._hashes[stamp]

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_tables": {}}


def _shaped(
    row: Row, columns: dict[str, NDArray[Any]], name: str, shape: tuple[int, ...]
) -> NDArray[Any]:
    """A column's rows in their shape; DatasetError where there is none, or they are of another."""
    if name not in columns:
        raise unfit(row.data, "columns", f"one called {name}", sorted(columns))
    values = columns[name]
    if values[0].size != prod(shape):
        raise unfit(row.data, name, f"rows of {prod(shape)} numbers", f"{values[0].size}")
    return values.reshape(len(values), *shape)


class _Part:
    """Frames [first, first + count) of others."""

    dtype = np.dtype(np.uint8)

    def __init__(self, frames: Frames, first: int, count: int) -> None:
        self.frames, self.first = frames, first
        self.shape = (count, *frames.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, span: slice, /) -> NDArray[np.uint8]:
        start, stop, _ = span.indices(len(self))
        return self.frames[self.first + start : self.first + max(start, stop)]


class _Tiled:
    """Frames of several cameras side by side."""

    dtype = np.dtype(np.uint8)

    def __init__(self, parts: Sequence[Frames]) -> None:
        self.parts = parts
        count, height = parts[0].shape[:2]
        self.shape = (count, height, sum(part.shape[2] for part in parts), 3)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, span: slice, /) -> NDArray[np.uint8]:
        return np.concatenate([part[span] for part in self.parts], axis=2)


def _chosen(features: dict[str, Any], camera: str | None, folder: Path) -> list[str]:
    there = [n for n, f in features.items() if isinstance(f, dict) and f.get("dtype") in IMAGES]
    short_names = {name.removeprefix("observation.images."): name for name in there}
    if camera == "tile" and there:
        return there
    if camera is None and len(there) == 1:
        return there
    if camera in there or camera in short_names:
        return [short_names.get(str(camera), str(camera))]
    expected = f'one of {sorted(short_names)}, or "tile" for all side by side'
    raise unfit(folder, "camera", expected, repr(camera), "give camera=")


def _names(features: dict[str, Any], folder: Path) -> tuple[str, ...]:
    """A name for each entry of the state vector; () where there is none."""
    about = features.get("observation.state", {})
    shape = about.get("shape") or [0]
    sides = shape if isinstance(shape, list) else [shape]
    whole = len(sides) < 9 and all(type(x) is int and 0 <= x <= MAX_STATE for x in sides)
    if not whole or (count := prod(sides)) > MAX_STATE:
        expected = f"a shape of at most {MAX_STATE} numbers"
        raise unfit(folder / "meta/info.json", "observation.state", expected, short(shape, 80))
    names = about.get("names")
    if isinstance(names, dict) and len(names) == 1:
        names = next(iter(names.values()))
    if isinstance(names, list) and len(names) == count and all(isinstance(n, str) for n in names):
        return tuple(names)
    return tuple(f"state_{i}" for i in range(count))
