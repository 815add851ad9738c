"""Training of the spacetime VAE.

The loss is balanced between all pixels and the pixels that moved, each normalised by its own count:
a loss over all pixels alone reaches a high PSNR and forgets whatever is small and moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from worldsim.config import to_json
from worldsim.data.clips import ClipLoader
from worldsim.data.dataset import Dataset
from worldsim.diffusion.draws import Draws
from worldsim.fields import ABSENT
from worldsim.models.vae import SpacetimeVAE, VAEConfig, to_float

from .buckets import Drawn, clip_buckets
from .checkpoint import fingerprint
from .distributed import own_rows, total
from .loop import FitConfig, Losses, Watch, fit, step_draws
from .targets import mean_where


@dataclass(frozen=True, kw_only=True)
class VAETrainingConfig:
    """Weights of the VAE's losses.

    Attributes:
        fit: the loop's settings.
        clip_chunks: chunks a clip.
        moved: weight of the pixels that moved.
        moved_over: a pixel moved if a channel changed by more than this, of 0..1.
        detail: weight of the pixels that stand out from their neighbourhood of 5 x 5 by more than
            `moved_over`: what is small and stands still.
        kl: weight of the KL divergence, mean over latent elements.
        jitter: largest extra noise on latents, in units of their spread, so that the decoder
            tolerates what a sampler gets wrong.
        lengths: chunks of shorter clips, of the episodes that hold no longer ones.
    """

    fit: FitConfig
    clip_chunks: int = 3
    moved: float = 1.0
    moved_over: float = 0.1
    detail: float = 0.0
    kl: float = 1e-4
    jitter: float = 0.1
    lengths: tuple[int, ...] = field(default=(), metadata=ABSENT)


def moved_pixels(video: Tensor, over: float) -> Tensor:
    """Pixels that changed since the frame before: (B, T, H, W, 3) in [-1, 1] -> (B, T, H, W) bool.

    The first frame has no frame before it: nothing in it moved.
    """
    change = (video[:, 1:] - video[:, :-1]).abs().amax(-1) > 2 * over
    return torch.cat([torch.zeros_like(change[:, :1]), change], 1)


def detail_pixels(video: Tensor, over: float) -> Tensor:
    """Pixels unlike their neighbourhood: (B, T, H, W, 3) in [-1, 1] -> (B, T, H, W) bool."""
    flat = rearrange(video, "b t h w k -> (b t) k h w")
    around = F.avg_pool2d(flat, 5, stride=1, padding=2, count_include_pad=False)
    stands_out = (flat - around).abs().amax(1) > 2 * over
    return rearrange(stands_out, "(b t) h w -> b t h w", b=len(video))


def clipped_error(out: Tensor, video: Tensor) -> Tensor:
    """`out - video`, 0 where `out` overshoots black or white, which bytes clip.

    A network cannot give exactly -1 over a whole black sky, but it can give less.
    """
    over = ((video >= 1) & (out > 1)) | ((video <= -1) & (out < -1))
    return (out - video).masked_fill(over, 0.0)


def vae_losses(vae: SpacetimeVAE, video: Tensor, config: VAETrainingConfig, draws: Draws) -> Losses:
    """Reconstruction of all pixels, of moved pixels, and the KL term; video in [-1, 1]."""
    posterior = vae.posterior(video)
    z = posterior.sample(draws.normal(posterior.mean.shape))
    level = config.jitter * draws.uniform((len(z), 1, 1, 1, 1))
    z = z + level * spread(z) * draws.normal(z.shape)
    error = clipped_error(vae.decode_raw(z), video)
    cost = (error.abs() + 8 * error**2).mean(-1)
    moved = moved_pixels(video, config.moved_over)
    detail = {}
    if config.detail:
        fine = detail_pixels(video, config.moved_over)
        detail["detail"] = config.detail * mean_where(cost, fine)
    return {
        "pixels": cost.mean(),
        **detail,
        "moved": config.moved * mean_where(cost, moved),
        "kl": config.kl * posterior.kl(),
        "_mse": (error.detach() ** 2).mean() / 4,
    }


def spread(z: Tensor) -> Tensor:
    """Standard deviation of latents (B, n, h, w, C) by channel, over the whole batch: (C,)."""
    count = total(torch.tensor(z[..., 0].numel(), device=z.device))
    mean = total(z.sum((0, 1, 2, 3))) / count
    return (total(((z.detach() - mean) ** 2).sum((0, 1, 2, 3))) / (count - 1)).sqrt()


def new_vae(config: VAEConfig, seed: int = 0) -> SpacetimeVAE:
    """An untrained VAE."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SpacetimeVAE(config)


Clips = Drawn[tuple[ClipLoader, VAETrainingConfig]]
"""What a step draws its clips from, and the settings for them."""


def train_vae(
    data: Dataset | Sequence[Dataset], model: SpacetimeVAE, training: VAETrainingConfig,
    folder: Path, watch: Watch | None = None, clips: Clips | None = None,
) -> SpacetimeVAE:  # fmt: skip
    """Train `model` in `folder` (resumes there), where it lives; see `measure_latents`.

    Clips of frames stream from disk: memory does not grow with the data. data: one data set, or one
    a frame size. clips: of `clips_of`, where more than one training shares what it has decoded.
    """
    drawn = clips or clips_of(data, training)

    def losses(net: nn.Module, ema: nn.Module, step: int, g: torch.Generator) -> Losses:
        assert isinstance(net, SpacetimeVAE)
        loader, config = drawn.at(step)
        draws = step_draws(config.fit, step, net.mean.device)
        video = _video(net, loader.clips(step, own_rows(config.fit.batch)))
        return vae_losses(net, video, training, draws)

    known = [x.fingerprint() for x in data] if isinstance(data, Sequence) else data.fingerprint()
    settings = to_json(training) | {"model": to_json(model.config), "data": known}
    settings |= {"begin": fingerprint(model)}
    vae = fit(model, losses, training.fit, folder, settings, watch=watch)
    assert isinstance(vae, SpacetimeVAE)
    return vae


def clips_of(data: Dataset | Sequence[Dataset], training: VAETrainingConfig) -> Clips:
    """The clips that a training draws."""
    return clip_buckets(data, training)


def _video(vae: SpacetimeVAE, clips: Tensor) -> Tensor:
    """Clips (B, n, c, H, W, 3) of bytes as video (B, n c, H, W, 3) in [-1, 1], where `vae` is."""
    return rearrange(to_float(clips.to(vae.mean.device)), "b n c h w k -> b (n c) h w k")


@torch.no_grad()
def measure_latents(vae: SpacetimeVAE, drawn: Clips, clips: int = 1024) -> None:
    """Set the buffers that normalise latents, from the first clips of each loader.

    clips: how many in all; of a small recording no more than it has chunks.
    """
    means = []
    for loader, _ in drawn.things:
        count = min(clips // len(drawn.things), sum(loader.data.lengths))
        for step in range(-(-count // loader.batch)):
            means.append(vae.posterior(_video(vae, loader.clips(step))).mean.cpu())
    raw = torch.cat([rearrange(mean, "b n h w c -> (b n h w) c") for mean in means])
    vae.mean.copy_(raw.mean(0))
    vae.std.copy_(raw.std(0))
