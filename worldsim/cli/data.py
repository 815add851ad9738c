"""Recordings in."""

from __future__ import annotations

from pathlib import Path

import tyro

from worldsim.data.export import export as write
from worldsim.data.open import open_dataset


def import_data(
    uri: tyro.conf.Positional[str],
    folder: Path,
    size: tuple[int, int] | None = None,
    chunk: int | None = None,
    fps: float | None = None,
    camera: str | None = None,
) -> None:
    """Copy recordings into our own format; typed again, it goes on where it was stopped.

    Args:
        uri: a folder of video files, minari:NAME, lerobot:FOLDER, as `worldsim.open` takes it.
        folder: where to.
        size: (height, width) to resize frames to, divisible by 8.
        chunk: frames an action holds for.
        fps: frames a second to resample video without actions to.
        camera: which of several, or "tile" for all side by side.
    """
    data = open_dataset(uri, size=size, chunk=chunk, fps=fps, camera=camera)
    write(data, folder)
    print(f"{len(data)} episodes in {folder}; next: worldsim train {folder} --out worlds/NAME")
