"""Parquet tables by pyarrow, which the extra `lerobot` brings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from worldsim.files import open_plain

from .archive import UNREADABLE
from .dataset import DatasetError, unfit

MAX_BYTES = 2**31  # of a table, unpacked
BOMB_BYTES, BOMB_RATIO = 2**26, 100  # so many bytes, unpacked of so few, are no recording


def pyarrow_parquet() -> Any:
    """The module; DatasetError that names the extra if it is not installed."""
    try:
        return import_module("pyarrow.parquet")
    except ImportError as error:
        raise DatasetError(
            "pyarrow: expected it installed to read and write Parquet, got no such module; "
            "pip install 'worldsim[lerobot]'"
        ) from error


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> dict[str, list[Any]]:
    """Columns of a plain Parquet file as lists; all, or those of `columns` that there are."""
    parquet = pyarrow_parquet()
    try:
        with open_plain(path) as handle, parquet.ParquetFile(handle) as file:
            there = file.schema_arrow.names
            chosen = there if columns is None else [c for c in columns if c in there]
            size = _unpacked(file.metadata, chosen)
            packed = os.fstat(handle.fileno()).st_size
            most = min(MAX_BYTES, max(BOMB_BYTES, BOMB_RATIO * packed))
            if size > most:
                got = f"{size} bytes of {packed}"
                raise unfit(path, "size", f"at most {most} bytes unpacked", got)
            return file.read(columns=chosen).to_pydict()
    except DatasetError:
        raise
    except (*UNREADABLE, NotImplementedError) as error:
        got = getattr(error, "strerror", None) or str(error)[:200]
        raise unfit(path, "file", "a Parquet table", got) from error


def _unpacked(meta: Any, columns: Sequence[str]) -> int:
    """Bytes of these columns as the file declares them, 8 at least for a value.

    Runs of equal values take next to nothing in the file, so what is declared is not enough.
    """
    size = 0
    for group in (meta.row_group(i) for i in range(meta.num_row_groups)):
        for column in (group.column(i) for i in range(group.num_columns)):
            path = column.path_in_schema
            if any(path == name or path.startswith(f"{name}.") for name in columns):
                size += max(column.total_uncompressed_size, 8 * column.num_values)
    return size
