"""Minari datasets (HDF5) by h5py; nothing is imported, made or installed by their metadata."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldsim.actions import MOST_ENTRIES
from worldsim.config import ConfigError, parse_json, short
from worldsim.core import ActionSpec, WorldError
from worldsim.files import open_plain

from .archive import UNREADABLE
from .dataset import DatasetError, DatasetSpec, Episode, unfit
from .indexed import Fit, FittedFrames, IndexedDataset, file_hash, say
from .picture import read_picture

MAX_ARRAY = 2**26  # bytes of each array but frames
MAX_PIECE = 2**26  # bytes that are unpacked together: of a piece ("chunk" in HDF5) of an array
MAX_RATIO = 1100  # bytes of an array for each that the file holds: deflate packs no tighter
SMALL = 2**16  # bytes of an array that needs no look at how it is packed
MAX_FRAMES = 2**40  # bytes of an episode's frames, which are read in slices
FILTERS = {1, 2, 3, 32000}  # deflate, shuffle, fletcher32, lzf: what h5py has without plugins
DEFAULT_FPS = 30.0


class MinariDataset(IndexedDataset):
    """The episodes of a Minari dataset whose observations hold images.

    T steps and T + 1 observations make T + 1 chunks of one frame: the first has no action.

    Args:
        name: of a dataset under MINARI_DATASETS_PATH (or ~/.minari/datasets), or its folder.
        size: (height, width) to resize to.
        fps: frames a second, which Minari does not tell; 30 by default, said aloud.
        camera: key of the image among the observations, "a/b" for one within another; the only
            one by default.
    """

    def __init__(
        self, name: str | Path, *, size: tuple[int, int] | None = None,
        fps: float | None = None, camera: str | None = None,
    ) -> None:  # fmt: skip
        _h5py()
        self.folder = _folder(str(name)).absolute()
        self.path = self.folder / "main_data.hdf5"
        self.meta = _metadata(self.folder)
        self._jpeg = bool(self.meta.get("jpeg_encoding"))
        with _opened(self.path) as file:
            _check_tree(file, self.path)
            groups = _episodes(file)
            counts = [len(file[g]["rewards"]) + 1 for g in groups]
            images = dict(_images(file[groups[0]]["observations"], "", self._jpeg, self.meta))
            self._key_of_image = _chosen(images, camera, self.folder)
            self._vector = _vector(file[groups[0]]["observations"])
            width = _width(file, groups[0], self._vector)
        if fps is None:
            say(f"{name}: Minari tells no frame rate: {DEFAULT_FPS:g} is taken; give fps=")
        self._groups = groups
        source = images[self._key_of_image]
        self._fit = Fit.of(source, size, str(name))
        spec = DatasetSpec(
            name=str(self.meta.get("dataset_id") or self.folder.name).replace("\n", " ")[:200],
            frame_shape=(*self._fit.target, 3), fps=fps or DEFAULT_FPS, chunk=1,
            action=_action(self.meta, self.path), state=tuple(f"state_{i}" for i in range(width)),
            has_rewards=True,
        )  # fmt: skip
        super().__init__(spec, groups, counts)

    def _read(self, place: int) -> Episode:
        group, action = self._groups[place], self.spec.action
        with _opened(self.path) as file:
            episode = file[group]
            count = self._lengths[place]
            steps = {k: _array(episode, k, self.path) for k in _STEPS}
            if any(len(values) != count - 1 for values in steps.values()):
                got = {k: len(v) for k, v in steps.items()}
                raise unfit(self.path, group, f"{count - 1} steps in each array", got)
            state = None
            if self._vector is not None and self.spec.state:
                key = f"observations/{self._vector}".rstrip("/")
                state = _array(episode, key, self.path).reshape(count, -1)
            seed = episode.attrs.get("seed")
        frames = _HDF5Frames(
            self.path, f"{group}/observations/{self._key_of_image}".rstrip("/"),
            (count, *self._fit.source, 3), self._jpeg,
        )  # fmt: skip
        actions = steps["actions"].reshape(count - 1, *action.shape)
        return Episode(
            name=group, frames=FittedFrames(frames, self._fit), chunk=1, fps=self.spec.fps,
            actions=np.concatenate([np.full_like(actions[:1], 0) + action.least, actions]),
            known=np.arange(count) > 0, state=state,
            rewards=np.concatenate([[0], steps["rewards"]]).astype(np.float32),
            terminated=bool(steps["terminations"][-1]), truncated=bool(steps["truncations"][-1]),
            seed=int(seed) if isinstance(seed, (int, np.integer)) else None,
        )  # fmt: skip

    def _key(self, place: int) -> str:
        status = self.path.stat()
        stamp = status.st_size, status.st_mtime_ns
        if getattr(self, "_hashed", (None, ""))[0] != stamp:
            self._hashed = stamp, file_hash(self.path)
        return self._hashed[1]


_STEPS = ("actions", "rewards", "terminations", "truncations")


class _HDF5Frames:
    """Frames (T, H, W, 3) in an HDF5 file, read when they are asked for."""

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, key: str, shape: tuple[int, ...], jpeg: bool) -> None:
        self.path, self.key, self.shape, self.jpeg = path, key, shape, jpeg

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, span: slice, /) -> NDArray[np.uint8]:
        with _opened(self.path) as file:
            stored = file[self.key]
            if len(stored) != len(self):
                raise unfit(self.path, self.key, f"{len(self)} frames", len(stored))
            rows, packed = stored[span], self.jpeg and stored.ndim < 3  # small ones are not packed
        frames = np.stack([_decoded(r, self.path) for r in rows]) if packed and len(rows) else rows
        frames = _colours(frames) if len(frames) else np.zeros((0, *self.shape[1:]), np.uint8)
        if frames.dtype != np.uint8 or frames.shape[1:] != self.shape[1:]:
            expected, got = f"uint8 {self.shape[1:]}", f"{frames.dtype} {frames.shape[1:]}"
            raise unfit(self.path, self.key, expected, got)
        return frames


def _decoded(row: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    try:
        return read_picture(io.BytesIO(row.tobytes()), ("JPEG",))
    except ValueError as error:
        raise unfit(path, "observations", "JPEG images", short(str(error), 100)) from error


def _colours(frames: NDArray[Any]) -> NDArray[Any]:
    """Grey, or with transparency, as RGB."""
    frames = frames[..., None] if frames.ndim == 3 else frames
    return np.repeat(frames, 3, -1) if frames.shape[-1] == 1 else frames[..., :3]


def _h5py() -> Any:
    try:
        return import_module("h5py")
    except ImportError as error:
        raise DatasetError(
            "h5py: expected it installed to read Minari, got no such module; "
            "pip install 'worldsim[minari]'"
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An HDF5 file; every failure is a DatasetError."""
    h5py = _h5py()
    try:
        open_plain(path).close()
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (*UNREADABLE, AttributeError) as error:
        if isinstance(error, WorldError):
            raise
        got = getattr(error, "strerror", None) or short(str(error), 200)
        raise unfit(path, "file", "the HDF5 file of a Minari dataset", got) from error


