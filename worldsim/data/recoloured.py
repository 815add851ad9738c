"""A dataset in other colours: shapes and motion are as recorded, what light and paint say is not.

A network that draws the recorded picture from one in other colours and from words learns to edit:
where the two disagree, words decide how things look and the picture where they are.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any
from zlib import crc32

import numpy as np
from einops import einsum
from numpy.typing import NDArray

from .dataset import Dataset, Episode, Frames
from .view import DatasetView

STRETCH = 24
"""Chunks in the same other colours."""

PLACES = 4
"""Values, in height and width, between which colours change from place to place."""

LEAST_SPREAD = 4.0
"""Of a frame's values, 0 to 255, below which rounding would be amplified."""


class RecolouredDataset(DatasetView):
    """Every stretch of an episode in colours drawn by the episode's name."""

    def episode(self, index: int) -> Episode:
        """One episode, whose frames are recoloured when they are asked for."""
        episode = self.data.episode(index)
        span = STRETCH * self.spec.chunk
        return replace(episode, frames=RecolouredFrames(episode.frames, episode.name, span))

    def over(self, data: Dataset) -> Dataset:
        """Other data in other colours."""
        return RecolouredDataset(data)

    def fingerprint(self) -> str:
        """Of the recording, marked."""
        return sha256(f"{self.data.fingerprint()} recoloured".encode()).hexdigest()


class RecolouredFrames:
    """`Frames` in other colours, others after every `span` frames."""

    def __init__(self, frames: Frames, name: str, span: int) -> None:
        self.frames, self.name, self.span = frames, name, span
        self.shape = frames.shape

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, span: slice) -> NDArray[np.uint8]:
        whole, places = np.asarray(self.frames[span]), np.arange(len(self))[span]
        out = np.empty_like(whole)
        for stretch in np.unique(places // self.span):
            here = places // self.span == stretch
            rng = np.random.default_rng([crc32(self.name.encode()), int(stretch)])
            out[here] = recolour(whole[here], rng)
        return out


def recolour(frames: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Frames (n, H, W, 3) in other colours, alike in all of them.

    Each frame's colours are centred, brought to a spread of 1, turned (half of the time any way,
    so that light may become dark and red green), and given a drawn spread and mean: half of the
    time others from place to place, as lamps and fog do.
    """
    values = frames.astype(np.float32)
    mean = values.mean((1, 2), keepdims=True)
    spread = (values - mean).std((1, 2, 3), keepdims=True).clip(LEAST_SPREAD)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0] if rng.random() < 0.5 else np.eye(3)
    wide: Any = 255 * rng.uniform(0.03, 0.25)
    centre: Any = 255 * (rng.uniform(0.1, 0.8) + rng.normal(0, 0.1, 3))
    if rng.random() < 0.5:
        height, width = frames.shape[1:3]
        wide = wide * np.exp(0.4 * smooth(rng, height, width))
        centre = centre + 255 * 0.08 * smooth(rng, height, width)
    turned = einsum((values - mean) / spread, turn.astype(np.float32), "n h w c, d c -> n h w d")
    return (wide * turned + centre).round().clip(0, 255).astype(np.uint8)


def smooth(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    """A field (H, W, 1) of about unit variance: `PLACES` x `PLACES` drawn values and straight lines
    between them."""
    drawn = rng.standard_normal((PLACES, PLACES))
    rows, columns = (np.linspace(0, PLACES - 1, side)[:, None] for side in (height, width))
    near_rows, near_columns = (
        (1 - np.abs(at - np.arange(PLACES))).clip(0) for at in (rows, columns)
    )
    return 1.5 * (near_rows @ drawn @ near_columns.T)[..., None]  # the mean of lines is flatter
