"""A dataset at another frame size: cropped to its shape and reduced by area, never stretched.

What stands still in every frame lies at one place of the grid of latents at each size, and networks
learn it there alone: at a size that they never saw it is somewhere else. So training episodes may
be shown through windows that are drawn, see `drawn_crop`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, Literal, get_args
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from .dataset import MULTIPLE, Dataset, Episode, Frames, unfit
from .resize import area_resize, centred_crop, crop_frames
from .view import DatasetView

LEAST_SIDE = 16
"""Pixels: two latents, the least that has neighbours."""

Crop = tuple[int, int, int, int]
"""(top, bottom, left, right), pixels."""

Windows = Literal["centred", "drawn"]
"""Through which training episodes are seen."""

CENTRED, NEAREST = 0.5, 0.75
"""Share of the windows that are the centred ones even where they are drawn, and the shortest side
of others over its own."""


class SizedDataset(DatasetView):
    """Every frame's largest centred window of a shape, reduced to `size` (height, width).

    windows: "drawn" takes others for episodes of the training split, `drawn_crop`. Raises
    DatasetError for a size larger than the recording: nothing is made up.
    """

    def __init__(
        self, data: Dataset, size: tuple[int, int], windows: Windows = "centred",
        *, training: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(data)
        height, width, _ = data.spec.frame_shape
        if size[0] > height or size[1] > width:
            raise unfit(
                data.spec.name, "sizes", f"at most {height} x {width}, as it was recorded",
                f"{size[0]} x {size[1]}", "record it larger, or leave this size out",
            )  # fmt: skip
        self.size, self.training = size, training
        self.windows: Windows = windows
        self.spec = replace(data.spec, frame_shape=(*size, 3))

    def episode(self, index: int) -> Episode:
        """One episode, whose frames are reduced when they are asked for."""
        episode = self.data.episode(index)
        source = (episode.frames.shape[1], episode.frames.shape[2])
        drawn = self.training and self.windows == "drawn"
        crop = drawn_crop(source, self.size, episode.name) if drawn else None
        return replace(episode, frames=SizedFrames(episode.frames, self.size, crop))

    def split(self, name: str) -> Dataset:
        """The episodes of one split."""
        training = self.training or name == "train"
        return SizedDataset(self.data.split(name), self.size, self.windows, training=training)

    def over(self, data: Dataset) -> Dataset:
        """The same size of other data."""
        return SizedDataset(data, self.size, self.windows, training=self.training)

    def fingerprint(self) -> str:
        """Of the recording, the size and the windows."""
        told = f"{self.data.fingerprint()} at {self.size[0]} x {self.size[1]}"
        told += f", windows {self.windows}" * (self.windows != "centred")
        return sha256(told.encode()).hexdigest()


class SizedFrames:
    """`Frames` (T, *size, 3) of larger ones, through a window, by default the centred one."""

    def __init__(self, frames: Frames, size: tuple[int, int], crop: Crop | None = None) -> None:
        self.frames, self.size = frames, size
        self.crop = crop or centred_crop((frames.shape[1], frames.shape[2]), size)
        self.shape = (len(frames), *size, 3)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, span: slice) -> NDArray[np.uint8]:
        whole = np.asarray(self.frames[span])
        return area_resize(crop_frames(whole, self.crop), self.size)


def drawn_crop(source: tuple[int, int], size: tuple[int, int], name: str) -> Crop:
    """A window of `source` (height, width) of the shape of `size` for the episode of this name.

    The centred one in half of the cases. Else up to a quarter smaller, though no smaller than
    `size`, and moved by up to half a latent's side wherever there is room.
    """
    centred = top, bottom, left, right = centred_crop(source, size)
    rng = np.random.default_rng([crc32(name.encode()), *size])
    if rng.random() < CENTRED:
        return centred
    height, width = bottom - top, right - left
    scale = rng.uniform(min(1.0, max(NEAREST, size[0] / height, size[1] / width)), 1.0)
    found = []
    for whole, side, target in zip(source, (height, width), size, strict=True):
        kept = max(target, round(scale * side))
        reach = MULTIPLE * kept / target / 2
        first = round((whole - kept) / 2 + rng.uniform(-reach, reach))
        first = min(max(first, 0), whole - kept)
        found += [first, first + kept]
    return found[0], found[1], found[2], found[3]


def at_size(data: Dataset, size: tuple[int, int], windows: Windows = "centred") -> Dataset:
    """`data` at this size, made of the frames as recorded, with whatever else it is seen as."""
    if isinstance(data, SizedDataset):
        return at_size(data.data, size, windows)
    if isinstance(data, DatasetView):
        return data.over(at_size(data.data, size, windows))
    return SizedDataset(data, size, windows)


def check_sizes(sizes: Any) -> tuple[tuple[int, int], ...]:
    """Frame sizes as pairs (height, width); raises DatasetError for others, or one given twice."""
    expected = f"pairs of sides, height and width, from {LEAST_SIDE} up, divisible by {MULTIPLE}"
    remedy = "say sizes=((56, 64), (64, 64))"
    listed = isinstance(sizes, Sequence) and not isinstance(sizes, str) and len(sizes) > 0
    found = []
    for size in sizes if listed else [sizes]:
        pair = [*size] if isinstance(size, Sequence) and not isinstance(size, str) else []
        whole = len(pair) == 2 and all(type(side) is int for side in pair)
        if not whole or min(pair) < LEAST_SIDE or any(side % MULTIPLE for side in pair):
            raise unfit("data", "sizes", expected, size, remedy)
        found.append((pair[0], pair[1]))
    if len(set(found)) < len(found):
        raise unfit("data", "sizes", "each size once", found, remedy)
    return tuple(found)


def views_at(
    data: Dataset, sizes: Sequence[tuple[int, int]], windows: Windows = "centred"
) -> list[Dataset]:
    """The data at each frame size; as it is if there are none.

    Raises DatasetError for windows that are none, or that are drawn where no size is named.
    """
    if windows not in get_args(Windows):
        raise unfit("data", "windows", "centred or drawn", windows, "say windows='drawn'")
    if windows == "drawn" and not sizes:
        remedy = "name the sizes to train on, or leave windows out"
        raise unfit("data", "windows", "centred, as no sizes are named", windows, remedy)
    return [at_size(data, size, windows) for size in sizes] or [data]
