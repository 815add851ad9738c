"""Recordings as latents: what the dynamics model trains on, on disk and read clip by clip."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from worldsim.config import parse_json
from worldsim.fields import ABSENT
from worldsim.files import atomic_path, open_plain, read_bytes
from worldsim.models.vae import SpacetimeVAE, to_float
from worldsim.nn.dtype import narrow

from .captions import CaptionTable, table_of
from .columns import columns_of
from .dataset import Dataset, Episode, unfit
from .windows import Windows

PIECE = 256  # chunks encoded at once
COLUMNS = (
    "actions", "known", "rewards", "rewards_known", "continue_prob", "continue_known", "states",
    "states_known",
)  # fmt: skip
AGAIN = "remove the file: it is made again from the data"
AWAY = "move it away, or choose another run folder"


class LatentFile:
    """N latents (h, w, C) float16 in a flat file, read where they are asked for.

    Read by `pread` and not mapped, so that memory does not grow with the data. The CRC-32 of each
    latent is checked when it is read.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], crc: Tensor, key: str) -> None:
        self.path, self.shape, self.crc, self.key = path.absolute(), shape, crc, key
        self._bytes = 2 * prod(shape[1:])
        self._handle: int | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Latents of these rows, (*rows, h, w, C) float16; raises DatasetError if damaged."""
        flat = rows.flatten().tolist()
        out = np.empty((len(flat), self._bytes), np.uint8)
        for first, count in _runs(flat):  # neighbours are read together
            row = flat[first]
            out[first : first + count] = self._read(row, count)
        latents = torch.from_numpy(out.view(np.float16))
        return latents.reshape(*rows.shape, *self.shape[1:])

    def _read(self, row: int, count: int) -> np.ndarray[Any, Any]:
        if self._handle is None:
            with open_plain(self.path) as file:
                self._handle = os.dup(file.fileno())
        data = os.pread(self._handle, count * self._bytes, row * self._bytes)
        if len(data) != count * self._bytes:
            raise unfit(self.path, "size", f"{len(self) * self._bytes} bytes", "less", AGAIN)
        for i in range(count):
            piece = data[i * self._bytes : (i + 1) * self._bytes]
            if zlib.crc32(piece) != int(self.crc[row + i]):
                raise unfit(self.path, f"latent {row + i}", "its checksum", "another", AGAIN)
        return np.frombuffer(data, np.uint8).reshape(count, self._bytes)

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            os.close(self._handle)  # type: ignore[arg-type]

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_handle": None}


def _runs(rows: list[int]) -> Iterator[tuple[int, int]]:
    """Where runs of consecutive rows begin, and how long they are."""
    first = 0
    for i in range(1, len(rows) + 1):
        if i == len(rows) or rows[i] != rows[i - 1] + 1:
            yield first, i - first
            first = i


@dataclass(frozen=True)
class LatentClips:
    """Random clips: latents (B, T, h, w, C) float32, `Columns` of their chunks (B, T, ...), and the
    latents of the same chunks in other colours, None without."""

    latents: Tensor
    actions: Tensor
    known: Tensor
    rewards: Tensor
    rewards_known: Tensor
    continue_prob: Tensor
    continue_known: Tensor
    states: Tensor
    states_known: Tensor
    latent_actions: Tensor
    latent_known: Tensor
    recoloured: Tensor | None = None


def _ones() -> Tensor:
    return torch.zeros(0, dtype=torch.bool)


@dataclass(frozen=True)
class LatentRecording:
    """Episodes as normalised latents, N chunks in all, laid end to end.

    Attributes:
        latents: (N, h, w, C) float16, in memory or on disk; indexed by rows.
        actions, rewards, continue_prob, states, and the masks `known`, `rewards_known`,
            `continue_known`, `states_known`: as in `Columns`; masks that are not given are all
            True, states that are not given have no entries.
        windows: which chunks belong together.
        captions: what is said of them, None where nothing is.
        latent_actions: (N, L) float32, inferred ones; L is 0 where there are none.
        latent_known: (N,) bool, of these.
        recoloured: latents (N, h, w, C) of the same chunks in other colours, None where nothing
            needs them; see `RecolouredDataset`.
    """

    latents: Tensor | LatentFile
    actions: Tensor
    rewards: Tensor
    continue_prob: Tensor
    windows: Windows
    known: Tensor = field(default_factory=_ones)
    rewards_known: Tensor = field(default_factory=_ones)
    continue_known: Tensor = field(default_factory=_ones)
    states: Tensor = field(default_factory=partial(torch.zeros, 0))
    states_known: Tensor = field(default_factory=_ones)
    captions: CaptionTable | None = None
    latent_actions: Tensor = field(default_factory=partial(torch.zeros, 0))
    latent_known: Tensor = field(default_factory=_ones)
    recoloured: Tensor | LatentFile | None = field(default=None, metadata=ABSENT)

    def __post_init__(self) -> None:
        for name in ("states", "latent_actions"):
            if not len(getattr(self, name)):
                object.__setattr__(self, name, torch.zeros(len(self.actions), 0))
        masks = ("known", "rewards_known", "continue_known", "states_known", "latent_known")
        for name in masks:
            if not len(getattr(self, name)):
                object.__setattr__(self, name, torch.ones(len(self.actions), dtype=torch.bool))

    def sample(
        self, count: int, length: int, generator: torch.Generator,
        episodes: tuple[int, int] | None = None,
    ) -> LatentClips:  # fmt: skip
        """`count` random clips of `length` chunks inside one episode; see `Windows.sample`."""
        return self.clips(self.windows.sample(count, length, generator, episodes))

    def clips(self, rows: Tensor) -> LatentClips:
        """The clips of these rows, (B, T)."""
        beside = (*COLUMNS, "latent_actions", "latent_known")
        columns = {name: getattr(self, name)[rows] for name in beside}
        recoloured = None if self.recoloured is None else self.recoloured[rows].float()
        return LatentClips(latents=self.latents[rows].float(), **columns, recoloured=recoloured)


@torch.no_grad()
def encode_episode(vae: SpacetimeVAE, episode: Episode) -> Iterator[Tensor]:
    """Latents of all chunks as one video, in pieces (n, h, w, C) float16."""
    chunk, device = episode.chunk, vae.mean.device
    for a in range(0, len(episode), PIECE):
        before = min(a, 1)  # the encoder looks one chunk back
        frames = np.array(episode.frames[(a - before) * chunk : (a + PIECE) * chunk])
        with narrow(device):
            video = to_float(torch.from_numpy(frames)[None].to(device))
            yield vae.encode(video)[0, before:].half().cpu()


@dataclass(frozen=True)
class Workers:
    """Processes that encode together, all on one file system.

    Attributes:
        rank, count: which this is, of how many.
        wait: returns when all have called it.
    """

    rank: int = 0
    count: int = 1
    wait: Callable[[], None] = lambda: None

    def share(self, lengths: Sequence[int]) -> range:
        """Episodes that are this process's: neighbours, with about as many chunks as others'."""
        ends = np.cumsum(lengths)
        cuts = np.searchsorted(ends, ends[-1] * np.arange(1, self.count) / self.count)
        first, stop = [0, *cuts.tolist()], [*cuts.tolist(), len(lengths)]
        return range(first[self.rank], stop[self.rank])

    def parts(self, flat: Path) -> list[Path]:
        """The files that they write, one each."""
        names = (f"{i + 1}-of-{self.count}{flat.suffix}" for i in range(self.count))
        return [flat] if self.count == 1 else [flat.with_suffix(f".{name}") for name in names]


def latent_cache(
    vae: SpacetimeVAE, data: Dataset, file: Path, workers: Workers | None = None
) -> LatentRecording:
    """Latents of all episodes of `data` by this VAE, made once and kept beside `file`.

    `file` holds the columns; the latents lie in a flat file with the suffix ".bin". Encoding goes
    on where it was killed. Both are keyed by the VAE's weights and the data's fingerprint. Of many
    `workers` each encodes a part into a file of its own, and the first puts them together: the
    same bytes as one makes.
    """
    key, workers = _key(vae, data), workers or Workers()
    if _stored_key(file) != key:
        workers.wait()  # nobody writes before all have looked
        _encode(vae, data, file, key, workers)
    with safe_open(file, "pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        if _made(stored)[1] != _digest(tensors):
            raise unfit(file, "columns", "their checksum", "another", AGAIN)
    columns = {name: tensors[name] for name in COLUMNS}
    shape = tuple(tensors["shape"].tolist())
    latents = LatentFile(file.with_suffix(".bin"), shape, tensors["crc"], key)
    captions = table_of(data) if data.spec.has_text else None
    windows = Windows(tuple(tensors["lengths"].tolist()))
    return LatentRecording(latents=latents, windows=windows, captions=captions, **columns)


def _encode(vae: SpacetimeVAE, data: Dataset, file: Path, key: str, workers: Workers) -> None:
    flat, shape = file.with_suffix(".bin"), _latent_shape(vae, data)
    parts, size = workers.parts(flat), 2 * prod(shape)
    _encode_part(vae, data, parts[workers.rank], key, size, workers.share(data.lengths))
    workers.wait()
    if workers.rank == 0:
        if len(parts) > 1:
            _join(parts, flat, key)
        _write_columns(data, file, flat, key, shape)
        for part in parts if len(parts) > 1 else []:
            part.unlink()
            part.with_suffix(".key.json").unlink(missing_ok=True)
    workers.wait()


def _encode_part(
    vae: SpacetimeVAE, data: Dataset, part: Path, key: str, size: int, places: range
) -> None:
    """Latents of some episodes, `size` bytes each, end to end in a file."""
    lengths = [data.lengths[place] for place in places]
    with _resumed(part, key) as out:
        done = _whole_episodes(os.fstat(out.fileno()).st_size // size, lengths)
        out.truncate(sum(lengths[:done]) * size)
        out.seek(0, os.SEEK_END)
        for place in tqdm(places[done:], desc="encoding", leave=False):
            for piece in encode_episode(vae, data.episode(place)):
                out.write(piece.numpy().tobytes())
        out.flush()
        os.fsync(out.fileno())


def _join(parts: list[Path], flat: Path, key: str) -> None:
    """All parts in one file; cut short by a kill, it is made again: the parts are still there."""
    with _resumed(flat, key) as out:
        out.truncate(0)
        for part in parts:
            with open(part, "rb") as piece:
                shutil.copyfileobj(piece, out)
        out.flush()
        os.fsync(out.fileno())


def _write_columns(data: Dataset, file: Path, flat: Path, key: str, shape: tuple[int, ...]) -> None:
    """What lies beside the latents: columns, checksums, and what they were made from."""
    columns = [
        columns_of(data.episode(place), data.spec.action, len(data.spec.state))
        for place in range(len(data))
    ]
    lengths = list(data.lengths)
    with open(flat, "rb") as latents:
        crc = [zlib.crc32(row) for row in iter(partial(latents.read, 2 * prod(shape)), b"")]
    tensors = {n: torch.cat([getattr(c, n) for c in columns]).contiguous() for n in COLUMNS}
    tensors |= {
        "lengths": torch.tensor(lengths), "crc": torch.tensor(crc),
        "shape": torch.tensor([len(crc), *shape]),
    }  # fmt: skip
    with atomic_path(file) as part:
        told = json.dumps([key, _digest(tensors)])
        save_file(tensors, part, metadata={"sealed": told})  # one key: several come in any order


def _resumed(flat: Path, key: str) -> Any:
    """The flat file to append to; emptied unless it was begun with this key."""
    mark = flat.with_suffix(".key.json")
    try:
        begun = flat.exists() and parse_json(read_bytes(mark, 2**10), mark.name)["key"] == key
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # not of a disk that fails
        begun = False
    if not begun:
        if flat.exists() and not mark.exists():
            raise unfit(flat, "file", "nothing, or latents that worldsim made", "a file", AWAY)
        flat.unlink(missing_ok=True)
        with atomic_path(mark) as part:
            part.write_text(json.dumps({"key": key}) + "\n")
    return open(flat, "r+b" if begun else "w+b")


def _whole_episodes(chunks: int, lengths: list[int]) -> int:
    """How many episodes are whole in a file of so many chunks."""
    return int((np.cumsum(lengths) <= chunks).sum())


def _latent_shape(vae: SpacetimeVAE, data: Dataset) -> tuple[int, ...]:
    first = data.episode(0)
    return tuple(next(iter(encode_episode(vae, first))).shape[1:])


def _stored_key(file: Path) -> str:
    """What a cache was made from; nothing if it is damaged."""
    try:
        open_plain(file).close()  # no pipe, which would be waited for
        with safe_open(file, "pt") as stored:
            shape = stored.get_tensor("shape").tolist()
            whole = file.with_suffix(".bin").stat().st_size == 2 * prod(shape)
            whole = whole and {*COLUMNS, "lengths", "crc"} <= set(stored.keys())
            return _made(stored)[0] if whole else ""
    except (OSError, SafetensorError, TypeError, ValueError):
        return ""


def _made(stored: Any) -> list[str]:
    """What a cache was made of, and the checksum of its tensors."""
    try:
        key, tensors = parse_json((stored.metadata() or {})["sealed"], "sealed")
        return [str(key), str(tensors)]
    except (LookupError, TypeError, ValueError):
        return ["", ""]


def _digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of all that is known beside the latents."""
    whole = sha256()
    for name, value in sorted(tensors.items()):
        whole.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        whole.update(value.contiguous().numpy().tobytes())
    return whole.hexdigest()


def _key(vae: SpacetimeVAE, data: Dataset) -> str:
    digest = sha256(data.fingerprint().encode())
    for value in vae.state_dict().values():
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()
