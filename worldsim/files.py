"""Files and folders written all or nothing, and files read only where they are plain ones."""

from __future__ import annotations

import errno
import os
import platform
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import IO

MAX_LINE, MOST_LINES = 2**16, 2**20  # bytes of a line of text, and lines
HOST = sha256(platform.node().encode()).hexdigest()[:8]  # machines may share a folder
TEMPORARY = re.compile(r"\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.tmp$")
ABANDONED = 86_400.0  # seconds after which nobody on another machine still writes a file


def temporary_path(path: Path) -> Path:
    """A name beside `path` that no other writer uses, on any machine: `.NAME.HOST-PID-X.tmp`."""
    return path.with_name(f".{path.name}.{HOST}-{os.getpid()}-{secrets.token_hex(4)}.tmp")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` for a file that then takes its name, for good.

    Folders on the way there are made.
    Once this is left without an error the new file survives a power cut; on an error, or a kill at
    any moment, what was there stays. Of several writers the last one to end wins, whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = temporary_path(path)
    try:
        yield part
        sync(part)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file by `atomic_path`."""
    with atomic_path(path) as part:
        part.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file by `atomic_path`."""
    write_bytes(path, text.encode())


@contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside `path` that then takes its name, for good.

    overwrite: replace a folder that is there; else one with anything in it is an OSError.
    Between the two renames of an overwrite the old folder lies aside, where `current_folder` finds
    it, so a kill at any moment leaves a whole one, and at worst a `.NAME.*.tmp` that
    may be deleted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        temporary.mkdir()
        yield temporary
        for inside in sorted(temporary.rglob("*")):
            sync(inside)
        sync(temporary)
        _swap(temporary, path, overwrite)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def current_folder(path: Path) -> Path:
    """Where the folder lies: aside, if an overwrite was killed between its renames."""
    return path if path.exists() or not _aside(path).exists() else _aside(path)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _swap(temporary: Path, path: Path, overwrite: bool) -> None:
    """Put `temporary` in the place of `path`; at every moment one of them can be found."""
    aside = _aside(path)
    moved = overwrite and path.exists()  # else renaming onto a folder that is not empty fails
    if moved:
        _clear_aside(aside, temporary, path)
        os.rename(path, aside)
    try:
        os.rename(temporary, path)
    except BaseException:
        if moved:
            os.rename(aside, path)
        raise
    sync(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _clear_aside(aside: Path, *alike: Path) -> None:
    """Remove what a save left that was killed while it tidied up, and nothing of anybody else's."""
    if not os.path.lexists(aside):
        return
    known = {inside.name for folder in alike for inside in folder.iterdir()}
    strays = {p.name for p in aside.iterdir()} - known if aside.is_dir() else {aside.name}
    if aside.is_symlink() or strays:
        raise OSError(
            errno.ENOTEMPTY, f"expected what an earlier save left, got {sorted(strays)[:5]}: move "
            "it away", str(aside)
        )  # fmt: skip
    shutil.rmtree(aside, ignore_errors=True)


def clear_leftovers(path: Path) -> None:
    """Remove what writers of `path` left behind that were killed; the living keep theirs.

    Of another machine's, whose processes cannot be seen, what nobody has touched for a day.
    """
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        found = TEMPORARY.search(leftover.name)
        if not found or not leftover.is_file():
            continue
        here = found[1] == HOST
        if not _alive(int(found[2])) if here else _untouched(leftover):
            leftover.unlink(missing_ok=True)


def _untouched(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime > ABANDONED
    return False


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    return True


def resolved(path: Path | str) -> Path:
    """The absolute path with its links followed, as far as they lead; a loop of links is no error,
    which `Path.resolve` makes of it: whoever opens the path is told."""
    return Path(os.path.realpath(path))


def open_plain(path: Path) -> IO[bytes]:
    """A regular file to read; never a link (it may lead elsewhere) or a pipe (it may block).

    Raises OSError, whose `strerror` says what is there instead.
    """
    if path.is_symlink():
        raise OSError(
            errno.ELOOP, "a symbolic link: copy the folder with its links followed (cp -rL)"
        )
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    file = open(path, "rb", opener=lambda p, f: os.open(p, f | flags))
    mode = os.fstat(file.fileno()).st_mode
    if not stat.S_ISREG(mode):
        file.close()
        raise OSError(errno.EINVAL, f"no regular file: {stat.filemode(mode)}")
    return file


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """A whole regular file of at most `max_bytes`; raises OSError (EFBIG for a larger one)."""
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= max_bytes:
            data = file.read(max_bytes + 1)  # it may have grown since
            size = len(data)
            if size <= max_bytes:
                return data
    raise OSError(errno.EFBIG, f"{size} bytes, more than the {max_bytes} of such a file")


def plain_lines(path: Path, max_bytes: int) -> Iterator[bytes]:
    """Lines of a regular file, one at a time.

    Raises OSError: EFBIG where it or one of them is larger, or they are more, than of such a file.
    """
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise OSError(errno.EFBIG, f"{size} bytes, more than the {max_bytes} of such a file")
        for number in count():
            if len(line := file.readline(MAX_LINE + 1)) > MAX_LINE:
                raise OSError(errno.EFBIG, f"a line of more than {MAX_LINE} bytes")
            if not line:
                return
            if number == MOST_LINES:  # empty ones, too, take time
                raise OSError(errno.EFBIG, f"more than {MOST_LINES} lines")
            yield line


def sync(path: Path) -> None:
    """Make a file's contents, or a folder's names, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
