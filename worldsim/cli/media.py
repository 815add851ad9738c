"""Pictures and clips that a command is given, as a world takes them."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worldsim.core import WorldError
from worldsim.data.decode import FilmFrames, probe
from worldsim.data.picture import read_picture
from worldsim.data.resize import area_resize
from worldsim.files import open_plain

MOST = 10_000  # frames of a clip
PIECE = 2**22  # pixels that are resized at a time, about
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def read_media(path: Path, size: tuple[int, int], fps: float) -> NDArray[np.uint8]:
    """A picture (1, H, W, 3) or a clip (n, H, W, 3), cropped to the aspect of `size` and resized.

    fps: what a clip is resampled to. Raises WorldError for what is neither.
    """
    if path.suffix.lower() in PICTURES:
        return area_resize(_cropped(_picture(path), size), size)
    film = probe(path)
    found = FilmFrames(film, None if film.steady and abs(film.fps / fps - 1) < 0.01 else fps)
    most = max(1, PIECE // prod(film.size))  # resized piece by piece: it may be longer than memory
    pieces = range(0, min(MOST, len(found)), most)
    frames = (found[first : min(first + most, MOST)] for first in pieces)
    return np.concatenate([area_resize(_cropped(some, size), size) for some in frames])


def _picture(path: Path) -> NDArray[np.uint8]:
    """(1, H, W, 3)."""
    try:
        with open_plain(path) as file:
            return read_picture(file, mode="RGB")[None]
    except (OSError, ValueError) as error:
        got = getattr(error, "strerror", None) or error
        raise WorldError(f"{path}: expected a picture, got {got}") from error


def _cropped(frames: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The middle of the frames, of the aspect ratio of `size`."""
    height, width = frames.shape[1:3]
    scale = min(height / size[0], width / size[1])
    rows, columns = (max(1, round(side * scale)) for side in size)
    top, left = (height - rows) // 2, (width - columns) // 2
    return frames[:, top : top + rows, left : left + columns]
