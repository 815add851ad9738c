"""The spacetime VAE: video chunks to latents and back, causal in time.

A chunk of `chunk` frames is folded into channels, so space shrinks 8x and time `chunk`x. Encoder
and decoder look one chunk back (the idea of TAEHV's memory blocks): nothing sees the future, a
stream needs to remember a single chunk, and any duration and any size divisible by 8 fits. Large
frames pass in tiles, see `tiles.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from worldsim.nn.conv import PixelNorm, ResBlock, shuffle, unshuffle

from .tiles import in_tiles, reach_of

DOWN = 8


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """Sizes of the spacetime VAE.

    Attributes:
        chunk: frames folded into one latent.
        channels: latent channels.
        widths: feature channels at 1/4 and 1/8 of the frame's side.
        blocks: residual blocks at each of the two scales.
        decoder_widths, decoder_blocks: the decoder's own, or None for the encoder's. A decoder runs
            at every step that shows pixels, an encoder once a reset: it may be the lighter one.
        decoder_reach: side of the decoder's last convolution, 3 or 1.
    """

    chunk: int = 2
    channels: int = 16
    widths: tuple[int, int] = (96, 192)
    blocks: tuple[int, int] = (2, 1)
    decoder_widths: tuple[int, int] | None = None
    decoder_blocks: tuple[int, int] | None = None
    decoder_reach: int = 3

    def __post_init__(self) -> None:
        if self.decoder_reach not in (1, 3):
            raise ValueError(f"decoder_reach: expected 1 or 3, got {self.decoder_reach}")


class Posterior(NamedTuple):
    """A diagonal Gaussian over latents, both `(B, n, h, w, C)`."""

    mean: Tensor
    logvar: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """What standard normal `noise` of the same shape leads to (Kingma and Welling 2013)."""
        return self.mean + (0.5 * self.logvar).exp() * noise

    def kl(self) -> Tensor:
        """Mean over all elements of KL(posterior || unit normal), nats."""
        return 0.5 * (self.mean**2 + self.logvar.exp() - 1 - self.logvar).mean()


class Encoder(nn.Module):
    """Frames of this chunk and the one before to the posterior's parameters."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        fine, coarse = config.widths
        self.reach = reach_of(1 + 2 * config.blocks[0], 2 * config.blocks[1] + 1)
        self.body = nn.Sequential(
            nn.Conv2d(2 * config.chunk * 3 * 16, fine, 3, padding=1),
            *(ResBlock(fine) for _ in range(config.blocks[0])),
            PixelNorm(fine),
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * fine, coarse, 1),
            *(ResBlock(coarse) for _ in range(config.blocks[1])),
            PixelNorm(coarse),
            nn.Conv2d(coarse, 2 * config.channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(B, 2 * chunk * 3, H, W)` -> `(B, 2 C, H / 8, W / 8)`."""
        return in_tiles(self._whole, x, self.reach, cell=DOWN, shown=1)

    def _whole(self, x: Tensor) -> Tensor:
        return self.body(unshuffle(x, 4))


class Decoder(nn.Module):
    """Latents of this chunk and the one before to this chunk's frames."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        fine, coarse = config.decoder_widths or config.widths
        blocks, reach = config.decoder_blocks or config.blocks, config.decoder_reach
        self.reach = reach_of(2 * blocks[0] + reach // 2, 1 + 2 * blocks[1])
        self.body = nn.Sequential(
            nn.Conv2d(2 * config.channels, coarse, 3, padding=1),
            *(ResBlock(coarse) for _ in range(blocks[1])),
            PixelNorm(coarse),
            nn.Conv2d(coarse, 4 * fine, 1),
            nn.PixelShuffle(2),
            *(ResBlock(fine) for _ in range(blocks[0])),
            PixelNorm(fine),
            nn.Conv2d(fine, config.chunk * 3 * 16, reach, padding=reach // 2),
        )

    def forward(self, z: Tensor) -> Tensor:
        """`(B, 2 C, h, w)` -> `(B, chunk * 3, 8 h, 8 w)`."""
        return in_tiles(self._whole, z, self.reach, cell=1, shown=DOWN)

    def _whole(self, z: Tensor) -> Tensor:
        return shuffle(self.body(z), 4)


class SpacetimeVAE(nn.Module):
    """Compresses video 8x in each direction of space and `chunk`x in time.

    Latents leave `encode` and enter `decode` normalised: about zero mean and unit variance per
    channel, by buffers measured after training.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.register_buffer("mean", torch.zeros(config.channels))
        self.register_buffer("std", torch.ones(config.channels))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def posterior(self, video: Tensor) -> Posterior:
        """Raw posterior of `video` (B, T, H, W, 3), floats in [-1, 1]; T is padded to chunks."""
        b, t, height, width, _ = video.shape
        if height % DOWN or width % DOWN:
            raise ValueError(f"video: height and width must divide by {DOWN}, got {height}x{width}")
        missing = -t % self.config.chunk
        if missing:  # a single frame is a video of one frame: it stands still for a chunk
            video = torch.cat([video, repeat(video[:, -1:], "b 1 ... -> b n ...", n=missing)], 1)
        x = rearrange(video, "b (n c) h w k -> b n (c k) h w", c=self.config.chunk)
        moments = self.encoder(rearrange(_with_previous(x), "b n c h w -> (b n) c h w"))
        mean, logvar = rearrange(moments, "(b n) (m c) h w -> m b n h w c", b=b, m=2).float()
        return Posterior(mean, logvar.clamp(-12, 4))

    def encode(self, video: Tensor) -> Tensor:
        """Normalised latents of `video` (B, T, H, W, 3) in [-1, 1] -> (B, ceil(T / c), h, w, C)."""
        return (self.posterior(video).mean - self.mean) / self.std

    def decode_raw(self, latents: Tensor) -> Tensor:
        """Video (B, n c, H, W, 3) about [-1, 1] of posterior samples (B, n, h, w, C)."""
        z = rearrange(latents, "b n h w c -> b n c h w")
        pairs = rearrange(_with_previous(z), "b n c h w -> (b n) c h w")
        return rearrange(self._frames(pairs), "(b n) c h w k -> b (n c) h w k", b=len(z))

    def decode_next(self, latents: Tensor, before: Tensor) -> Tensor:
        """Video (B, c, H, W, 3) about [-1, 1] of a chunk in the middle of a video.

        Both are posterior samples (B, h, w, C): the chunk's, and the one before it, which is zeros
        at the start of a video. As `decode_raw`, without decoding the chunk before.
        """
        pair = torch.cat([latents, before], -1)
        return self._frames(rearrange(pair, "b h w c -> b c h w"))

    def _frames(self, pairs: Tensor) -> Tensor:
        dtype = next(self.decoder.parameters()).dtype
        frames = self.decoder(pairs.to(dtype))
        return rearrange(frames, "b (c k) h w -> b c h w k", c=self.config.chunk).float()

    def decode(self, latents: Tensor) -> Tensor:
        """Video (B, n c, H, W, 3) about [-1, 1] of normalised latents (B, n, h, w, C).

        The first chunk is decoded as the start of a video; for a stream there is `decode_next`.
        """
        return self.decode_raw(latents * self.std + self.mean)


def _with_previous(x: Tensor) -> Tensor:
    """Put each chunk's predecessor (zeros for the first) behind it, along the channels."""
    before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
    return torch.cat([x, before], 2)


def to_float(frames: Tensor) -> Tensor:
    """Bytes 0..255 to floats in [-1, 1]."""
    return frames.float() / 127.5 - 1


def to_bytes(video: Tensor) -> Tensor:
    """Floats about [-1, 1] to bytes 0..255, rounded and clipped."""
    return ((video + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
