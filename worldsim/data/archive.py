"""Arrays in a .npz file, read without trusting it.

Nothing is unpacked before its declared size is checked, pickles are never opened, only stored and
deflated members are read (other methods unpack without a bound), and the checksum of every array
that is read is verified.
"""

from __future__ import annotations

import io
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from worldsim.config import short
from worldsim.files import open_plain

from .dataset import unfit

MAX_DIRECTORY = 16 * 2**20  # bytes of a zip's directory, before anything is made of it
PIECE = 2**20  # bytes unpacked at a time, so that an array is never held twice
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
END = b"PK\5\6"  # end of a zip's directory
HEADER = 1024  # bytes that the header of an .npy member may take

UNREADABLE = (  # what zipfile, zlib and numpy raise on damaged or foreign bytes
    OSError, EOFError, ValueError, OverflowError, SyntaxError, RuntimeError, SystemError,
    MemoryError, LookupError, TypeError, struct.error, tokenize.TokenError, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """One array of an archive, as the directory declares it.

    Attributes:
        name: without ".npy".
        bytes: of the unpacked member, header included.
        crc: CRC-32 of the same, checked when it is read.
    """

    name: str
    bytes: int
    crc: int


@dataclass(frozen=True)
class Stamp:
    """Which file was opened: another one under its name differs in this."""

    inode: int
    size: int
    time: int


@contextmanager
def open_archive(path: Path, stamp: Stamp | None = None) -> Iterator[Archive]:
    """The archive at `path`; every failure to read it is a `DatasetError` that names it.

    stamp: of the file that was checked before; another file there by now is refused.
    """
    with _named(path), open_plain(path) as file:
        status = os.fstat(file.fileno())
        found = Stamp(status.st_ino, status.st_size, status.st_mtime_ns)
        if stamp not in (None, found):
            raise unfit(path, "file", "the file that was opened", "another one by now")
        _check_end(path, file, status.st_size)
        with zipfile.ZipFile(file) as archive:
            yield Archive(path, archive, found)


@contextmanager
def archive_of(path: Path, data: bytes) -> Iterator[Archive]:
    """The archive in `data`, which was read from `path` and checked; see `open_archive`."""
    file = io.BytesIO(data)
    with _named(path):
        _check_end(path, file, len(data))
        with zipfile.ZipFile(file) as archive:
            yield Archive(path, archive, Stamp(0, len(data), 0))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Whatever a library raises on damaged bytes becomes a `DatasetError` that names the file."""
    try:
        yield
    except UNREADABLE as error:
        if type(error).__module__.startswith("worldsim"):
            raise
        got = getattr(error, "strerror", None) or short(error, 200)
        raise unfit(path, "file", "a whole .npz file", got) from error


def _check_end(path: Path, file: IO[bytes], size: int) -> None:
    """Bound the directory before zipfile makes an object of each entry."""
    file.seek(max(0, size - 22 - 2**16))
    tail = file.read(22 + 2**16)
    place = tail.rfind(END)
    if place < 0 or len(tail) < place + 22:
        raise unfit(path, "file", "a whole .npz file", "no end of a zip")
    length = int.from_bytes(tail[place + 12 : place + 16], "little")
    if length > MAX_DIRECTORY:
        expected = f"a directory of at most {MAX_DIRECTORY} bytes"
        raise unfit(path, "file", expected, f"{length} bytes")
    file.seek(0)


class Archive:
    """An open .npz file; use `open_archive`."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, stamp: Stamp) -> None:
        self.path, self._zip, self.stamp = path, archive, stamp
        entries = archive.infolist()
        self.members: Mapping[str, Member] = {
            e.filename.removesuffix(".npy"): Member(
                e.filename.removesuffix(".npy"), e.file_size, e.CRC
            )
            for e in entries
        }
        named = all(e.filename.endswith(".npy") for e in entries)
        if not named or len(self.members) < len(entries):
            names = short([e.filename for e in entries[:20]], 200)
            raise unfit(path, "arrays", "one .npy member of each name", names)
        if any(e.compress_type not in METHODS for e in entries):
            raise unfit(path, "arrays", "stored or deflated members", "another method")

    def read(self, name: str, kinds: str, ndim: int | None, most: int) -> NDArray[Any]:
        """One array in native byte order, writable.

        kinds: dtype kinds that are taken. ndim: dimensions, any if None. most: bytes.
        Raises DatasetError that names the array.
        """
        if name not in self.members:
            raise unfit(self.path, "arrays", f"one called {name!r}", short(list(self.members), 200))
        entry = self._zip.getinfo(f"{name}.npy")
        if entry.file_size > most + HEADER:
            got = f"{entry.file_size} bytes declared"
            raise unfit(self.path, name, f"at most {most} bytes unpacked", got)
        with self._zip.open(entry) as file:
            shape, dtype = _read_header(self.path, file, name, kinds, ndim)
            size = int(np.prod(shape, dtype=object)) * dtype.itemsize
            there = entry.file_size - file.tell()
            if size != there:
                got = f"{dtype} {shape} in {there} bytes"
                raise unfit(self.path, name, f"{size} bytes of data", got)
            data = _read_all(file, size)
            if len(data) != size or file.read(1):  # to the end, which verifies the checksum
                raise unfit(self.path, name, f"{size} bytes of data", f"{len(data)} bytes")
        array = np.frombuffer(data, dtype).reshape(shape)
        return array.astype(dtype.newbyteorder("="), copy=False)


def _read_all(file: IO[bytes], size: int) -> bytearray:
    data = bytearray(size)  # writable, for torch
    view, done = memoryview(data), 0
    while got := file.readinto(view[done : done + PIECE]):  # type: ignore[attr-defined]
        done += got
    return data if done == size else data[:done]


def _read_header(
    path: Path, file: IO[bytes], name: str, kinds: str, ndim: int | None
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("not .npy version 1.0")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except UNREADABLE as error:  # numpy's parser lets errors of tokenizer and compiler through
        raise unfit(path, name, "a .npy array", short(error, 200)) from error
    fits = dtype.kind in kinds and ndim in (None, len(shape)) and min(shape, default=0) >= 0
    if fortran or not fits:
        expected = f"C-ordered array of kind {' or '.join(kinds)}"
        expected += "" if ndim is None else f" with {ndim} dimensions"
        raise unfit(path, name, expected, f"{dtype} {shape} fortran={fortran}")
    return shape, dtype


class ArchiveWriter:
    """Writes arrays into a zip, one at a time; equal arrays give equal bytes."""

    def __init__(self, file: IO[bytes], level: int = 4) -> None:
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, False, level)

    def add(self, name: str, array: NDArray[Any]) -> None:
        """Append one array in C order and little-endian."""
        entry = zipfile.ZipInfo(f"{name}.npy")  # dated 1980, whenever it is written
        entry.compress_type = zipfile.ZIP_DEFLATED
        plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        plain = plain.reshape(array.shape)  # ascontiguousarray makes scalars 1-d
        with self._zip.open(entry, "w") as file:
            np.lib.format.write_array(file, plain, (1, 0), allow_pickle=False)

    def close(self) -> None:
        """Write the directory."""
        self._zip.close()
