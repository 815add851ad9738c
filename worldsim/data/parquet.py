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
from .parquet_pages import unpacked_bytes
from .tables import Column, Columns

MAX_BYTES = 2**31  # of a table, unpacked
BOMB_BYTES, BOMB_RATIO = 2**26, 20  # so many bytes, unpacked of so few, are no recording


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
            with parquet.ParquetFile(handle) as file:  # of which only the schema is looked at
                there = [field.name for field in file.schema_arrow if _known(field.type)]
                chosen = [name for name in there if columns is None or name in columns]
                leaves = _leaves(file.schema, chosen)
            texts = {place: text for place, (_, text) in leaves.items()}
            packed = os.fstat(handle.fileno()).st_size
            most = min(MAX_BYTES, max(BOMB_BYTES, BOMB_RATIO * packed))
            if (size := unpacked_bytes(handle, texts, most)) > most:
                got = f"{size} bytes or more of {packed}"
                raise unfit(path, "size", f"at most {most} bytes unpacked", got)
            # a text that many rows share is unpacked once only as an entry of a dictionary
            shared = [path for path, text in leaves.values() if text]
            with parquet.ParquetFile(handle, read_dictionary=shared) as file:
                # lists of texts out of several row groups at once are not implemented in Arrow
                groups = [file.read_row_group(i, chosen) for i in range(file.num_row_groups)]
                groups = groups or [file.read(chosen)]  # none of an empty table
            table = import_module("pyarrow").concat_tables(groups)
        return {name: _values(table[name].combine_chunks()) for name in table.column_names}
    except DatasetError:
        raise
    except (*UNREADABLE, NotImplementedError) as error:
        got = getattr(error, "strerror", None) or str(error)[:200]
        raise unfit(path, "file", "a Parquet table", got) from error


def _leaves(schema: Any, names: Sequence[str]) -> dict[int, tuple[str, bool]]:
    """By their place in the file, the stored columns of those of these names: path, whether texts.

    Of what pyarrow tells of a file only the schema is asked for: see `parquet_pages`.
    """
    return {
        place: (column.path, column.physical_type == "BYTE_ARRAY")
        for place, column in enumerate(schema.column(i) for i in range(len(schema)))
        if any(column.path == name or column.path.startswith(f"{name}.") for name in names)
    }


def _known(kind: Any) -> bool:
    """Whether a column of this type is one that a table of ours has."""
    types = import_module("pyarrow.types")
    return (_known(kind.value_type) if _listed(kind) or types.is_dictionary(kind)
            else types.is_string(kind) or types.is_large_string(kind) or _number(kind))  # fmt: skip


def _listed(kind: Any) -> bool:
    types = import_module("pyarrow.types")
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _number(kind: Any) -> bool:
    types = import_module("pyarrow.types")
    return types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind)


def _values(array: Any) -> Column:
    """A column of a known type as it is handed on."""
    if import_module("pyarrow.types").is_dictionary(array.type):
        words = array.dictionary.to_pylist()  # shared by the rows that say the same
        return [None if i is None else words[i] for i in array.indices.to_pylist()]
    if _listed(array.type):
        return _rows(_values(array.flatten()), array)
    if _number(array.type):
        values = array.to_numpy(zero_copy_only=False)
        return values if values.dtype != object else array.to_pylist()
    return array.to_pylist()


def _rows(inner: Column, array: Any) -> Column:
    """Values that lie end to end, as those of each row."""
    ends = np.cumsum([0, *(n or 0 for n in array.value_lengths().to_pylist())])
    width = int(ends[-1]) // max(1, len(array))
    if isinstance(inner, np.ndarray) and (np.diff(ends) == width).all() and not array.null_count:
        return inner.reshape(len(array), width, *inner.shape[1:])
    return [inner[a:b] for a, b in zip(ends[:-1], ends[1:], strict=True)]
