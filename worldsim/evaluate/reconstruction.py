"""What the VAE loses: every test episode through encoder and decoder, beside the real frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from worldsim import metrics
from worldsim.metrics import bootstrap, weighted_mean
from worldsim.models.vae import to_bytes, to_float
from worldsim.recipes.landmarks import Landmarks
from worldsim.world.diffusion import DiffusionWorld

from .clips import Recorded

ROWS = 64  # chunks a pass
LOOK_EVERY = 5  # chunks between those in which landmarks are looked for


@dataclass(frozen=True)
class Rebuilt:
    """What one episode of n chunks lost.

    Attributes:
        mse: (n,) mean squared error of each chunk.
        moved_mse: the same over the pixels that moved, of the chunks in which any did.
        moved_error: summed squared error of all pixels that moved; moved_count: how many.
        places: (M,) distances of landmarks to their rebuilt places, pixels, by kind; infinite
            where lost.
    """

    mse: Tensor
    moved_mse: Tensor
    moved_error: float
    moved_count: int
    places: dict[str, Tensor]


def rebuild(
    world: DiffusionWorld, episode: Recorded, landmarks: Landmarks | None = None
) -> Rebuilt:
    """Encode and decode a whole episode as one video, in pieces."""
    frames = rearrange(episode.frames, "n c h w k -> (n c) h w k")
    before = torch.cat([frames[:1], frames[:-1]])  # the first frame counts as still
    before = rearrange(before, "(n c) h w k -> n c h w k", c=world.spec.chunk)
    mse, moved, places = [], [], []
    for first, rebuilt in _pieces(world, episode.frames):
        piece = slice(first, first + len(rebuilt))
        real = episode.frames[piece]
        error = metrics.squared_error(rebuilt, real).flatten(1)
        mask = metrics.moved(real, before[piece]).flatten(1)
        mse.append(error.mean(-1))
        moved.append(torch.stack([(error * mask).sum(-1), mask.sum(-1)], -1))
        if landmarks is not None:
            pair = (x[::LOOK_EVERY, 0] for x in (real, rebuilt))
            places.append(landmarks.displacements(*pair))
    total, count = torch.cat(moved).double().unbind(-1)
    each = (total / count)[count > 0]
    joined = {name: torch.cat([p[name] for p in places]) for name in (places or [{}])[0]}
    return Rebuilt(torch.cat(mse), each, total.sum().item(), int(count.sum()), joined)


@torch.no_grad()
def _pieces(world: DiffusionWorld, chunks: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(first chunk, rebuilt chunks uint8) of consecutive pieces; memory reaches one chunk back."""
    chunk, previous = world.spec.chunk, None
    for first in range(0, len(chunks), ROWS):
        back = min(first, 1)
        video = rearrange(chunks[first - back : first + ROWS], "n c ... -> 1 (n c) ...")
        latents = world.vae.encode(to_float(video.to(world.device)))[:, back:]
        joined = latents if previous is None else torch.cat([previous, latents], 1)
        previous = latents[:, -1:]
        frames = to_bytes(world.vae.decode(joined)[0, back * chunk :]).cpu()
        yield first, rearrange(frames, "(n c) ... -> n c ...", c=chunk)


def summarise(rebuilt: list[Rebuilt]) -> dict[str, Any]:
    """Figures over all episodes.

    psnr: of the mean squared error over all frames, with its interval over episodes. chunk_psnr:
    mean over chunks of each chunk's own. moved_psnr, moved_chunk_psnr: the same two over pixels
    that moved, None where nothing did. landmarks: pixels between real and rebuilt places, over
    those that were found.
    """
    mse = torch.cat([r.mse for r in rebuilt])
    episode = torch.cat([torch.full((len(r.mse),), i) for i, r in enumerate(rebuilt)])
    moved = torch.tensor([[r.moved_error, r.moved_count] for r in rebuilt], dtype=torch.float64)
    each = torch.cat([r.moved_mse for r in rebuilt])

    def moved_psnr(weights: Tensor) -> Tensor:
        error, count = weighted_mean(moved, weights).unbind(-1)
        return metrics.psnr(error / count)

    places = {n: torch.cat([r.places[n] for r in rebuilt]) for n in rebuilt[0].places}
    few = len(rebuilt) < 3  # no intervals over so few episodes
    over = torch.arange(len(mse)) if few else episode
    return {
        "psnr": bootstrap(lambda w: metrics.psnr(weighted_mean(mse, w)), over)._asdict(),
        "chunk_psnr": metrics.psnr(mse).mean().item(),
        "moved_psnr": bootstrap(moved_psnr, torch.arange(len(rebuilt)))._asdict()
        if len(each)
        else None,
        "moved_chunk_psnr": metrics.psnr(each).mean().item() if len(each) else None,
        "moved_pixels": int(moved[:, 1].sum()),
        "landmarks": {n: d for n, p in places.items() if (d := _distances(p))},
    }


def _distances(distances: Tensor) -> dict[str, Any] | None:
    """Mean and 95% quantile of finite distances, and which share of all was finite."""
    finite = distances[distances.isfinite()]
    if not len(finite):
        return None
    return {
        "mean": finite.mean().item(),
        "q95": finite.double().quantile(0.95).item(),
        "found": len(finite) / len(distances),
        "count": len(distances),
    }
