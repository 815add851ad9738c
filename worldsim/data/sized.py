"""A dataset at another frame size: cropped to its shape and reduced by area, never stretched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .dataset import MULTIPLE, Dataset, Episode, Frames, unfit
from .resize import area_resize, centred_crop, crop_frames
from .view import DatasetView

LEAST_SIDE = 16
"""Pixels: two latents, the least that has neighbours."""


class SizedDataset(DatasetView):
    """Every frame's largest centred window of a shape, reduced to `size` (height, width).

    Raises DatasetError for a size larger than the recording: nothing is made up.
    """

    def __init__(self, data: Dataset, size: tuple[int, int]) -> None:
        super().__init__(data)
        height, width, _ = data.spec.frame_shape
        if size[0] > height or size[1] > width:
            raise unfit(
                data.spec.name, "sizes", f"at most {height} x {width}, as it was recorded",
                f"{size[0]} x {size[1]}", "record it larger, or leave this size out",
            )  # fmt: skip
        self.size = size
        self.spec = replace(data.spec, frame_shape=(*size, 3))

    def episode(self, index: int) -> Episode:
        """One episode, whose frames are reduced when they are asked for."""
        episode = self.data.episode(index)
        return replace(episode, frames=SizedFrames(episode.frames, self.size))

    def over(self, data: Dataset) -> Dataset:
        """The same size of other data."""
        return SizedDataset(data, self.size)

    def fingerprint(self) -> str:
        """Of the recording and the size."""
        told = f"{self.data.fingerprint()} at {self.size[0]} x {self.size[1]}"
        return sha256(told.encode()).hexdigest()


class SizedFrames:
    """`Frames` (T, *size, 3) of larger ones."""

    def __init__(self, frames: Frames, size: tuple[int, int]) -> None:
        self.frames, self.size = frames, size
        self.shape = (len(frames), *size, 3)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, span: slice) -> NDArray[np.uint8]:
        whole = np.asarray(self.frames[span])
        crop = centred_crop((whole.shape[1], whole.shape[2]), self.size)
        return area_resize(crop_frames(whole, crop), self.size)


def at_size(data: Dataset, size: tuple[int, int]) -> Dataset:
    """`data` at this size, made of the frames as recorded, with whatever else it is seen as."""
    if isinstance(data, SizedDataset):
        return at_size(data.data, size)
    if isinstance(data, DatasetView):
        return data.over(at_size(data.data, size))
    return SizedDataset(data, size)


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
