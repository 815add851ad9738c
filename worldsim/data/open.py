"""`worldsim.open`: anybody's recordings as a `Dataset`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from worldsim import worlds
from worldsim.core import WorldSpec

from .dataset import Dataset, DatasetError, unfit
from .native import DESCRIPTION, NativeDataset
from .sized import at_size

Kind = Literal["native", "video", "minari", "lerobot"]
HDF5 = "main_data.hdf5"


def open_dataset(
    uri: str | Path, *, size: tuple[int, int] | None = None, chunk: int | None = None,
    fps: float | None = None, camera: str | None = None,
) -> Dataset:  # fmt: skip
    """Open recordings where they lie; nothing is copied or imported, frames are decoded lazily.

    Args:
        uri: a folder of ours, a folder of video files, "minari:NAME" or "minari:FOLDER",
            "lerobot:FOLDER". A folder's kind is found where it is not said.
        size: (height, width) to resize frames to, divisible by 8. None keeps them, padded where
            sides are not.
        chunk: frames an action holds for; 1 for data of others that have actions, as these are
            given for each frame.
        fps: frames a second to resample video without actions to; of Minari, what it does not tell.
        camera: which camera of several, or "tile" for all of them side by side.

    Raises DatasetError that names file, field and remedy.
    """
    kind, rest = _kind(str(uri))
    if kind == "minari":
        from .minari import MinariDataset  # h5py is an extra

        _refuse(uri, chunk=chunk not in (None, 1) and chunk)
        return MinariDataset(rest, size=size, fps=fps, camera=camera)
    folder = Path(rest)
    if kind == "lerobot":
        from .lerobot import LeRobotDataset  # pyarrow is an extra

        _refuse(uri, fps=fps)
        return LeRobotDataset(folder, size=size, chunk=chunk, camera=camera)
    if kind == "native":
        data = NativeDataset(folder)
        height, width, _ = data.spec.frame_shape
        same = {"size": (height, width), "chunk": data.spec.chunk, "fps": data.spec.fps}
        given = {"size": size and tuple(size), "chunk": chunk, "fps": fps}
        _refuse(uri, **{k: v for k, v in given.items() if v != same[k]}, camera=camera)
        return data
    from .video import VideoDataset

    _refuse(uri, camera=camera)
    return VideoDataset(folder, size=size, chunk=chunk, fps=fps)


def open_for(
    uri: str | Path, world: WorldSpec, *, camera: str | None = None,
    sizes: tuple[tuple[int, int], ...] = (),
) -> Dataset:  # fmt: skip
    """Open recordings as `world` was made of them: in its frame size, chunk and rate.

    Frames are resized only where they do not come in the world's size by themselves. sizes: frame
    sizes that the world was trained on, where these were said: then frames are cropped to the
    world's shape and reduced, as they were for it. What cannot be brought to the world's kind is
    told by `worldsim.data.columns.check_kind`. Raises DatasetError.
    """
    kind, _ = _kind(str(uri))
    if kind == "native":
        data = open_dataset(uri, camera=camera)
        return _at_own_size(data, world, sizes)
    options: dict[str, Any] = {"fps": world.fps} if kind != "lerobot" else {}
    if kind != "minari" and world.chunk > 1:
        options["chunk"] = world.chunk
    if kind != "video":
        options["camera"] = camera
    with suppress(DatasetError):  # such as frames of several sizes, which one size mends
        data = open_dataset(uri, **options)
        if sizes or data.spec.frame_shape == world.frame_shape:
            return _at_own_size(data, world, sizes)
    height, width, _ = world.frame_shape
    return open_dataset(uri, size=(height, width), **options)


def _at_own_size(data: Dataset, world: WorldSpec, sizes: tuple[tuple[int, int], ...]) -> Dataset:
    """The recording as a world of these sizes is stepped; as it is without, or where it fits."""
    same = data.spec.frame_shape == world.frame_shape
    return data if same or not sizes else at_size(data, sizes[0])


def _kind(uri: str) -> tuple[Kind, str]:
    """Whose recordings they are, and their folder or name. Raises DatasetError for none."""
    said, _, rest = uri.partition(":")
    if said == "minari" and rest:
        return "minari", rest
    said = said if said in ("lerobot", "native", "video") and rest else ""
    folder = Path(rest if said else uri)
    if not folder.is_dir():
        raise _no_folder(uri, folder)
    if (folder / "manifest.json").is_file() and not (folder / DESCRIPTION).exists():
        raise unfit(uri, "folder", "recordings", "a world", f"step it: worldsim play {folder}")
    if said == "lerobot" or (folder / "meta" / "info.json").is_file():
        return "lerobot", str(folder)
    if (folder / "data" / HDF5).is_file() or (folder / HDF5).is_file():
        return "minari", str(folder)
    if said != "video" and (said or (folder / DESCRIPTION).exists()):
        return "native", str(folder)
    return "video", str(folder)


def _no_folder(uri: str, folder: Path) -> DatasetError:
    """Why there are no recordings: a world's name, a file, nothing."""
    got, remedy = "nothing there", "check its path, or record with worldsim collect"
    if uri in worlds.names():
        got = "the name of a bundled world"
        remedy = f"record what it was made of: worldsim collect {uri}"
    elif folder.is_file():
        got, remedy = "a file", f"give the folder that it lies in: {folder.parent}"
    return unfit(uri, "folder", "a folder of recordings", got, remedy)


def _refuse(uri: str | Path, **given: Any) -> None:
    for name, value in given.items():
        if value:
            raise unfit(uri, name, "none for these recordings", value, "leave it out")


open = open_dataset
"""The name by which it is known outside: `worldsim.open`."""
