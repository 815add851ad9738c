"""Formats that shards are written in.

Every file's name follows from the shard and its contents from the episodes alone: no clock, no
process, one thread an encoder.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np

from worldsim.data.dataset import DatasetSpec, Episode, split_of
from worldsim.data.encode import write_film
from worldsim.data.export import CRF, frames_of
from worldsim.data.native import DESCRIPTION, NativeWriter
from worldsim.files import atomic_path, clear_leftovers

from .manifest import ShardEntry


class ShardSink(Protocol):
    """Writes shards, each by itself, and at last what describes them all."""

    def write(self, shard: int, episodes: Iterator[Episode]) -> list[Path]:
        """Write a shard, over whatever a killed process left of it; returns its files."""
        ...

    def finish(self, shards: Sequence[ShardEntry]) -> list[Path]:
        """Write what describes all of them, twice if need be; returns the data set's files."""
        ...


class Native:
    """Our own format: a file an episode, in splits by their names."""

    def __init__(self, folder: Path, spec: DatasetSpec) -> None:
        self.folder, self.writer = folder, NativeWriter(folder, spec)

    def write(self, shard: int, episodes: Iterator[Episode]) -> list[Path]:
        """See `ShardSink`."""
        return [self.writer.write(split_of(episode.name), episode) for episode in episodes]

    def finish(self, shards: Sequence[ShardEntry]) -> list[Path]:
        """See `ShardSink`."""
        files = [self.folder / f.path for shard in shards for f in shard.files]
        return [self.folder / DESCRIPTION, *files]


class WebDataset:
    """A tar a shard: an episode is a sample of `mp4`, `json` and an `npy` for each array.

    NAME.mp4 (H.264), NAME.json, NAME.actions.npy (N, *action), NAME.known.npy (N,),
    NAME.rewards.npy (N,), NAME.state.npy (N, S): N chunks, `chunk` frames of the film each.
    """

    def __init__(self, folder: Path, spec: DatasetSpec) -> None:
        self.folder = folder

    def write(self, shard: int, episodes: Iterator[Episode]) -> list[Path]:
        """See `ShardSink`."""
        path = self.folder / f"shard-{shard:06d}.tar"
        clear_leftovers(path)
        with atomic_path(path) as part, tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as tar:
            for episode in episodes:
                for suffix, data in _sample(episode):
                    entry = tarfile.TarInfo(f"{episode.name}.{suffix}")  # dated 1970, of nobody
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
        return [path]

    def finish(self, shards: Sequence[ShardEntry]) -> list[Path]:
        """See `ShardSink`."""
        return [self.folder / f.path for shard in shards for f in shard.files]


def _sample(episode: Episode) -> Iterator[tuple[str, bytes]]:
    """The members of an episode in a tar."""
    about: dict[str, Any] = {
        "chunk": episode.chunk, "fps": episode.fps, "frames": len(episode.frames),
        "terminated": episode.terminated, "truncated": episode.truncated, "text": episode.text,
        "captions": [asdict(caption) for caption in episode.captions],
        "policy": episode.policy, "seed": episode.seed,
    }  # fmt: skip
    yield "json", json.dumps(about).encode()
    with TemporaryDirectory() as place:
        film = Path(place) / "film.mp4"
        write_film(film, frames_of(episode), episode.fps, crf=CRF, threads=1)
        yield "mp4", film.read_bytes()
    for name in ("actions", "known", "rewards", "state"):
        if (values := getattr(episode, name)) is not None:
            stream = io.BytesIO()
            np.save(stream, np.asarray(values), allow_pickle=False)
            yield f"{name}.npy", stream.getvalue()
