"""What a LeRobot folder says of itself: `info.json`, and where each episode lies.

Every path is made of a template in a file, and none of them leads out of the folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from worldsim.config import ConfigError, parse_json, read_json, short
from worldsim.files import plain_lines, resolved

from .dataset import DatasetError, unfit
from .parquet import read_parquet
from .tables import Columns

MAX_INFO, MAX_LINES = 2**22, 2**26  # bytes of info.json, of the list of episodes of v2
IMAGES = ("video",)


@dataclass(frozen=True)
class Row:
    """Where one episode lies."""

    index: int
    length: int
    tasks: tuple[str, ...]
    data: Path
    films: dict[str, tuple[Path, float]]  # camera: file, and seconds in it

    @property
    def text(self) -> str:
        """Its task; "" where it has several."""
        return self.tasks[0] if len(self.tasks) == 1 else ""


def features_of(info: dict[str, Any], folder: Path) -> dict[str, dict[str, Any]]:
    """What each column is; raises DatasetError."""
    found = get(info, "features", dict, folder)
    for name, feature in found.items():
        if not isinstance(feature, dict):
            raise unfit(folder / "meta/info.json", short(name, 80), "an object", short(feature, 80))
    return found


def _row(index: int, length: int, tasks: tuple[str, ...], data: Path, films: Any) -> Row:
    if not 0 <= index < 2**40 or not 0 < length < 2**40:
        raise ValueError(f"episode {index} of {length} frames")
    if not all(isfinite(seconds) for _, seconds in films.values()):
        raise ValueError(f"episode {index}: films that begin at no time")
    return Row(index, length, tasks, data, films)


def rows_v3(folder: Path, info: dict[str, Any]) -> list[Row]:
    """The episodes of a v3 folder, in order; raises DatasetError."""
    cameras = [n for n, f in info["features"].items() if f.get("dtype") in IMAGES]
    files = sorted((folder / "meta" / "episodes").rglob("*.parquet"))
    keys = ("chunk_index", "file_index", "from_timestamp")
    wanted = ["episode_index", "length", "tasks", "data/chunk_index", "data/file_index"]
    wanted += [f"videos/{name}/{key}" for name in cameras for key in keys]
    rows = [row for path in files for row in _records(read_parquet(path, wanted))]
    found = []
    for row in rows:
        try:
            at = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
            films = {}
            for name in cameras:
                chunk, file, start = (row[f"videos/{name}/{key}"] for key in keys)
                film = _place(folder, info, "video_path", video_key=name, chunk_index=int(chunk),
                              file_index=int(file))  # fmt: skip
                films[name] = film, float(start)
            data = _place(folder, info, "data_path", **{k: int(v) for k, v in at.items()})
            tasks = _tasks(row.get("tasks"))
            index, length = int(row["episode_index"]), int(row["length"])
            found.append(_row(index, length, tasks, data, films))
        except DatasetError:
            raise
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            got = short(error, 100)
            raise unfit(folder / "meta/episodes", "columns", "those of v3.0", got) from error
    return sorted(found, key=lambda row: row.index)


def rows_v2(folder: Path, info: dict[str, Any]) -> list[Row]:
    """The episodes of a v2 folder, in order; raises DatasetError."""
    cameras = [n for n, f in info["features"].items() if f.get("dtype") in IMAGES]
    path, found = folder / "meta" / "episodes.jsonl", []
    for line in _lines_of(path):
        try:
            row = _object(parse_json(line, path.name), path)
            index, length = int(row["episode_index"]), int(row["length"])
            at = {"episode_chunk": index // int(info.get("chunks_size", 1000)),
                  "episode_index": index}  # fmt: skip
            films = {n: (_place(folder, info, "video_path", video_key=n, **at), 0.0)
                     for n in cameras}  # fmt: skip
            data = _place(folder, info, "data_path", **at)
            found.append(_row(index, length, _tasks(row.get("tasks")), data, films))
        except DatasetError:
            raise
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            got = short(error, 100)
            raise unfit(path, "episode", "episode_index, length and tasks", got) from error
    return sorted(found, key=lambda row: row.index)


def _records(columns: Columns) -> list[dict[str, Any]]:
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, values, strict=True)) for values in rows]


def _tasks(tasks: Any) -> tuple[str, ...]:
    return tuple(map(str, tasks)) if isinstance(tasks, list) else (str(tasks or ""),)


def _place(folder: Path, info: dict[str, Any], key: str, **values: Any) -> Path:
    """A file by the template that info.json gives, which may not lead out of the folder."""
    template = str(info.get(key))
    fields = {name.partition(":")[0] for name in re.findall(r"{([^{}]*)}", template)}
    braces = "".join(re.findall(r"{[^}]*}", template))
    if not fields <= values.keys() or re.search(r"[.\[!]", braces):
        raise unfit(folder, key, f"a template of {sorted(values)}", short(template, 100))
    if len(template) > 1000 or re.search(r"\d{4}", braces):  # a width of a field is memory
        raise unfit(folder, key, "a short template", short(template, 100))
    try:
        path = folder / template.format(**values)
    except (LookupError, ValueError) as error:
        raise unfit(folder, key, f"a template of {sorted(values)}", short(template, 100)) from error
    if "\0" in str(path) or not resolved(path).is_relative_to(resolved(folder)):
        raise unfit(folder, key, "a path within the folder", short(template, 100))
    return path


def _lines_of(path: Path) -> Iterator[bytes]:
    try:
        yield from (line for line in plain_lines(path, MAX_LINES) if line.strip())
    except OSError as error:
        got = error.strerror or str(error)
        raise unfit(path, "file", "a text file of a LeRobot dataset", got) from error


def _object(value: Any, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise unfit(path, "contents", "an object", short(value, 80))
    return value


def read_info(path: Path) -> dict[str, Any]:
    """The object in `info.json`; raises DatasetError."""
    try:
        return _object(read_json(path, MAX_INFO), path)
    except ConfigError as error:
        raise unfit(path, "contents", "JSON", str(error)) from error


def get(info: dict[str, Any], key: str, kind: Any, folder: Path) -> Any:
    """An entry of `info.json` of this kind; raises DatasetError."""
    if not isinstance(value := info.get(key), kind):
        raise unfit(folder / "meta/info.json", key, str(kind), short(value, 80))
    return value
