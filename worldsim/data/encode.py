"""Films written by PyAV."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from worldsim.core import WorldError

MUXERS = {"mp4": "mp4", "m4v": "mp4", "mov": "mov", "mkv": "matroska", "avi": "avi", "ts": "mpegts"}
"""FFmpeg's names of the containers that H.264 is written into, by suffix."""


def container_of(path: Path) -> str:
    """The container that a film's name says, mp4 where it says none; raises WorldError for others.

    Asked before anything is made that is to be shown.
    """
    suffix = path.suffix[1:].lower() or "mp4"
    if suffix not in MUXERS:
        raise WorldError(f"out: expected a film, of {', '.join(MUXERS)}, got {path.name}")
    return suffix


def write_film(
    path: Path,
    pictures: Iterable[NDArray[np.uint8]],
    fps: float,
    *,
    container: str = "mp4",
    crf: int = 18,
    gop: int = 250,
    threads: int = 0,
) -> int:
    """Encode pictures with H.264 into a new file, and how many.

    crf: x264's constant rate factor, 0 (lossless but for colour) to 51. gop: frames from one that
    stands alone to the next. threads: of the encoder, as many as it likes if 0; x264 gives other
    bytes with other numbers of them, and the same bytes each time with 1.
    Raises OSError where the disk is full or the film cannot be encoded.
    """
    count = 0
    try:
        with av.open(str(path), "w", format=MUXERS[container]) as film:
            stream = film.add_stream("libx264", rate=Fraction(fps).limit_denominator(10**6))
            stream.codec_context.thread_count = threads
            # x264's macroblock tree gives several results under AVX-512
            same = {"mbtree": "0"} if threads == 1 else {}
            stream.pix_fmt, stream.options = "yuv420p", {"crf": str(crf), "g": str(gop), **same}
            for picture in pictures:
                height, width = (side // 2 * 2 for side in picture.shape[:2])
                if not count:
                    stream.height, stream.width = height, width
                elif (stream.height, stream.width) != (height, width):
                    raise ValueError(f"pictures: expected one size, got {picture.shape[:2]} too")
                plain = np.ascontiguousarray(picture[:height, :width])
                film.mux(stream.encode(av.VideoFrame.from_ndarray(plain, format="rgb24")))
                count += 1
            film.mux(stream.encode())
    except av.error.FFmpegError as error:
        if isinstance(error, OSError) and error.errno and error.filename is not None:
            raise
        raise OSError(f"{path}: expected to write a film, got {error}") from error
    return count
