"""A file that worldsim reads, as the fuzzer takes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.reliability.nightly.changes import Change, bytes_changed

FRAMES = 8  # that are decoded of an episode


@dataclass(frozen=True)
class Target:
    """A file, what reads it, and the ways in which it is changed.

    put: writes its bytes, with a hash that fits where the format has one.
    seeds: good files of other formats that are read in the same way.
    """

    path: Path
    read: Callable[[], Any]
    put: Callable[[bytes], Any]
    changes: tuple[Change, ...]
    seeds: tuple[bytes, ...] = ()


def plain(path: Path, read: Callable[[], Any], *changes: Change) -> Target:
    """A file of whose bytes nothing else depends."""
    return Target(path, read, path.write_bytes, (*changes, bytes_changed))


def whole(make: Callable[[], Any]) -> None:
    """Open a dataset and decode the first frames of its first episodes."""
    data = make()
    for place in range(min(2, len(data))):
        data.episode(place).frames[:FRAMES]
