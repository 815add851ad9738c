"""Small films, written by another encoder's settings than worldsim's own writer uses."""

import csv
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


def write(
    path: Path, frames: np.ndarray, *, fps: int = 20, codec: str = "ffv1", pix_fmt: str = "bgr0",
    times: list[int] | None = None, source: str = "rgb24",
) -> np.ndarray:  # fmt: skip
    """Write frames (T, H, W, 3), lossless by default; times: of each frame in milliseconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as film:
        stream: Any = film.add_stream(codec, rate=fps)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pix_fmt
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=source)
            if times is not None:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
    return frames


def noise(count: int, height: int = 16, width: int = 24, seed: int = 0) -> np.ndarray:
    """Frames (T, H, W, 3) of noise."""
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def write_csv(path: Path, **columns: list[Any]) -> None:
    """A table of these columns."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(columns)
        rows.writerows(zip(*columns.values(), strict=True))
