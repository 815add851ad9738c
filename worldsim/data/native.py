"""Our own format: a folder with a description and one .npz file an episode.

    lander/
      dataset.json
      train/NAME.npz ...   val/NAME.npz ...   test/NAME.npz ...

Frames lie in pieces that are unpacked one at a time. The whole format is in docs/data-format.md.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from worldsim.config import ConfigError, from_json, parse_json, short, to_json
from worldsim.files import (
    atomic_path,
    clear_leftovers,
    open_plain,
    read_bytes,
    resolved,
    write_text,
)

from .archive import UNREADABLE, Archive, ArchiveWriter, Stamp, open_archive
from .captions import pack, unpack
from .dataset import SPLITS, DatasetError, DatasetSpec, Episode, repeated, unfit
from .episode import check_episode

FORMAT, VERSION = "worldsim-dataset", 2
EPISODE, EPISODE_VERSION = "worldsim-episode", 2
DESCRIPTION = "dataset.json"
UNFINISHED = ".unfinished"  # beside it: a copy that is being made, and of what
OTHERS = ("manifest.json", "meta/info.json", "main_data.hdf5")  # a world, recordings of others
MAX_DESCRIPTION = 2**20  # bytes of dataset.json
MAX_ARRAY = 64 * 2**20  # bytes of each array of an episode but its frames
MAX_PIECE = 64 * 2**20  # bytes of frames that are unpacked together
MAX_META = 2**16  # bytes, 4 for each character
PIECE_FRAMES, PIECE_BYTES = 64, 16 * 2**20  # what the writer makes of it
NAME = re.compile(r"[A-Za-z0-9_%=+,-][A-Za-z0-9._%=+,-]{0,199}")
CAPTIONS = "captions"  # a string array that holds JSON
ARRAYS = {"actions": "if", "known": "b", "state": "f", "rewards": "f"}  # name: dtype kinds


@dataclass(frozen=True, kw_only=True)
class _Meta:
    """What an episode file says besides its arrays; JSON in a string array called `meta`."""

    format: str
    version: int
    frames: tuple[int, int, int, int]
    piece: int
    chunk: int
    fps: float
    terminated: bool
    truncated: bool
    text: str
    policy: str
    seed: int | None


class PiecewiseFrames:
    """Frames of one episode file, a piece unpacked at a time and the last one kept.

    Reading raises DatasetError where the file is damaged, or another one by now.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, stamp: Stamp, shape: tuple[int, ...], piece: int) -> None:
        self.path, self.stamp, self.shape, self.piece = path, stamp, shape, piece
        self._last: tuple[int, NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, span: slice, /) -> NDArray[np.uint8]:
        start, stop, step = span.indices(len(self))
        if step != 1:
            raise ValueError(f"frames: expected a slice of step 1, got step {step}")
        if stop <= start:
            return np.zeros((0, *self.shape[1:]), np.uint8)
        out = np.empty((stop - start, *self.shape[1:]), np.uint8)
        numbers = range(start // self.piece, (stop - 1) // self.piece + 1)
        for number, part in self._pieces(numbers):
            first = number * self.piece
            a, b = max(start, first), min(stop, first + len(part))
            out[a - start : b - start] = part[a - first : b - first]
        return out

    def _pieces(self, numbers: range) -> Any:
        if self._last is not None and list(numbers) == [self._last[0]]:
            yield self._last
            return
        with open_archive(self.path, self.stamp) as archive:
            for number in numbers:
                self._last = number, self._read(archive, number)
                yield self._last

    def _read(self, archive: Archive, number: int) -> NDArray[np.uint8]:
        count = min(self.piece, len(self) - number * self.piece)
        array = archive.read(_piece(number), "u", 4, MAX_PIECE)
        if array.shape != (count, *self.shape[1:]) or array.dtype != np.uint8:
            expected, got = (count, *self.shape[1:]), f"{array.dtype} {array.shape}"
            raise unfit(self.path, _piece(number), f"uint8 {expected}", got)
        return array

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_last": None}


def _piece(number: int) -> str:
    return f"frames_{number:06d}"


def save_episode(path: Path | str, episode: Episode) -> None:
    """Write a checked episode to `path`, all or nothing; equal episodes give equal bytes.

    Frames are taken in slices, so that an episode may be larger than memory. The name of an
    episode is that of its file.
    """
    shape = tuple(int(x) for x in episode.frames.shape)
    piece = max(1, min(PIECE_FRAMES, PIECE_BYTES // int(np.prod(shape[1:]))))
    meta = _Meta(
        format=EPISODE, version=EPISODE_VERSION, frames=shape, piece=piece,  # type: ignore[arg-type]
        chunk=episode.chunk, fps=float(episode.fps), terminated=bool(episode.terminated),
        truncated=bool(episode.truncated), text=episode.text, policy=episode.policy,
        seed=None if episode.seed is None else int(episode.seed),
    )  # fmt: skip
    text = np.array(json.dumps(to_json(meta, "meta")))
    if text.nbytes > MAX_META:
        raise unfit(path, "text", f"at most {MAX_META // 8} characters", len(episode.text))
    with atomic_path(Path(path)) as part, part.open("wb") as file:
        writer = ArchiveWriter(file)
        writer.add("meta", text)
        for name in ARRAYS:
            if (values := getattr(episode, name)) is not None:
                writer.add(name, values)
        if episode.captions:
            writer.add(CAPTIONS, pack(episode.captions))
        for number in range(-(-shape[0] // piece)):
            frames = np.asarray(episode.frames[number * piece : (number + 1) * piece])
            if frames.dtype != np.uint8 or frames.shape[1:] != shape[1:]:
                got = f"{frames.dtype} {frames.shape}"
                raise unfit(path, "frames", f"uint8 (n, {shape[1:]})", got)
            writer.add(_piece(number), frames)
        writer.close()


def load_episode(path: Path | str) -> Episode:
    """An episode file; its frames are unpacked when they are asked for.

    Raises DatasetError, naming file and field, for anything but a whole episode file. Whether it
    fits a dataset is `check_episode`'s to say.
    """
    path = Path(path).absolute()
    with open_archive(path) as archive:
        meta = _read_meta(archive)
        arrays = {
            name: archive.read(name, kinds, None, MAX_ARRAY)
            for name, kinds in ARRAYS.items()
            if name in archive.members
        }
        captions = ()
        if CAPTIONS in archive.members:
            captions = unpack(str(archive.read(CAPTIONS, "U", 0, MAX_ARRAY).item()), path)
        frames = PiecewiseFrames(path, archive.stamp, meta.frames, meta.piece)
    return Episode(
        name=path.stem, frames=frames, chunk=meta.chunk, fps=meta.fps, terminated=meta.terminated,
        truncated=meta.truncated, text=meta.text, captions=captions, policy=meta.policy,
        seed=meta.seed, **arrays,
    )  # fmt: skip


def _read_meta(archive: Archive) -> _Meta:
    path = archive.path
    text = str(archive.read("meta", "U", 0, MAX_META).item())
    try:
        raw = parse_json(text, "meta")
        found = (raw.get("format"), raw.get("version")) if isinstance(raw, dict) else (None, None)
        if found != (EPISODE, EPISODE_VERSION):
            expected = f"{EPISODE} version {EPISODE_VERSION}"
            raise unfit(path, "format", expected, short(found, 100))
        meta = from_json(_Meta, raw, "meta")
    except ConfigError as error:
        raise unfit(path, "meta", "the description of an episode", error) from error
    size = int(np.prod(meta.frames[1:], dtype=object))
    fits = min(meta.frames) > 0 and meta.frames[3] == 3 and meta.chunk > 0 and meta.fps > 0
    if not fits or not 0 < meta.piece * size <= MAX_PIECE or meta.frames[0] % meta.chunk:
        expected = f"(n * chunk, H, W, 3) in pieces of at most {MAX_PIECE} bytes"
        got = f"{meta.frames} in pieces of {meta.piece}, chunk {meta.chunk}, fps {meta.fps}"
        raise unfit(path, "frames", expected, short(got, 200))
    pieces = -(-meta.frames[0] // meta.piece)
    found = set(archive.members) - {"meta", CAPTIONS, *ARRAYS}
    # counted first: a name for each declared piece may be more than memory holds
    if len(found) != pieces or any(_piece(n) not in found for n in range(pieces)):
        names = short(sorted(found)[:20], 200)
        raise unfit(
            path, "arrays", f"meta, {pieces} pieces of frames, some of {[*ARRAYS, CAPTIONS]}", names
        )
    return meta


def _read_description(folder: Path) -> DatasetSpec:
    path = folder / DESCRIPTION
    try:
        with open_plain(path) as file:
            data = file.read(MAX_DESCRIPTION + 1)
        if len(data) > MAX_DESCRIPTION:
            raise unfit(path, "size", f"at most {MAX_DESCRIPTION} bytes", "more")
        raw = parse_json(data, DESCRIPTION)
        found = (raw.get("format"), raw.get("version")) if isinstance(raw, dict) else (None, None)
        if found != (FORMAT, VERSION):
            raise unfit(path, "format", f"{FORMAT} version {VERSION}", short(found, 100))
        return from_json(DatasetSpec, _filled(raw, folder), "dataset")
    except DatasetError:
        raise
    except (ConfigError, *UNREADABLE) as error:
        got = getattr(error, "strerror", None) or short(str(error), 500)
        remedy = "record one with worldsim collect, or write it with worldsim.data.NativeWriter"
        raise unfit(path, "contents", f"the description of a {FORMAT}", got, remedy) from error


def _filled(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What may be left out of a description that was written by hand."""
    given = {key: value for key, value in raw.items() if key not in ("format", "version")}
    if isinstance(action := given.get("action"), dict):
        empty = {"low": [], "high": [], "n": 0, "start": 0, "nvec": []}
        given["action"] = empty | action
    absent = {"name": folder.name, "state": [], "has_rewards": False, "has_text": False}
    return absent | {"environment": None} | given


class NativeDataset:
    """The `Dataset` in a folder of ours; see `worldsim.data.dataset.Dataset`.

    Files are found when this is made, and opened when an episode or its length is asked for.
    """

    def __init__(self, folder: Path | str, files: Mapping[str, Sequence[Path]] | None = None):
        self.folder = Path(folder).absolute()  # whatever os.chdir does later
        self.spec = _read_description(self.folder)
        if files is None and os.path.lexists(mark := self.folder / UNFINISHED):
            remedy = f"run the same command again, or delete {mark} to take what is there"
            raise unfit(self.folder, "folder", "a whole copy", "one that was cut short", remedy)
        self._files = files if files is not None else _find(self.folder)
        self._paths = [path for split in self._files.values() for path in split]
        self._lengths: Sequence[int] | None = None
        self.names: Sequence[str] = [path.stem for path in self._paths]
        if (twice := repeated(self.names)) is not None:
            raise unfit(self.folder, "names", "each episode in one split only", twice,
                        "rename one of the files, or move it elsewhere")  # fmt: skip

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def lengths(self) -> Sequence[int]:
        """Chunks of each episode."""
        if self._lengths is None:
            self._lengths = [self._frames(path)[0] // self.spec.chunk for path in self._paths]
        return self._lengths

    @property
    def splits(self) -> Sequence[str]:
        """Those that hold an episode."""
        return [split for split, paths in self._files.items() if paths]

    def path(self, index: int) -> Path:
        """The file of an episode."""
        return self._paths[index]

    def episode(self, index: int) -> Episode:
        """One episode; raises DatasetError where its file is damaged or does not fit."""
        path = self._paths[index]
        real = resolved(path)
        if not real.is_relative_to(resolved(self.folder)):
            raise unfit(path, "file", f"a file within {self.folder}", real)
        return check_episode(load_episode(path), self.spec, path)

    def split(self, name: str) -> NativeDataset:
        """The episodes of one split."""
        if name not in self.splits:
            got = f"{name!r} in {self.folder}"
            remedy = f"record episodes into {self.folder / name}"
            raise unfit("dataset", "split", f"one of {list(self.splits)}", got, remedy)
        return NativeDataset(self.folder, {name: self._files[name]})

    def fingerprint(self) -> str:
        """SHA-256 of description, names, and checksums of all arrays (CRC-32, checked on reading).

        Made of the files' directories, so that it costs little and does not depend on how they
        are packed.
        """
        whole = sha256(json.dumps(to_json(self.spec)).encode())
        for path in tqdm(self._paths, desc="fingerprint", leave=False, delay=2):
            with open_archive(path) as archive:
                entries = [asdict(m) for m in archive.members.values()]
            whole.update(json.dumps([path.parent.name, path.stem, entries]).encode())
        return whole.hexdigest()

    def _frames(self, path: Path) -> tuple[int, int, int, int]:
        with open_archive(path) as archive:
            return _read_meta(archive).frames


def _find(folder: Path) -> dict[str, list[Path]]:
    """Episode files of each split in order of name; those still being written start with a dot."""
    found = {split: sorted((folder / split).glob("*.npz")) for split in SPLITS}
    return {split: [p for p in files if NAME.fullmatch(p.name)] for split, files in found.items()}


def file_name(name: str) -> str:
    """The name of any episode as one that files may have: letters, digits and a few signs."""
    safe = quote(name, safe="=+,", errors="surrogatepass")
    safe = "_" + safe[1:] if safe.startswith(".") else safe
    if len(safe) > 150:
        safe = f"{safe[:100]}-{sha256(safe.encode()).hexdigest()[:16]}"
    return safe


class NativeWriter:
    """Writes a dataset of ours, an episode at a time, in any order, from several processes.

    Args:
        folder: made if it is not there; what it holds is kept.
        spec: of all its episodes; environment and all.

    Raises DatasetError if the folder holds a dataset of another spec.
    """

    def __init__(self, folder: Path | str, spec: DatasetSpec) -> None:
        self.folder, self.spec = Path(folder).absolute(), spec
        if other := [mark for mark in OTHERS if (self.folder / mark).exists()]:
            expected, remedy = "a new folder, or one of a dataset of ours", "choose another"
            raise unfit(self.folder, "folder", expected, f"one with {other[0]}", remedy)
        for split in SPLITS:
            (self.folder / split).mkdir(parents=True, exist_ok=True)
        path = self.folder / DESCRIPTION
        values = {"format": FORMAT, "version": VERSION, **to_json(spec, "dataset")}
        plain = from_json(DatasetSpec, to_json(spec, "dataset"), "dataset")
        if not path.exists():
            clear_leftovers(path)
            write_text(path, json.dumps(values, indent=2) + "\n")
        elif (found := _read_description(self.folder)) != plain:
            pairs = [
                (f.name, getattr(plain, f.name), getattr(found, f.name)) for f in fields(plain)
            ]
            name, wanted, got = next(pair for pair in pairs if pair[1] != pair[2])
            remedy = "choose another folder, or the settings that it was recorded with"
            asked = f"{wanted}, as is asked for"
            raise unfit(self.folder, name, asked, f"a dataset of {got}", remedy)

    def path(self, split: str, name: str) -> Path:
        """Where the episode of this name lies, or will lie."""
        if split not in SPLITS or not NAME.fullmatch(name):
            expected = f"one of {SPLITS} and letters, digits and ._%=+,-"
            remedy = "make a name with worldsim.data.native.file_name"
            raise unfit(self.folder, "name", expected, f"{split!r}, {name!r}", remedy)
        return self.folder / split / f"{name}.npz"

    def write(self, split: str, episode: Episode) -> Path:
        """Check and write one episode, all or nothing."""
        path = self.path(split, episode.name)
        whole = check_episode(replace(episode), self.spec, f"episode {episode.name}")
        clear_leftovers(path)
        save_episode(path, whole)
        return path

    @contextmanager
    def copying(self, told: str, *, alone: bool = False) -> Iterator[None]:
        """Within, a copy is made; cut short, the folder is no dataset until it is gone on with.
        A folder begun with another `told`, or (`alone`) with other episodes, is a DatasetError."""
        mark = self.folder / UNFINISHED
        begun = read_bytes(mark, 2**16).decode(errors="replace") if mark.exists() else None
        if begun is None and alone and any(_find(self.folder).values()):
            begun = "episodes"
        if begun not in (None, told):
            expected, remedy = f"a new folder, or one begun with {told}", "choose another"
            raise unfit(self.folder, "folder", expected, short(begun, 200), remedy)
        write_text(mark, told)
        yield
        mark.unlink()

    def dataset(self) -> NativeDataset:
        """What the folder holds by now."""
        return NativeDataset(self.folder)
