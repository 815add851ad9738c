"""What tells recorded latents from predicted ones, place by place: a patch discriminator."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from worldsim.nn.conv import PixelNorm, ResBlock


class Discriminator(nn.Module):
    """Whether each part of a chunk looks recorded (PatchGAN, Isola et al. 2017, 1611.07004).

    Three residual blocks at half the latents' resolution; a place sees 13 x 13 places around it. It
    is told neither context nor action: what it judges is the look of a chunk, not what happens.

    Args:
        channels: of the latents.
        width: channels inside.
        blocks: residual blocks.
    """

    def __init__(self, channels: int, width: int = 96, blocks: int = 3) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(ResBlock(width) for _ in range(blocks))
        self.norm = PixelNorm(width)
        self.leave = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Chunks (N, h, w, C) -> logits (N, h / 2, w / 2), above 0 for recorded."""
        x = self.enter(rearrange(x, "n h w c -> n c h w"))
        for block in self.blocks:
            x = block(x)
        return self.leave(self.norm(x))[:, 0]
