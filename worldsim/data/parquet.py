"""Parquet tables by pyarrow, which the extra `lerobot` brings."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from worldsim.files import open_plain

from .dataset import DatasetError, unfit

MAX_BYTES = 2**31  # of a table, unpacked


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
            meta = file.metadata
            size = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
            if size > MAX_BYTES or meta.num_rows > MAX_BYTES:
                raise unfit(path, "size", f"at most {MAX_BYTES} bytes unpacked", size)
            there = file.schema_arrow.names
            chosen = there if columns is None else [c for c in columns if c in there]
            return file.read(columns=chosen).to_pydict()
    except DatasetError:
        raise
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError, MemoryError) as error:
        got = getattr(error, "strerror", None) or str(error)[:200]
        raise unfit(path, "file", "a Parquet table", got) from error
