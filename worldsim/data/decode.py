"""One video file by PyAV: what it holds, and its frames in slices.

Only plain local files of listed formats are opened, so that no playlist leads elsewhere.
"""

from __future__ import annotations

import ctypes
import os
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from worldsim.files import open_plain, resolved

from .archive import UNREADABLE as DAMAGED
from .dataset import DatasetError, unfit

FORMATS = (  # of FFmpeg's demuxers, none of which opens other files
    "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "mpeg", "mpegts", "ogg", "flv", "asf",
    "gif", "mpegvideo", "h264", "hevc", "ivf", "nut", "yuv4mpegpipe", "apng",
)  # fmt: skip
OPTIONS = {"protocol_whitelist": "file", "format_whitelist": ",".join(FORMATS)}
INDEXED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")  # others are decoded from their start
MAX_PIXELS = 2**25  # of one frame: 8K
MAX_BLOCK = 2**28  # bytes that FFmpeg may take at once, whatever sizes a file declares
MAX_FRAMES = 10**7  # of one film
STEADY = 0.25  # of a frame: times that differ less from a steady rate are steady
LIBRARIES = ("av.libs/libavutil*", "av/.dylibs/libavutil*")  # beside PyAV, of its wheels
UNREADABLE = (*DAMAGED, av.error.FFmpegError, AttributeError, StopIteration)
REMEDY = "convert it with ffmpeg, or take it out of the folder"


def _bound_memory() -> None:
    """FFmpeg's own `-max_alloc`, which PyAV does not hand on: a header of a few bytes may ask for
    an index of gigabytes. Where PyAV was built against another FFmpeg there is no such bound."""
    for library in (p for name in LIBRARIES for p in Path(av.__file__).parents[1].glob(name)):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(str(library)).av_max_alloc(ctypes.c_size_t(MAX_BLOCK))


_bound_memory()


@dataclass(frozen=True)
class Film:
    """A video file.

    Attributes:
        path: the file.
        size: (height, width) of its frames as they are to be seen, rotation applied.
        times: of each frame, in units of the stream's time base, ascending.
        seconds: of a unit.
        rotation: quarter turns counterclockwise.
    """

    path: Path
    size: tuple[int, int]
    times: NDArray[np.int64]
    seconds: float
    rotation: int

    @property
    def fps(self) -> float:
        """Frames a second: the mean rate if it is steady, else that of the median gap."""
        if len(self.times) < 2:
            return 1.0
        gaps, span = np.diff(self.times), int(self.times[-1] - self.times[0])
        if self.steady:
            return round((len(self.times) - 1) / (span * self.seconds), 6)
        return round(1 / (float(np.median(gaps)) * self.seconds), 6)

    @property
    def steady(self) -> bool:
        """Whether frames come at one rate."""
        if len(self.times) < 3:
            return True
        even = np.linspace(self.times[0], self.times[-1], len(self.times))
        gap = (self.times[-1] - self.times[0]) / (len(self.times) - 1)
        return bool(np.abs(self.times - even).max() <= max(STEADY * gap, 1.5))


def probe(path: Path) -> Film:
    """What a film holds: packets are counted, one frame is decoded.

    Raises DatasetError for a file that is not a whole film, or one that asks for too much.
    """
    with _opened(path) as container:
        stream = container.streams.video[0]
        first = next(container.decode(stream))
        size, turns = _size(first), round((first.rotation or 0) / 90) % 4
        seconds = float(stream.time_base or 0)
    times = _times(path)
    if not len(times) or not seconds > 0:
        raise unfit(path, "frames", "at least one with a time", len(times), REMEDY)
    height, width = size if turns % 2 == 0 else (size[1], size[0])
    return Film(path, (height, width), times, seconds, turns)


def _size(frame: av.VideoFrame) -> tuple[int, int]:
    return frame.height, frame.width


def _times(path: Path) -> NDArray[np.int64]:
    times: list[int] = []
    with _opened(path) as container:
        for packet in container.demux(container.streams.video[0]):
            if packet.is_discard or packet.pts is None:
                continue  # the last, empty packet; frames that are there for others only
            times.append(packet.pts)
            if len(times) > MAX_FRAMES:
                raise unfit(path, "frames", f"at most {MAX_FRAMES}", "more", REMEDY)
    return np.unique(np.asarray(times, np.int64))


