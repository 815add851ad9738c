"""How well a world dreams at each frame size that it was trained on, and at one that it was not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from worldsim.data.dataset import Dataset
from worldsim.data.open import open_for
from worldsim.data.sized import LEAST_SIDE, at_size
from worldsim.data.view import DatasetView
from worldsim.models.vae import DOWN
from worldsim.world.diffusion import DiffusionWorld, Starts

from .clips import Clips, Recorded, cut_clips, even_starts
from .horizon import LATER, Dreamt, curve, gap, persistence
from .plan import EvaluationPlan

Size = tuple[int, int]


def world_at(world: DiffusionWorld, size: Size) -> DiffusionWorld:
    """The same networks for frames of this size; it has no clips of its own to start from."""
    spec, (height, width) = world.spec, size
    latent = (height // DOWN, width // DOWN, spec.latent_shape[-1])
    spec = replace(spec, frame_shape=(height, width, 3), latent_shape=latent)
    frames = torch.zeros(0, spec.chunk * spec.context, height, width, 3, dtype=torch.uint8)
    starts = Starts(frames, world.starts.actions[:0], world.starts.known[:0])
    config = replace(world.config, spec=spec, sizes=())
    return DiffusionWorld(config, world.vae, world.dynamics, starts)


def unseen(sizes: Sequence[Size], most: Size) -> Size | None:
    """A size between those trained on that is none of them; None where there is no room.

    most: height and width of the recording.
    """
    mean = [sum(sides) / len(sizes) for sides in zip(*sizes, strict=True)]
    room = [range(LEAST_SIDE, side + 1, DOWN) for side in most]
    found = [(h, w) for h in room[0] for w in room[1] if (h, w) not in sizes]

    def apart(size: Size) -> float:
        return sum(abs(side - at) for side, at in zip(size, mean, strict=True))

    return min(found, key=apart, default=None)


def clips_at(data: Dataset, size: Size, world: DiffusionWorld, plan: EvaluationPlan) -> Clips:
    """Clips of the first episodes at even starts, at this size, up to `LATER` steps long."""
    seen, spec, parts = at_size(data, size), world.spec, []
    steps = min(LATER, plan.horizon)
    for place in range(min(plan.episodes, len(seen))):
        episode = Recorded.told(world, seen, place, plan.chunks)
        starts = even_starts(len(episode), spec.context, steps, plan.starts)
        parts.append(cut_clips(episode, place, starts, spec.context, steps))
    return Clips.cat([clips for clips in parts if clips is not None])


def by_size(
    world: DiffusionWorld, data: Dataset, plan: EvaluationPlan, dream: Callable[..., Dreamt],
    not_measured: dict[str, str],
) -> list[dict[str, Any]]:  # fmt: skip
    """PSNR of dreams after `LATER` steps and of persistence, for each size; nothing for a world of
    one size.

    data: the test episodes at the world's own size, made of larger ones; where the recording is
    smaller than a size that was trained on, `not_measured` says so. dream: `dream(name, clips,
    actions, world)`.
    """
    sizes, most = world.config.sizes, _recorded(data)
    if len(sizes) < 2:
        return []
    if any(side > there for size in sizes for side, there in zip(size, most, strict=True)):
        not_measured["sizes"] = f"{most[0]} x {most[1]} frames are smaller than those trained on"
        return []
    new, rows = unseen(sizes, most), []
    for size in [*sizes, *([] if new is None else [new])]:
        clips = clips_at(data, size, world, plan)
        name = "dreams at {}x{}".format(*size)
        error = dream(name, clips, clips.actions, world_at(world, size)).mse
        still = persistence(clips)
        rows.append(
            {
                "size": [*size], "trained": size in sizes, "steps": error.shape[1],
                "psnr": curve(error)[-1], "persistence": curve(still)[-1],
                "above": gap(still[:, -1], error[:, -1], clips.cluster),
            }
        )  # fmt: skip
    return rows


def opened_for(world: DiffusionWorld, data: Dataset | Path | str) -> Dataset:
    """The data set, or what is there, opened as the world was made of it."""
    if not isinstance(data, Path | str):
        return data
    return open_for(data, world.spec, sizes=world.config.sizes)


def _recorded(data: Dataset) -> Size:
    """Height and width of the recording behind all views of it."""
    while isinstance(data, DatasetView):
        data = data.data
    height, width, _ = data.spec.frame_shape
    return height, width
