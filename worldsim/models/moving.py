"""Dynamics of latent actions that move the picture, for films whose camera goes along.

Where everything on the screen turns and passes at once, a few principal components draw the next
chunk worse than the last one does, while moving that one is six numbers a frame. The forward model
makes these of the latent alone: seeing the past, too, it would foretell most of the motion and
hardly listen to codes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

NARROW, WIDE = 24, 32  # channels at half and at a quarter of the size
SEEN, MOVED = 128, 64  # units
STEP = 0.2
"""Of the picture's half size: an affine map's numbers a unit of the network's output."""


class MovingInverse(nn.Module):
    """A window of pictures -> parameters of the latent action that led into the newest.

    It sees the last frame of the window's first chunk and the change to each frame after it.
    """

    def __init__(self, chunk: int, size: tuple[int, int], window: int, last: int) -> None:
        super().__init__()
        self.chunk, self.size = chunk, size
        frames = (window - 1) * chunk + 1
        quarter = WIDE * (size[0] // 4) * (size[1] // 4)
        self.body = nn.Sequential(
            nn.Conv2d(3 * frames, NARROW, 4, 2, 1), nn.SiLU(),
            nn.Conv2d(NARROW, WIDE, 4, 2, 1), nn.SiLU(), nn.Flatten(),
            nn.Linear(quarter, SEEN), nn.SiLU(),
        )  # fmt: skip
        self.last = nn.Linear(SEEN, last)

    def forward(self, window: Tensor) -> Tensor:
        """`(..., window * chunk * 3 * h * w)` -> `(..., last)`."""
        height, width = self.size
        frames = rearrange(
            window.flatten(0, -2), "b (n k h w) -> b n k h w", k=3, h=height, w=width
        )[:, self.chunk - 1 :]
        changes = frames[:, 1:] - frames[:, :-1]
        seen = torch.cat([frames[:, :1], changes], 1).flatten(1, 2)
        return self.last(self.body(seen)).unflatten(0, window.shape[:-1])


class MovingForward(nn.Module):
    """A chunk and a latent action -> the chunk that follows: the newest frame, moved by an affine
    map for each frame of the chunk. What comes in at the border is the border."""

    def __init__(self, chunk: int, size: tuple[int, int], dim: int) -> None:
        super().__init__()
        self.chunk, self.size = chunk, size
        last = nn.Linear(MOVED, chunk * 6)
        nn.init.zeros_(last.weight)  # begun at rest
        nn.init.zeros_(last.bias)
        self.body = nn.Sequential(nn.Linear(dim, MOVED), nn.SiLU(), last)

    def forward(self, first: Tensor, latent: Tensor) -> Tensor:
        """`(B, n, chunk * 3 * h * w)` and T latent actions `(B, T, L)` -> `(B, T, chunk * 3 * h *
        w)`."""
        height, width = self.size
        newest = rearrange(
            first[:, -1].float(), "b (c k h w) -> b c k h w", k=3, h=height, w=width
        )[:, -1]
        chunks = []
        for said in latent.unbind(1):
            frames = self._moved(newest, self.body(said))
            newest = frames[:, -1]
            chunks.append(frames.flatten(1))
        return torch.stack(chunks, 1)

    def _moved(self, frame: Tensor, by: Tensor) -> Tensor:
        """Frames (B, chunk, 3, h, w) of the frame (B, 3, h, w) and numbers (B, chunk * 6)."""
        with torch.autocast(frame.device.type, enabled=False):  # bfloat16 has no parts of a pixel
            numbers = rearrange(by.float(), "b (c i j) -> (b c) i j", i=2, j=3)
            maps = torch.eye(2, 3, device=frame.device) + STEP * numbers
            copies = frame.repeat_interleave(self.chunk, 0)
            grid = F.affine_grid(maps, list(copies.shape), align_corners=False)
            moved = F.grid_sample(copies, grid, padding_mode="border", align_corners=False)
        return moved.unflatten(0, (-1, self.chunk))
