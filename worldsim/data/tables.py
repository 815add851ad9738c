"""Tables of actions beside films: CSV, or Parquet with the `lerobot` extra.

A row is a frame, in order. Columns: `action`, or several that begin with `action_` or `action.`;
`reward`; `text` (the first row's counts). Whole numbers are choices, others a box. An empty action
cell is an unknown action. One table may serve several films by a column `file`.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from worldsim.config import short
from worldsim.core import ActionSpec
from worldsim.files import open_plain

from .dataset import unfit

MAX_TABLE = 2**28  # bytes of a CSV
MAX_LINE = 2**16  # bytes of a line
SUFFIXES = (".csv", ".parquet")
REMEDY = "write a row for each frame, see docs/data-format.md"


@dataclass(frozen=True)
class Table:
    """What a table says of one film's frames; NaN where a cell is empty.

    Attributes:
        path: the file. actions: (T, A) float64, None without. whole: whether all are integers.
        rewards: (T,). text: a caption.
    """

    path: Path
    actions: NDArray[np.float64] | None
    rewards: NDArray[np.float64] | None
    text: str

    def __len__(self) -> int:
        return next((len(x) for x in (self.actions, self.rewards) if x is not None), 0)


Columns = dict[str, list[Any]]


def read_tables(path: Path) -> dict[str, Table]:
    """Tables by the value of `file`, "" where there is no such column."""
    columns = read_columns(path)
    files = [str(x) for x in columns.pop("file", [])]
    if not files:
        return {"": _table(path, columns)}
    parts: dict[str, list[int]] = {}
    for row, name in enumerate(files):
        parts.setdefault(name, []).append(row)
    return {
        name: _table(path, {k: [v[i] for i in rows] for k, v in columns.items()})
        for name, rows in parts.items()
    }


def read_columns(path: Path) -> Columns:
    """The cells of a CSV or Parquet table by column; raises DatasetError for anything else."""
    return _parquet(path) if path.suffix == ".parquet" else _csv(path)


def _csv(path: Path) -> Columns:
    try:
        with open_plain(path) as file:
            if (size := os.fstat(file.fileno()).st_size) > MAX_TABLE:
                raise unfit(path, "size", f"at most {MAX_TABLE} bytes", size, REMEDY)
            rows = csv.reader(_lines(file, path))
            head = [name.strip() for name in next(rows, [])]
            if not head or len(set(head)) < len(head):
                raise unfit(path, "columns", "a head of distinct names", short(head), REMEDY)
            columns: list[list[str]] = [[] for _ in head]
            for row in filter(None, rows):
                if len(row) != len(head):
                    where, expected = f"line {rows.line_num}", f"{len(head)} cells"
                    raise unfit(path, where, expected, len(row), REMEDY)
                for column, cell in zip(columns, row, strict=True):
                    column.append(cell)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise unfit(path, "file", "a table in CSV", str(error), REMEDY) from error
    return dict(zip(head, columns, strict=True))


def _lines(file: IO[bytes], path: Path) -> Iterator[str]:
    """Lines of text, none longer than a row may be."""
    first = True
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise unfit(path, "line", f"at most {MAX_LINE} bytes", "more", REMEDY)
        yield line.decode("utf-8-sig" if first else "utf-8")
        first = False


def _parquet(path: Path) -> Columns:
    from .parquet import read_parquet  # pyarrow is an extra

    return read_parquet(path)


def _table(path: Path, columns: Columns) -> Table:
    names = [n for n in columns if n == "action" or n.startswith(("action_", "action."))]
    actions = None
    if names:
        parts = [_numbers(path, name, columns[name]) for name in names]
        actions = np.concatenate([p if p.ndim == 2 else p[:, None] for p in parts], 1)
    rewards = _numbers(path, "reward", columns["reward"]) if "reward" in columns else None
    if actions is None and rewards is None and "text" not in columns:
        expected = "action, action_*, reward or text among the columns"
        raise unfit(path, "columns", expected, sorted(columns)[:20], REMEDY)
    text = str(next(iter(columns.get("text", [])), "") or "")
    return Table(path, actions, rewards, text)


def _numbers(path: Path, name: str, cells: list[Any]) -> NDArray[np.float64]:
    try:
        found = np.asarray([np.nan if x in ("", None) else x for x in cells], np.float64)
    except (OverflowError, TypeError, ValueError) as error:
        raise unfit(path, name, "numbers", str(error)[:100], REMEDY) from error
    if np.isinf(found).any():
        raise unfit(path, name, "finite numbers", "infinity", REMEDY)
    return found


def action_spec(actions: list[NDArray[np.float64]]) -> ActionSpec:
    """The actions that tables hold: choices for whole numbers, else a box of what occurs."""
    if not actions:
        return ActionSpec(kind="none")
    width = {a.shape[1] for a in actions}
    if len(width) > 1:
        raise unfit("tables", "action", "as many columns in each", sorted(width), REMEDY)
    every = np.concatenate(actions)
    known = every[~np.isnan(every).any(1)]
    if not len(known):
        return ActionSpec(kind="none")
    low, high = known.min(0), known.max(0)
    whole = bool((known == np.round(known)).all())
    if whole and known.shape[1] == 1:
        return ActionSpec(kind="discrete", start=int(low[0]), n=int(high[0] - low[0]) + 1)
    if whole and low.min() >= 0 and high.max() < 1000:
        return ActionSpec(kind="multi_discrete", nvec=tuple(int(x) + 1 for x in high))
    high = np.where(high > low, high, low + 1)
    return ActionSpec(kind="continuous", low=tuple(low.tolist()), high=tuple(high.tolist()))
