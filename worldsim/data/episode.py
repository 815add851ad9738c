"""One recorded episode, and the file that holds it.

An episode file is an ordinary ``.npz``. Reading it trusts nothing: sizes are read from the zip
directory and the array headers and checked before any memory is taken, pickles are never opened,
and the checksum of every array is verified.
"""

import lzma
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from worldsim.files import atomic_path, open_plain

FORMAT = "worldsim-episode"
VERSION = 1
MAX_BYTES = 4 * 2**30  # of all arrays of one file, unpacked
PIECE = 2**20  # bytes unpacked at a time, so that an array is never held twice
REMEDY = "collect the episode again, or write it with worldsim.data.save_episode"


class EpisodeError(ValueError):
    """A file that is not a whole, consistent worldsim episode, or an episode that cannot be one."""

    def __init__(self, where: Path | str, field: str, expected: str, got: object) -> None:
        super().__init__(str(where), field, expected, str(got))  # all four: survives pickling

    def __str__(self) -> str:
        where, field, expected, got = self.args
        return f"{where}: {field}: expected {expected}, got {got}; {REMEDY}"


@dataclass(frozen=True, kw_only=True)
class Episode:
    """N chunks of one episode; ``actions[k]`` led into ``frames[k * chunk : (k + 1) * chunk]``.

    frames: (N * chunk, H, W, 3) uint8. An episode that ended inside a chunk repeats its last frame.
    actions: (N, A) float32, or (N,) int64 if discrete.
    rewards: (N,) float32, summed over the chunk.
    terminated, truncated: whether the last chunk ended the episode, as Gymnasium means it.
    seed: the reset seed. behaviour: name of the policy that acted.
    Raises EpisodeError where dtypes, shapes or values do not fit.
    """

    frames: NDArray[np.uint8]
    actions: NDArray[Any]
    rewards: NDArray[np.float32]
    terminated: bool
    truncated: bool
    seed: int
    behaviour: str

    def __post_init__(self) -> None:
        _check(self, "episode")

    @property
    def chunk(self) -> int:
        """Frames per action."""
        return len(self.frames) // len(self.actions)


def _check(ep: Episode, where: Path | str) -> None:
    f, a, r = ep.frames, ep.actions, ep.rewards
    if f.dtype != np.uint8 or f.ndim != 4 or f.shape[-1] != 3 or 0 in f.shape:
        raise EpisodeError(where, "frames", "uint8 (N * chunk, H, W, 3)", f"{f.dtype} {f.shape}")
    continuous = a.dtype == np.float32 and a.ndim == 2 and a.shape[1] > 0
    if not (continuous or (a.dtype == np.int64 and a.ndim == 1)) or len(a) == 0:
        expected = "float32 (N, A) or int64 (N,), N >= 1"
        raise EpisodeError(where, "actions", expected, f"{a.dtype} {a.shape}")
    if r.dtype != np.float32 or r.shape != (len(a),):
        raise EpisodeError(where, "rewards", f"float32 ({len(a)},)", f"{r.dtype} {r.shape}")
    if len(f) % len(a) or len(f) < len(a):
        expected = f"a whole number of frames for each of {len(a)} actions"
        raise EpisodeError(where, "frames", expected, f"{len(f)} frames")
    if ep.seed < 0:
        raise EpisodeError(where, "seed", "a whole number >= 0", ep.seed)
    for name, values in (("actions", a), ("rewards", r)):
        if not np.isfinite(values).all():
            raise EpisodeError(where, name, "finite values", "NaN or infinity")


def save_episode(path: Path | str, episode: Episode) -> None:
    """Write `episode` to `path`, all or nothing; equal episodes give equal bytes."""
    with atomic_path(Path(path)) as part, part.open("wb") as file:
        np.savez_compressed(
            file,
            format=np.array(FORMAT),
            version=np.array(VERSION, np.int64),
            frames=episode.frames,
            actions=episode.actions,
            rewards=episode.rewards,
            terminated=np.array(episode.terminated),
            truncated=np.array(episode.truncated),
            seed=np.array(episode.seed, np.int64),
            behaviour=np.array(episode.behaviour),
        )


