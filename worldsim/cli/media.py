"""Pictures and clips that a command is given, as a world takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from worldsim.core import WorldError
from worldsim.data.decode import FilmFrames, probe
from worldsim.data.resize import area_resize

MOST = 10_000  # frames of a clip
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def read_media(path: Path, size: tuple[int, int], fps: float) -> NDArray[np.uint8]:
    """A picture (1, H, W, 3) or a clip (n, H, W, 3), cropped to the aspect of `size` and resized.

    fps: what a clip is resampled to. Raises WorldError for what is neither.
    """
    if path.suffix.lower() in PICTURES:
        try:
            with Image.open(path) as image:
                frames = np.asarray(image.convert("RGB"))[None]
        except (OSError, UnidentifiedImageError, ValueError) as error:
            raise WorldError(f"{path}: expected a picture, got {error}") from error
    else:
        film = probe(path)
        found = FilmFrames(film, None if film.steady and abs(film.fps / fps - 1) < 0.01 else fps)
        frames = np.asarray(found[:MOST])
    return area_resize(_cropped(frames, size), size)


def _cropped(frames: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The middle of the frames, of the aspect ratio of `size`."""
    height, width = frames.shape[1:3]
    scale = min(height / size[0], width / size[1])
    rows, columns = (max(1, round(side * scale)) for side in size)
    top, left = (height - rows) // 2, (width - columns) // 2
    return frames[:, top : top + rows, left : left + columns]