def _check_tree(file: Any, path: Path) -> None:
    """Refuse what leads out of the file or asks for too much, before any of it is opened."""
    h5py = _h5py()
    queue, seen = [file], set()
    while queue:
        group = queue.pop()
        place = h5py.h5o.get_info(group.id).addr
        if place in seen:  # groups may hold each other
            raise unfit(path, group.name, "each group once", "a group within another one, too")
        seen.add(place)
        for name in group:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise unfit(path, name, "data in the file itself", type(link).__name__)
            item = group[name]
            if isinstance(item, h5py.Group):
                queue.append(item)
                continue
            if not isinstance(item, h5py.Dataset) or item.shape is None:
                raise unfit(path, item.name, "groups and arrays", type(item).__name__)
            plist = item.id.get_create_plist()
            filters = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())}
            if item.external or item.is_virtual or not filters <= FILTERS:
                raise unfit(path, item.name, "plain data", f"external or virtual, {filters}")
            most = MAX_FRAMES if "observations" in item.name else MAX_ARRAY
            if (size := _bytes(item.shape, item)) > most:
                raise unfit(path, item.name, f"at most {most} bytes", f"shape {item.shape}")
            held = item.id.get_storage_size()
            if size > max(SMALL, MAX_RATIO * held):
                raise unfit(path, item.name, f"the {size} bytes that it declares", f"{held}")
            if item.chunks and _bytes(item.chunks, item) > MAX_PIECE:
                expected = f"pieces of at most {MAX_PIECE} bytes"
                raise unfit(path, item.name, expected, f"shape {item.chunks}")


def _bytes(shape: tuple[int, ...], item: Any) -> int:
    return prod(map(int, shape)) * item.dtype.itemsize


