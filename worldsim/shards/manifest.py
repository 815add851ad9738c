"""What is known of a shard that is made, and of the whole: every file and its SHA-256."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from worldsim.config import ConfigError, from_json, parse_json, short, to_json
from worldsim.data.captions import by_chunk
from worldsim.data.dataset import Episode
from worldsim.data.indexed import file_hash
from worldsim.files import clear_leftovers, read_bytes, write_text

MANIFEST = "shards.json"
SHARDS = "shards"
MAX_BYTES = 2**24  # of a shard's manifest


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file: its path below the folder, bytes and SHA-256."""

    path: str
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        path, most = PurePosixPath(self.path), max(map(len, self.path.split("/")))
        if path.is_absolute() or {"..", "\0"} & {*path.parts, *self.path} or not 0 < most < 200:
            raise ValueError(f"path: expected one below the folder, got {short(self.path)}")


@dataclass(frozen=True, kw_only=True)
class EpisodeEntry:
    """One episode: chunks, the sum of its rewards, how it ended; texts of its chunks, each once."""

    name: str
    chunks: int
    reward: float
    terminated: bool
    truncated: bool
    texts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """A shard that is made; `shards/shard-NNNNNN.json`, written after its files."""

    shard: int
    files: tuple[FileEntry, ...]
    episodes: tuple[EpisodeEntry, ...]


@dataclass(frozen=True, kw_only=True)
class Whole:
    """The data set; `shards.json`, written last."""

    source: str
    fingerprint: str
    episodes: int
    chunks: int
    files: tuple[FileEntry, ...]


def entry_of(episode: Episode) -> EpisodeEntry:
    """What the manifest says of an episode."""
    reward = 0.0 if episode.rewards is None else float(episode.rewards.sum(dtype="f8"))
    return EpisodeEntry(
        name=episode.name, chunks=len(episode), reward=reward, terminated=episode.terminated,
        truncated=episode.truncated, texts=tuple(dict.fromkeys(by_chunk(episode))),
    )  # fmt: skip


def hashed(folder: Path, paths: Sequence[Path]) -> tuple[FileEntry, ...]:
    """Entries of files, in order of path."""
    return tuple(_hashed(folder, path) for path in sorted(paths))


def _hashed(folder: Path, path: Path) -> FileEntry:
    name = path.relative_to(folder).as_posix()
    return FileEntry(path=name, bytes=path.stat().st_size, sha256=file_hash(path))


def differing(folder: Path, files: Sequence[FileEntry], *, contents: bool) -> Iterator[str]:
    """Paths that are missing or of another size; with `contents`, also those of another hash."""
    for entry in files:
        path = folder / entry.path
        if not path.is_file() or path.is_symlink() or path.stat().st_size != entry.bytes:
            yield entry.path
        elif contents and _hashed(folder, path) != entry:
            yield entry.path


def shard_path(folder: Path, shard: int) -> Path:
    """Where a shard's manifest lies."""
    return folder / SHARDS / f"shard-{shard:06d}.json"


def write(path: Path, what: ShardEntry | Whole) -> None:
    """Write a manifest, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(path)
    write_text(path, json.dumps(to_json(what, "manifest"), indent=1) + "\n")


def read_shard(folder: Path, shard: int) -> ShardEntry | None:
    """A shard's manifest, None where it is missing or damaged: the shard is to be made then."""
    path = shard_path(folder, shard)
    try:
        entry = from_json(ShardEntry, parse_json(read_bytes(path, MAX_BYTES), path.name), path.name)
    except (OSError, ConfigError):
        return None
    return entry if entry.shard == shard else None
