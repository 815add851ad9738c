"""Tasks of LeRobot datasets: one a row, so that an episode may have several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldsim.config import parse_json
from worldsim.files import plain_lines

from .captions import merged
from .dataset import Caption, unfit
from .parquet import read_parquet

MAX_TASKS = 2**26  # bytes of v2's list


def read_tasks(folder: Path) -> dict[int, str]:
    """Each task by its number, of v2.1 or v3.0; raises DatasetError."""
    table, lines = folder / "meta" / "tasks.parquet", folder / "meta" / "tasks.jsonl"
    path = table if table.exists() else lines
    try:
        rows = _table(table) if path is table else _lines(lines)
        return {int(number): str(task) for number, task in rows}
    except (OSError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise unfit(path, "tasks", "a number and a task a row", str(error)[:100]) from error


def _table(path: Path) -> list[tuple[Any, Any]]:
    columns = read_parquet(path)
    names = columns.get("task") or columns["__index_level_0__"]
    return list(zip(columns["task_index"], names, strict=True))


def _lines(path: Path) -> list[tuple[Any, Any]]:
    lines = (line for line in plain_lines(path, MAX_TASKS) if line.strip())
    rows = (parse_json(line, path.name) for line in lines)
    return [(row["task_index"], row["task"]) for row in rows]


def captions_of(
    numbers: NDArray[Any], chunk: int, tasks: dict[int, str], folder: Path
) -> tuple[Caption, ...]:
    """Captions from the task of each frame, (T,); a chunk has that of its first."""
    found = []
    for number in np.ravel(numbers)[::chunk][: len(numbers) // chunk].tolist():
        if number not in tasks:  # a float may be a number, and may be none
            raise unfit(folder / "meta", "task_index", f"one of {len(tasks)} tasks", number)
        found.append((tasks[number],))
    return merged(found)