def _episodes(file: Any) -> list[str]:
    names = [n for n in file if n.startswith("episode_") and n[8:].isdigit()]
    if not names:
        raise ValueError("no groups called episode_N")
    return sorted(names, key=lambda n: int(n[8:]))


def _array(group: Any, key: str, path: Path) -> NDArray[Any]:
    if key not in group or not hasattr(group[key], "shape"):
        raise unfit(path, f"{group.name}/{key}", "an array", "none")
    values = group[key][()]
    if values.dtype.kind not in "biuf":
        raise unfit(path, f"{group.name}/{key}", "numbers", values.dtype)
    return values


def _images(
    item: Any, key: str, jpeg: bool, meta: dict[str, Any]
) -> Iterator[tuple[str, tuple[int, int]]]:
    """Keys of images among the observations, and their (height, width)."""
    if hasattr(item, "keys"):
        for name in item:
            yield from _images(item[name], f"{key}/{name}".strip("/"), jpeg, meta)
    elif jpeg and len(item) and item.dtype.kind in "uO" and item.ndim <= 2:
        frame = _colours(_decoded(np.asarray(item[0]), Path(item.name))[None])[0]
        yield key, frame.shape[:2]
    elif (
        item.dtype == np.uint8
        and item.ndim in (3, 4)
        and (item.ndim == 3 or item.shape[-1] in (1, 3, 4))
    ):
        yield key, item.shape[1:3]


def _chosen(images: dict[str, Any], camera: str | None, folder: Path) -> str:
    if camera is None and len(images) == 1:
        return next(iter(images))
    if camera in images:
        return str(camera)
    remedy = (
        "give camera="
        if images
        else ("record pixels: wrap the environment in gymnasium.wrappers.AddRenderObservation")
    )
    expected = f"one of the image observations {sorted(images)}"
    raise unfit(folder, "camera", expected, repr(camera), remedy)


def _vector(observations: Any) -> str | None:
    """The only vector among the observations, the state."""
    if not hasattr(observations, "keys"):
        return None
    found = [n for n in observations if getattr(observations[n], "ndim", 0) == 2
             and observations[n].dtype.kind == "f"]  # fmt: skip
    return found[0] if len(found) == 1 else None


def _width(file: Any, group: str, key: str | None) -> int:
    return 0 if key is None else int(file[group]["observations"][key].shape[1])


def _folder(name: str) -> Path:
    root = Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")
    tried = [Path(name), root / name]
    for folder in (inner for base in tried for inner in (base / "data", base)):
        if (folder / "main_data.hdf5").exists():
            return folder
    expected = f"main_data.hdf5 in {tried[0]} or {tried[1]}"
    raise unfit(name, "dataset", expected, "none", "download it with: minari download NAME")


def _metadata(folder: Path) -> dict[str, Any]:
    path = folder / "metadata.json"
    try:
        with open_plain(path) as file:
            data = file.read(2**24 + 1)
        if len(data) > 2**24:
            raise unfit(path, "size", f"at most {2**24} bytes", "more")
        value = parse_json(data, path.name)
    except (OSError, ConfigError) as error:
        raise unfit(path, "contents", "the metadata of a Minari dataset", error) from error
    if not isinstance(value, dict):
        raise unfit(path, "contents", "an object", short(value, 80))
    return value


def _action(meta: dict[str, Any], path: Path) -> ActionSpec:
    """The action space that the metadata describes; Minari stores it as JSON in a string."""
    text = meta.get("action_space")
    try:
        space: Any = parse_json(text, "action_space") if isinstance(text, str) else text
        kind = space["type"]
        if kind == "Discrete":
            return ActionSpec(kind="discrete", n=int(space["n"]), start=int(space.get("start", 0)))
        if kind == "MultiDiscrete":
            return ActionSpec(kind="multi_discrete", nvec=tuple(map(int, space["nvec"])))
        if kind == "MultiBinary":
            count = prod(map(int, np.ravel(space["n"])))
            if not 0 < count <= MOST_ENTRIES:
                raise ValueError(f"MultiBinary of {short(space['n'], 80)}")
            return ActionSpec(kind="multi_binary", nvec=(2,) * count)
        low, high = (tuple(np.ravel(space[k]).astype(float).tolist()) for k in ("low", "high"))
        return ActionSpec(kind="continuous", low=low, high=high)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        expected = "a bounded Box, Discrete, MultiDiscrete or MultiBinary"
        raise unfit(path.parent / "metadata.json", "action_space", expected, error) from error