FIELDS = {  # name: accepted dtype kinds and dimensions
    "format": ("U", 0),
    "version": ("i", 0),
    "frames": ("u", 4),
    "actions": ("if", None),
    "rewards": ("f", 1),
    "terminated": ("b", 0),
    "truncated": ("b", 0),
    "seed": ("i", 0),
    "behaviour": ("U", 0),
}


UNREADABLE = (  # what zipfile, zlib and numpy raise on damaged or foreign bytes
    OSError, EOFError, ValueError, OverflowError, SyntaxError, RuntimeError, struct.error,
    zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip


def load_episode(path: Path | str, *, max_bytes: int = MAX_BYTES) -> Episode:
    """Read and check an episode file.

    max_bytes: refuse files that declare more than this, unpacked, before allocating.
    Raises EpisodeError for anything but a whole worldsim episode (also a missing file).
    """
    path = Path(path)
    try:
        with open_plain(path) as file, zipfile.ZipFile(file) as archive:
            _check_directory(path, archive, max_bytes)
            values = {name: _read_array(path, archive, name) for name in FIELDS}
    except EpisodeError:
        raise
    except UNREADABLE as error:
        got = getattr(error, "strerror", None) or repr(error)[:200]
        raise EpisodeError(path, "file", "a whole .npz file", got) from error
    for name, expected in (("format", FORMAT), ("version", VERSION)):
        if values[name].item() != expected:
            raise EpisodeError(path, name, repr(expected), repr(values[name].item())[:100])
    scalars = {name: values[name].item() for name in ("terminated", "truncated", "seed")}
    arrays = {name: values[name] for name in ("frames", "actions", "rewards")}
    try:
        return Episode(**arrays, **scalars, behaviour=str(values["behaviour"].item()))
    except EpisodeError as error:
        _, field, expected, got = error.args
        raise EpisodeError(path, field, expected, got) from error


def _check_directory(path: Path, archive: zipfile.ZipFile, max_bytes: int) -> None:
    found = sorted(archive.namelist())
    if found != sorted(f"{name}.npy" for name in FIELDS):
        raise EpisodeError(path, "arrays", f"exactly {sorted(FIELDS)}", str(found[:20])[:300])
    total = sum(entry.file_size for entry in archive.infolist())
    if total > max_bytes:
        expected = f"at most {max_bytes} bytes unpacked"
        raise EpisodeError(path, "size", expected, f"{total} bytes declared")


def _read_array(path: Path, archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """One array; its header must declare just the bytes that the zip directory declares."""
    entry = archive.getinfo(f"{name}.npy")
    with archive.open(entry) as file:
        shape, dtype = _read_header(path, file, name)
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if size != entry.file_size - file.tell():
            got = f"{dtype} {shape} in {entry.file_size - file.tell()} bytes"
            raise EpisodeError(path, name, f"{size} bytes of data", got)
        data = bytearray(size)  # writable, for torch
        view, done = memoryview(data), 0
        while got := file.readinto(view[done : done + PIECE]):  # type: ignore[attr-defined]
            done += got
        if done != size or file.read(1):  # to the end, which verifies the checksum
            raise EpisodeError(path, name, f"{size} bytes of data", f"{done} bytes")
    return np.frombuffer(data, dtype).reshape(shape)


def _read_header(path: Path, file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    kinds, dims = FIELDS[name]
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("not .npy version 1.0")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except ValueError as error:
        raise EpisodeError(path, name, "a .npy array", error) from error
    fits = dtype.kind in kinds and dims in (None, len(shape)) and min(shape, default=0) >= 0
    if fortran or not fits:
        expected = f"C-ordered array of kind {' or '.join(kinds)}"
        expected += "" if dims is None else f" with {dims} dimensions"
        raise EpisodeError(path, name, expected, f"{dtype} {shape} fortran={fortran}")
    return shape, dtype
