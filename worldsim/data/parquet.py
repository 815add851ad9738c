"""Parquet tables by pyarrow, which the extra `lerobot` brings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from worldsim.files import open_plain

from .archive import UNREADABLE
from .dataset import DatasetError, unfit
from .tables import Column, Columns

MAX_BYTES = 2**31  # of a table, unpacked
BOMB_BYTES, BOMB_RATIO = 2**26, 20  # so many bytes, unpacked of so few, are no recording
NUMBER, TEXT = 8, 64  # bytes of memory that a value takes at least


def pyarrow_parquet() -> Any:
    """The module; DatasetError that names the extra if it is not installed."""
    try:
        return import_module("pyarrow.parquet")
    except ImportError as error:
        raise DatasetError(
            "pyarrow: expected it installed to read and write Parquet, got no such module; "
            "pip install 'worldsim[lerobot]'"
        ) from error


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> Columns:
    """Columns of a plain Parquet file, all or those of `columns` that there are.

    Numbers come as arrays (N,), NaN where there is none, or (N, k) where a row is a list of k;
    texts, and lists of other lengths, as lists. Columns of anything else are left out.
    """
    parquet = pyarrow_parquet()
    try:
        with open_plain(path) as handle:
            with parquet.ParquetFile(handle) as file:
                there, meta = file.schema_arrow.names, file.metadata
            chosen = there if columns is None else [c for c in columns if c in there]
            size, texts = _unpacked(meta, chosen)
            packed = os.fstat(handle.fileno()).st_size
            most = min(MAX_BYTES, max(BOMB_BYTES, BOMB_RATIO * packed))
            if size > most:
                got = f"{size} bytes of {packed}"
                raise unfit(path, "size", f"at most {most} bytes unpacked", got)
            # a text that many rows share is unpacked once only as an entry of a dictionary
            with parquet.ParquetFile(handle, read_dictionary=texts) as file:
                table = file.read(columns=chosen)
        found = {name: _values(table[name].combine_chunks()) for name in table.column_names}
        return {name: values for name, values in found.items() if values is not None}
    except DatasetError:
        raise
    except (*UNREADABLE, NotImplementedError) as error:
        got = getattr(error, "strerror", None) or str(error)[:200]
        raise unfit(path, "file", "a Parquet table", got) from error


def _unpacked(meta: Any, columns: Sequence[str]) -> tuple[int, list[str]]:
    """Bytes that these columns take by what the file declares, and which of them hold texts.

    Runs of equal values take next to nothing in the file, so their number counts, too.
    """
    size, texts = 0, set()
    for group in (meta.row_group(i) for i in range(meta.num_row_groups)):
        for column in (group.column(i) for i in range(group.num_columns)):
            path = column.path_in_schema
            if any(path == name or path.startswith(f"{name}.") for name in columns):
                text = column.physical_type == "BYTE_ARRAY"
                least = (TEXT if text else NUMBER) * column.num_values
                size += max(column.total_uncompressed_size, least)
                texts |= {path} if text else set()
    return size, sorted(texts)


def _values(array: Any) -> Column | None:
    """A column as it is handed on, None for a kind that no table of ours has."""
    types = import_module("pyarrow.types")
    kind = array.type
    if types.is_dictionary(kind):
        words = array.dictionary.to_pylist()  # shared by the rows that say the same
        return [None if i is None else words[i] for i in array.indices.to_pylist()]
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = _values(array.flatten())
        return None if inner is None else _rows(inner, array)
    if types.is_string(kind) or types.is_large_string(kind):
        return array.to_pylist()
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind):
        values = array.to_numpy(zero_copy_only=False)
        return values if values.dtype != object else array.to_pylist()
    return None


def _rows(inner: Column, array: Any) -> Column:
    """Values that lie end to end, as those of each row."""
    ends = np.cumsum([0, *(n or 0 for n in array.value_lengths().to_pylist())])
    width = int(ends[-1]) // max(1, len(array))
    if isinstance(inner, np.ndarray) and (np.diff(ends) == width).all() and not array.null_count:
        return inner.reshape(len(array), width, *inner.shape[1:])
    return [inner[a:b] for a, b in zip(ends[:-1], ends[1:], strict=True)]
