"""What columns of a Parquet file unpack to, by the headers of their pages, before Arrow reads any.

pyarrow shows no headers of pages, and where it shows a column's metadata an exception of C++ ends
the process (26.0.1, "histogram size mismatch"). The format is Thrift's compact protocol, the fields
are those of https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import IO

FOOTER, PAGES = 2**22, 2**16  # bytes of metadata, and pages, that are read in two seconds
FOOTER_SHARE, PAGE_BYTES = 16, 2**10  # a large file may have more: a 16th, a page of each KiB
HEADER, MAX_HEADER = 2**8, 2**16  # bytes of a page's header: most, and with long statistics
DEPTH = 16  # of values in values
TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
NUMBER, TEXT = 8, 64  # bytes of memory that a value takes at least
DELTA_BYTE_ARRAY = 7  # an encoding: each text says how much it shares with the one before
CHUNK = {5: "values", 9: "start", 11: "dictionary"}  # int64, of ColumnMetaData
PAGE = {1: "kind", 2: "bytes", 3: "packed"}  # int32, of PageHeader
INSIDE = {  # int32, of the header in field 5, 7 or 8 of it
    5: {1: "values", 2: "encoding"},
    7: {1: "entries", 2: "encoding"},
    8: {1: "values", 4: "encoding"},
}
KINDS = {0: 5, 2: 7, 3: 8}  # of pages, by the field of their header; nobody writes others


def unpacked_bytes(file: IO[bytes], texts: Mapping[int, bool], most: int) -> int:
    """Bytes of memory that columns take, at least; beyond `most` it is not counted on.

    texts: whether a column holds texts, by its place. Runs of equal values take next to nothing in
    the file, so their number counts, too. Raises ValueError or EOFError where the file is damaged.
    """
    size = pages = 0
    most_pages = max(PAGES, file.seek(0, os.SEEK_END) // PAGE_BYTES)
    for chunk in _chunks(_footer(file), texts):
        left, place = chunk["values"], min(chunk["start"], chunk.get("dictionary") or 2**63)
        least = TEXT if texts[chunk["column"]] else NUMBER
        while left > 0:
            page, place = _page(file, place)
            values = page.get("values", 0)
            shared = values if page.get("encoding") == DELTA_BYTE_ARRAY else 1
            size += max(page["bytes"] * shared, least * (values + page.get("entries", 0)))
            left -= values
            pages += 1
            if size > most:
                return size
            if pages > most_pages:
                raise ValueError(f"more than {most_pages} pages")
    return size


def _footer(file: IO[bytes]) -> bytes:
    end = file.seek(0, os.SEEK_END) - 8
    file.seek(max(0, end))
    size = int.from_bytes(file.read(4), "little")
    most = min(end, max(FOOTER, end // FOOTER_SHARE))
    if size > most:
        raise ValueError(f"{size} bytes of metadata, more than {most}: write larger row groups")
    file.seek(end - size)
    return file.read(size)


def _chunks(footer: bytes, columns: Mapping[int, bool]) -> Iterator[dict[str, int]]:
    """Of each row group what is stored of each of `columns`."""
    meta = _Thrift(footer)
    for _ in meta.structs(of=4):
        there = set()
        for column, _ in enumerate(meta.structs(of=1)):
            there.add(column)
            chunk = {"column": column}
            for number, kind in meta.fields():
                if number == 3 and column in columns:
                    _expect(kind, STRUCT)
                    chunk |= meta.numbers(CHUNK, I64)
                else:
                    meta.skip(kind)
            if column in columns:
                yield _whole(chunk, "values", "start")
        if missing := columns.keys() - there:
            raise ValueError(f"no column {min(missing)} in a row group")


def _page(file: IO[bytes], place: int) -> tuple[dict[str, int], int]:
    """The header of the page at `place`, and where the next one lies."""
    for size in (HEADER, MAX_HEADER):
        file.seek(place)
        header = _Thrift(file.read(size))
        with suppress(EOFError):
            page = header.page()
            return page, place + header.place + page["packed"]
    raise EOFError(f"no page at byte {place}")


def _whole(found: dict[str, int], *names: str) -> dict[str, int]:
    """Raises ValueError unless these are there, and none is negative."""
    missing = [name for name in names if name not in found]
    if missing or min(found.values()) < 0:
        raise ValueError(f"expected {', '.join(names)} from 0 in a header, got {found}")
    return found


def _expect(kind: int, expected: int) -> None:
    if kind != expected:
        raise ValueError(f"expected a value of type {expected} in a header, got {kind}")


class _Thrift:
    """Values of Thrift's compact protocol, out of bytes that may be anything.

    Fields must come in the order of their numbers, each once, as every writer has them: then who
    takes the first of two and who takes the last see the same.
    """

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def byte(self) -> int:
        try:
            value = self.data[self.place]
        except IndexError as error:
            raise EOFError("a header ends too soon") from error
        self.place += 1
        return value

    def unsigned(self, bits: int) -> int:
        value = self.byte()
        if value < 128:
            return value
        value &= 127
        for shift in range(7, 70, 7):
            part = self.byte()
            value |= (part & 127) << shift
            if part < 128:
                break
        if value >> bits or part > 127:
            raise ValueError(f"a number of more than {bits} bits in a header")
        return value

    def signed(self, bits: int) -> int:
        value = self.unsigned(bits)
        return value >> 1 ^ -(value & 1)

    def fields(self) -> Iterator[tuple[int, int]]:
        """Number and type of each field of a struct; the caller reads or skips the value."""
        last = 0
        while head := self.byte():
            number = last + (head >> 4) if head >> 4 else self.signed(16)
            if number <= last:
                raise ValueError(f"field {number} after field {last} in a header")
            yield number, head & 15
            last = number

    def items(self) -> Iterator[int]:
        """The type of each element of a list; the caller reads or skips the value."""
        head = self.byte()
        count = head >> 4 if head >> 4 < 15 else self.unsigned(32)
        for _ in range(count):
            yield head & 15

    def structs(self, *, of: int) -> Iterator[None]:
        """The structs in the list that is field `of` of a struct; the caller reads each."""
        for number, kind in self.fields():
            if number != of:
                self.skip(kind)
                continue
            _expect(kind, LIST)
            for item in self.items():
                _expect(item, STRUCT)
                yield

    def numbers(self, names: Mapping[int, str], kind: int) -> dict[str, int]:
        """The fields of a struct that have a name, all of this type."""
        found = {}
        for number, got in self.fields():
            if number in names:
                _expect(got, kind)
                found[names[number]] = self.signed(32 if kind == I32 else 64)
            else:
                self.skip(got)
        return found

    def page(self) -> dict[str, int]:
        """The header of a page."""
        page: dict[str, int] = {}
        inside = None
        for number, kind in self.fields():
            if number in PAGE:
                _expect(kind, I32)
                page[PAGE[number]] = self.signed(32)
            elif number in INSIDE and inside is None:
                _expect(kind, STRUCT)
                page |= self.numbers(INSIDE[number], I32)
                inside = number
            elif number in INSIDE:
                raise ValueError("two kinds of page in a header")
            else:
                self.skip(kind)
        _whole(page, *PAGE.values())
        if KINDS.get(page["kind"], 0) != inside:
            raise ValueError(f"a page of kind {page['kind']} with header {inside}")
        return page

    def skip(self, kind: int, depth: int = 0) -> None:
        """A field's value."""
        if depth > DEPTH:
            raise ValueError(f"more than {DEPTH} values in each other in a header")
        if kind in (I16, I32, I64):
            self.unsigned(64)
        elif kind == BINARY:
            self._forward(self.unsigned(32))
        elif kind == STRUCT:
            for _, inner in self.fields():
                self.skip(inner, depth + 1)
        elif kind in (LIST, SET):
            for item in self.items():
                self._skip_element(item, depth)
        elif kind == MAP:
            count = self.unsigned(32)
            kinds = self.byte() if count else 0
            for _ in range(count):
                self._skip_element(kinds >> 4, depth)
                self._skip_element(kinds & 15, depth)
        elif kind in (BYTE, DOUBLE):
            self._forward(1 if kind == BYTE else 8)
        elif kind not in (TRUE, FALSE):  # which are their type
            raise ValueError(f"a value of type {kind} in a header")

    def _skip_element(self, kind: int, depth: int) -> None:
        self._forward(1) if kind in (TRUE, FALSE) else self.skip(kind, depth + 1)

    def _forward(self, count: int) -> None:
        self.place += count
        if self.place > len(self.data):
            raise EOFError("a header ends too soon")
