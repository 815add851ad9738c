"""What the VAE loses: every test episode through encoder and decoder, beside the real frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from worldsim import metrics
from worldsim.data.dataset import Episode
from worldsim.metrics import bootstrap, weighted_mean
from worldsim.models.vae import to_bytes, to_float
from worldsim.recipes.car_racing import landmarks as car_racing
from worldsim.world.diffusion import DiffusionWorld

ROWS = 64  # chunks a pass
LOOK_EVERY = 5  # chunks between those in which road and car are looked for


@dataclass(frozen=True)
class Rebuilt:
    """What one episode of n chunks lost.

    Attributes:
        mse: (n,) mean squared error of each chunk.
        moved_mse: the same over the pixels that moved, of the chunks in which any did.
        moved_error: summed squared error of all pixels that moved; moved_count: how many.
        edges: (M,) distance of every real road edge to its rebuilt one, pixels; infinite if lost.
        car: (m,) distance of the car from its real place, pixels; infinite if lost.
    """

    mse: Tensor
    moved_mse: Tensor
    moved_error: float
    moved_count: int
    edges: Tensor
    car: Tensor


def rebuild(world: DiffusionWorld, episode: Episode) -> Rebuilt:
    """Encode and decode a whole episode as one video, in pieces."""
    frames = torch.from_numpy(episode.frames[:])
    before = torch.cat([frames[:1], frames[:-1]])  # the first frame counts as still
    chunk = world.spec.chunk
    mse, moved, edges, cars = [], [], [], []
    for first, found in _pieces(world, frames):
        piece = slice(first * chunk, first * chunk + len(found))
        by_chunk = partial(rearrange, pattern="(n c) h w -> n (c h w)", c=chunk)
        error = by_chunk(metrics.squared_error(found, frames[piece]))
        mask = by_chunk(metrics.moved(frames[piece], before[piece]))
        mse.append(error.mean(-1))
        moved.append(torch.stack([(error * mask).sum(-1), mask.sum(-1)], -1))
        if car_racing.recognised(world.spec):
            real, rebuilt = frames[piece][:: LOOK_EVERY * chunk], found[:: LOOK_EVERY * chunk]
            edges.append(_edge_errors(real, rebuilt))
            cars.append(_car_errors(real, rebuilt))
    none = [torch.empty(0)]
    places = torch.cat(edges or none), torch.cat(cars or none)
    total, count = torch.cat(moved).double().unbind(-1)
    each = (total / count)[count > 0]
    return Rebuilt(torch.cat(mse), each, total.sum().item(), int(count.sum()), *places)


@torch.no_grad()
def _pieces(world: DiffusionWorld, frames: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(first chunk, rebuilt frames uint8) of consecutive pieces; memory reaches one chunk back."""
    chunk, previous = world.spec.chunk, None
    chunks = rearrange(frames, "(n c) ... -> n c ...", c=chunk)
    for first in range(0, len(chunks), ROWS):
        back = min(first, 1)
        video = rearrange(chunks[first - back : first + ROWS], "n c ... -> 1 (n c) ...")
        latents = world.vae.encode(to_float(video.to(world.device)))[:, back:]
        joined = latents if previous is None else torch.cat([previous, latents], 1)
        previous = latents[:, -1:]
        yield first, to_bytes(world.vae.decode(joined)[0, back * chunk :]).cpu()


def _edge_errors(real: Tensor, found: Tensor) -> Tensor:
    edges = car_racing.road_edges(real), car_racing.road_edges(found)
    return metrics.match_crossings(*edges, reach=car_racing.EDGE_REACH)


def _car_errors(real: Tensor, found: Tensor) -> Tensor:
    there = car_racing.has_car(real)
    distance = (car_racing.car_place(found) - car_racing.car_place(real)).norm(dim=-1)
    return torch.where(car_racing.has_car(found), distance, torch.inf)[there]


def summarise(rebuilt: list[Rebuilt]) -> dict[str, Any]:
    """Figures over all episodes.

    psnr: of the mean squared error over all frames, with its interval over episodes. chunk_psnr:
    mean over chunks of each chunk's own. moved_psnr, moved_chunk_psnr: the same two over pixels
    that moved. edge, car: pixels between real and rebuilt places, over those found.
    """
    mse = torch.cat([r.mse for r in rebuilt])
    episode = torch.cat([torch.full((len(r.mse),), i) for i, r in enumerate(rebuilt)])
    moved = torch.tensor([[r.moved_error, r.moved_count] for r in rebuilt], dtype=torch.float64)

    def moved_psnr(weights: Tensor) -> Tensor:
        error, count = weighted_mean(moved, weights).unbind(-1)
        return metrics.psnr(error / count)

    return {
        "psnr": bootstrap(lambda w: metrics.psnr(weighted_mean(mse, w)), episode)._asdict(),
        "chunk_psnr": metrics.psnr(mse).mean().item(),
        "moved_psnr": bootstrap(moved_psnr, torch.arange(len(rebuilt)))._asdict(),
        "moved_chunk_psnr": metrics.psnr(torch.cat([r.moved_mse for r in rebuilt])).mean().item(),
        "moved_pixels": int(moved[:, 1].sum()),
        "edge": _distances(torch.cat([r.edges for r in rebuilt])),
        "car": _distances(torch.cat([r.car for r in rebuilt])),
    }


def _distances(found: Tensor) -> dict[str, Any] | None:
    """Mean and 95% quantile of finite distances, and which share of all was finite."""
    kept = found[found.isfinite()]
    if not len(kept):
        return None
    return {
        "mean": kept.mean().item(),
        "q95": kept.double().quantile(0.95).item(),
        "found": len(kept) / len(found),
        "count": len(found),
    }
