"""Tables of actions beside films: CSV, or Parquet with the `lerobot` extra.

A row is a frame, in order. Columns: `action`, or several that begin with `action_` or `action.`;
`reward`; `text` (the first row's counts). Whole numbers are choices, others a box. An empty action
cell is an unknown action. One table may serve several films by a column `file`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldsim.config import short
from worldsim.core import ActionSpec
from worldsim.files import plain_lines

from .dataset import unfit

MAX_TABLE = 2**26  # bytes of a CSV
MOST_CELLS = 2**20  # of a CSV: each takes 60 bytes of memory
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


Column = NDArray[Any] | list[Any]
Columns = dict[str, Column]


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
        name: _table(path, {k: _taken(v, rows) for k, v in columns.items()})
        for name, rows in parts.items()
    }


def _taken(column: Column, rows: list[int]) -> Column:
    return column[rows] if isinstance(column, np.ndarray) else [column[i] for i in rows]


def read_columns(path: Path) -> Columns:
    """The cells of a CSV or Parquet table by column; raises DatasetError for anything else."""
    return _parquet(path) if path.suffix == ".parquet" else _csv(path)


def _csv(path: Path) -> Columns:
    try:
        rows = csv.reader(_text(plain_lines(path, MAX_TABLE)))
        head = [name.strip() for name in next(rows, [])]
        if not head or len(set(head)) < len(head):
            raise unfit(path, "columns", "a head of distinct names", short(head), REMEDY)
        columns: list[list[str]] = [[] for _ in head]
        for count, row in enumerate(filter(None, rows), 1):
            if len(row) != len(head):
                where, expected = f"line {rows.line_num}", f"{len(head)} cells"
                raise unfit(path, where, expected, len(row), REMEDY)
            if count * len(head) > MOST_CELLS:
                expected = f"at most {MOST_CELLS} cells"
                raise unfit(path, "size", expected, "more", "write one table a film, or Parquet")
            for column, cell in zip(columns, row, strict=True):
                column.append(cell)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        got = getattr(error, "strerror", None) or str(error)
        raise unfit(path, "file", "a table in CSV", got, REMEDY) from error
    return dict(zip(head, columns, strict=True))


def _text(lines: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield line.decode("utf-8" if number else "utf-8-sig")


def _parquet(path: Path) -> Columns:
    from .parquet import read_parquet  # pyarrow is an extra

    return read_parquet(path)


def _table(path: Path, columns: Columns) -> Table:
    actions = actions_in(path, columns)
    rewards = numbers_in(path, "reward", columns) if "reward" in columns else None
    if actions is None and rewards is None and "text" not in columns:
        expected = "action, action_*, reward or text among the columns"
        raise unfit(path, "columns", expected, sorted(columns)[:20], REMEDY)
    text = str(next(iter(columns.get("text", [])), "") or "")
    return Table(path, actions, rewards, text)


def actions_in(path: Path, columns: Columns) -> NDArray[np.float64] | None:
    """The actions of a table, (T, A), NaN where a cell is empty; None without such a column."""
    names = [n for n in columns if n == "action" or n.startswith(("action_", "action."))]
    parts = [numbers_in(path, name, columns) for name in names]
    if not all(0 < part.ndim < 3 for part in parts):
        raise unfit(path, "action", "a number or a list of numbers a row", "lists of lists", REMEDY)
    parts = [part if part.ndim == 2 else part[:, None] for part in parts]
    return np.concatenate(parts, 1) if parts else None


def numbers_in(path: Path, name: str, columns: Columns) -> NDArray[np.float64]:
    """A column's numbers, NaN where a cell is empty; DatasetError for others and for infinity."""
    try:
        cells = columns[name]
        if not isinstance(cells, np.ndarray):
            cells = [np.nan if x in ("", None) else x for x in cells]
        found = np.asarray(cells, np.float64)
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
