"""`worldsim.open`: anybody's recordings as a `Dataset`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .dataset import Dataset, unfit
from .native import DESCRIPTION, NativeDataset


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
    text = str(uri)
    kind, _, rest = text.partition(":")
    if kind == "minari" and rest:
        from .minari import MinariDataset  # h5py is an extra

        _refuse(text, chunk=chunk not in (None, 1) and chunk)
        return MinariDataset(rest, size=size, fps=fps, camera=camera)
    folder = Path(rest if kind in ("lerobot", "native", "video") and rest else text)
    if not folder.is_dir():
        raise unfit(folder, "folder", "a folder of recordings", "no folder", "check its path")
    if kind == "lerobot" or (folder / "meta" / "info.json").is_file():
        from .lerobot import LeRobotDataset  # pyarrow is an extra

        _refuse(text, fps=fps)
        return LeRobotDataset(folder, size=size, chunk=chunk, camera=camera)
    if (folder / "data" / "main_data.hdf5").is_file() or (folder / "main_data.hdf5").is_file():
        return open_dataset(f"minari:{folder}", size=size, chunk=chunk, fps=fps, camera=camera)
    if kind != "video" and (folder / DESCRIPTION).exists():
        data = NativeDataset(folder)
        height, width, _ = data.spec.frame_shape
        same = {"size": (height, width), "chunk": data.spec.chunk, "fps": data.spec.fps}
        given = {"size": size and tuple(size), "chunk": chunk, "fps": fps}
        _refuse(text, **{k: v for k, v in given.items() if v != same[k]}, camera=camera)
        return data
    from .video import VideoDataset

    _refuse(text, camera=camera)
    return VideoDataset(folder, size=size, chunk=chunk, fps=fps)


def _refuse(uri: str, **given: Any) -> None:
    for name, value in given.items():
        if value:
            raise unfit(uri, name, "none for these recordings", value, "leave it out")


open = open_dataset
"""The name by which it is known outside: `worldsim.open`."""
