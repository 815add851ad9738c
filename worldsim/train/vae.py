"""Training of the spacetime VAE.

The loss is balanced between all pixels and the pixels that moved, each normalised by its own count:
a loss over all pixels alone reaches a high PSNR and forgets whatever is small and moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from worldsim.config import to_json
from worldsim.data.loader import Recording, digest
from worldsim.models.vae import SpacetimeVAE, VAEConfig, to_float

from .checkpoint import fingerprint
from .loop import FitConfig, Losses, fit


@dataclass(frozen=True, kw_only=True)
class VAETrainingConfig:
    """Weights of the VAE's losses.

    Attributes:
        fit: the loop's settings.
        clip_chunks: chunks a clip.
        moved: weight of the pixels that moved.
        moved_over: a pixel moved if a channel changed by more than this, of 0..1.
        kl: weight of the KL divergence, mean over latent elements.
        jitter: largest extra noise on latents, in units of their spread, so that the decoder
            tolerates what a sampler gets wrong.
    """

    fit: FitConfig
    clip_chunks: int = 3
    moved: float = 1.0
    moved_over: float = 0.1
    kl: float = 1e-4
    jitter: float = 0.1


def moved_pixels(video: Tensor, over: float) -> Tensor:
    """Pixels that changed since the frame before: (B, T, H, W, 3) in [-1, 1] -> (B, T, H, W) bool.

    The first frame has no frame before it: nothing in it moved.
    """
    change = (video[:, 1:] - video[:, :-1]).abs().amax(-1) > 2 * over
    return torch.cat([torch.zeros_like(change[:, :1]), change], 1)


def vae_losses(
    vae: SpacetimeVAE, video: Tensor, config: VAETrainingConfig, g: torch.Generator
) -> Losses:
    """Reconstruction of all pixels, of moved pixels, and the KL term; video in [-1, 1]."""
    posterior = vae.posterior(video)
    z = posterior.sample(g)
    spread = z.detach().std((0, 1, 2, 3))
    level = config.jitter * torch.rand(len(z), 1, 1, 1, 1, generator=g)
    z = z + level * spread * torch.randn(z.shape, generator=g)
    error = vae.decode_raw(z) - video
    cost = (error.abs() + 8 * error**2).mean(-1)
    moved = moved_pixels(video, config.moved_over)
    return {
        "pixels": cost.mean(),
        "moved": config.moved * (cost * moved).sum() / moved.sum().clamp(min=1),
        "kl": config.kl * posterior.kl(),
        "_mse": (error.detach() ** 2).mean() / 4,
    }


def train_vae(
    recording: Recording, config: VAEConfig, training: VAETrainingConfig, folder: Path,
    begin: SpacetimeVAE | None = None,
) -> SpacetimeVAE:  # fmt: skip
    """Train in `folder` (resumes there) and measure the latents' mean and spread.

    begin: a VAE of the same config to go on from.
    """

    def losses(model: nn.Module, ema: nn.Module, step: int, g: torch.Generator) -> Losses:
        assert isinstance(model, SpacetimeVAE)
        rows = recording.windows.sample(training.fit.batch, training.clip_chunks, g)
        video = rearrange(to_float(recording.frames[rows]), "b n c h w k -> b (n c) h w k")
        return vae_losses(model, video, training, g)

    torch.manual_seed(training.fit.seed)
    model = SpacetimeVAE(config)
    if begin is not None:
        model.load_state_dict(begin.state_dict())
    settings = to_json(training) | {"model": to_json(config), "data": digest(recording)}
    vae = fit(model, losses, training.fit, folder, settings | {"begin": fingerprint(model)})
    assert isinstance(vae, SpacetimeVAE)
    measure_latents(vae, recording)
    return vae


@torch.no_grad()
def measure_latents(vae: SpacetimeVAE, recording: Recording, clips: int = 1024) -> None:
    """Set the buffers that normalise latents, from random clips."""
    g = torch.Generator().manual_seed(0)
    rows = recording.windows.sample(clips, 3, g)
    means = [
        vae.posterior(rearrange(to_float(recording.frames[r]), "b n c h w k -> b (n c) h w k")).mean
        for r in rows.split(64)
    ]
    raw = rearrange(torch.cat(means), "b n h w c -> (b n h w) c")
    vae.mean.copy_(raw.mean(0))
    vae.std.copy_(raw.std(0))