class _opened:
    """A container of a plain file; every failure of PyAV inside is a DatasetError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Any:
        try:
            open_plain(self.path).close()
            self.container = av.open(str(resolved(self.path)), options=OPTIONS)
        except UNREADABLE as error:
            got = getattr(error, "strerror", None) or str(error)
            raise unfit(self.path, "file", "a video file", got, REMEDY) from error
        streams = self.container.streams.video
        known = streams and streams[0].codec_context  # none of a kind that FFmpeg has no decoder of
        pixels = streams[0].width * streams[0].height if known else 0
        if not 0 < pixels <= MAX_PIXELS:
            self.container.close()
            expected = f"a video stream of at most {MAX_PIXELS} pixels a frame"
            raise unfit(self.path, "frames", expected, f"{pixels} pixels", REMEDY)
        streams[0].codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        return self.container

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.container.close()
        if isinstance(error, UNREADABLE) and not isinstance(error, DatasetError):
            got = str(error) or type(error).__name__
            raise unfit(self.path, "frames", "a whole film", got, REMEDY) from error


class FilmFrames:
    """Frames of a film in slices, resampled to `fps` if it is given.

    A slice begins at the key frame before it; one that follows the last slice goes on from there.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, film: Film, fps: float | None = None) -> None:
        self.film = film
        self._wanted = np.arange(len(film.times)) if fps is None else _resampled(film, fps)
        self.shape = (len(self._wanted), *film.size, 3)
        self._going: tuple[int, Iterator[NDArray[np.uint8]]] | None = None
        _FILMS.add(self)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, span: slice, /) -> NDArray[np.uint8]:
        start, stop, _ = span.indices(len(self))
        if stop <= start:
            return np.zeros((0, *self.shape[1:]), np.uint8)
        wanted = self._wanted[start:stop]
        frames, last = [], -1
        for number in wanted.tolist():
            frames.append(frames[-1] if number == last else self._frame(number))
            last = number
        return np.stack(frames)

    def _frame(self, number: int) -> NDArray[np.uint8]:
        """The frame of this number; a later one than the last is reached by going on."""
        if self._going is None or not 0 <= number - self._going[0] < 64:
            self._going = number, _frames_from(self.film, number)
        while True:
            place, stream = self._going
            frame = next(stream, None)
            if frame is None:
                raise unfit(self.film.path, f"frame {place}", "a frame", "the film's end", REMEDY)
            self._going = place + 1, stream
            if place == number:
                return frame

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_going": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        _FILMS.add(self)


def _frames_from(film: Film, number: int) -> Iterator[NDArray[np.uint8]]:
    """Frames from this one on; it holds no reader of frames, which could not be freed at once."""
    with _opened(film.path) as container:
        stream = container.streams.video[0]
        if number and container.format.name in INDEXED:
            container.seek(int(film.times[number]), stream=stream, backward=True)
        for frame in container.decode(stream):
            if frame.pts is None or frame.pts < film.times[number]:
                continue
            if frame.pts != film.times[number]:
                got = f"one of time {frame.pts}"
                raise unfit(film.path, f"frame {number}", "one that decodes", got, REMEDY)
            yield _picture(film, frame)
            number += 1
            if number == len(film.times):
                return


def _picture(film: Film, frame: av.VideoFrame) -> NDArray[np.uint8]:
    picture = np.rot90(frame.to_ndarray(format="rgb24"), film.rotation)
    if picture.shape[:2] != film.size:
        expected = f"frames of {film.size}"
        raise unfit(film.path, "frames", expected, picture.shape[:2], REMEDY)
    return np.ascontiguousarray(picture, np.uint8)


_FILMS: WeakSet[FilmFrames] = WeakSet()
_PARENTS: list[object] = []  # what the parent of a forked process was reading


def _open_anew() -> None:
    """A forked child shares its parent's place in a file, and FFmpeg waits for ever for threads
    that stayed there when it closes one: what is open is neither read on nor closed."""
    for film in list(_FILMS):
        _PARENTS.append(film._going)
        film._going = None


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_open_anew)


def _resampled(film: Film, fps: float) -> NDArray[np.int64]:
    """The newest frame at each time k / fps, as numbers of the film's frames."""
    times = (film.times - film.times[0]) * film.seconds
    count = int((times[-1] + 1 / film.fps) * fps + 1e-6)
    ends = times.tolist()
    slack = 1e-3 / fps
    return np.asarray([bisect_right(ends, k / fps + slack) - 1 for k in range(max(1, count))])
