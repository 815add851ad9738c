"""Files written all or nothing, and read only where they are plain files."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` for a file that then takes its name, for good.

    Once this is left without an error the new file survives a power cut; on an error, or a kill at
    any moment, what was there stays.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield part
        sync(part)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync(path.parent)


def clear_leftovers(path: Path) -> None:
    """Remove what writers of `path` left behind that were killed."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)


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


def sync(path: Path) -> None:
    """Make a file's contents, or a folder's names, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
