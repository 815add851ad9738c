"""Samples for the eye while a world trains: a recording beside its dream, as film and as sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from worldsim import metrics
from worldsim.data.columns import columns_of, state_in
from worldsim.data.dataset import Dataset, Episode
from worldsim.world.diffusion import DiffusionWorld

from .film import beside, enlarge, save_film, save_picture, sheet

LOOKS = (1, 2, 4, 8, 16, 32)
"""Steps that the sheet shows, as far as the dream goes."""


def write_sample(
    world: DiffusionWorld, data: Dataset, folder: Path, name: str, *, steps: int = 48
) -> dict[str, float]:
    """Dream along one episode, write NAME.mp4 and NAME.png, and return how near the dream was.

    The episode is the longest of the validation split, or of the training split without one.
    Returns PSNR in dB after 1 and 8 steps, of the dream and of the last real frame copied; {} where
    the episode is too short.
    """
    some = data.split("val" if "val" in data.splits else "train")
    context = world.spec.context
    place = int(np.argmax(some.lengths))
    steps = min(steps, some.lengths[place] - context)
    if steps < 1:
        return {}
    episode = some.episode(place)
    first = (len(episode) - context - steps) // 2  # ends are often out of sight
    real, dream = dream_along(world, episode, first, steps)
    times = max(1, 192 // real.shape[1])
    film = (
        beside([enlarge(a, times), enlarge(b, times)]) for a, b in zip(real, dream, strict=True)
    )
    chunk = world.spec.chunk
    start = chunk * context
    save_film(folder / f"{name}.mp4", film, world.spec.fps)
    looks = [t for t in LOOKS if t <= steps]
    at = [start + t * chunk - 1 for t in looks]
    rows = [[x[i] for i in at] for x in (real, dream)]
    picture = sheet(rows, ["real", "dream"], [f"{t}" for t in looks], times)
    save_picture(folder / f"{name}.png", picture)
    return _psnr(real, dream, start, chunk, steps)


@torch.no_grad()
def dream_along(
    world: DiffusionWorld, episode: Episode, first: int, steps: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Real and dreamt frames (T, H, W, 3) of a context from chunk `first` on and `steps` chunks.

    The dream begins after the context, under the recorded actions.
    """
    spec, context = world.spec, world.spec.context
    last, begun = first + context + steps, first + context
    real = torch.from_numpy(np.array(episode.frames[first * spec.chunk : last * spec.chunk]))
    columns = columns_of(episode, spec.action, state_in(episode, spec))
    seen, start = slice(first, begun), context * spec.chunk
    actions, known = columns.actions[None, seen], columns.known[None, seen]
    states = columns.states[None, seen] if columns.states_known.any() else None
    state = world.encode(real[None, :start], actions, known=known, states=states)
    chunks = [real[:start]]
    for t in range(begun, last):
        action = columns.actions[None, t].to(world.device) if columns.known[t] else None
        state, _ = world.step(state, action)
        chunks.append(world.decode(state)[0].cpu())
    return real.numpy(), torch.cat(chunks).numpy()


def _psnr(
    real: NDArray[np.uint8], dream: NDArray[np.uint8], start: int, chunk: int, steps: int
) -> dict[str, float]:
    figures = {}
    for t in (1, 8):
        if t <= steps:
            span = slice(start + (t - 1) * chunk, start + t * chunk)
            truth = torch.from_numpy(real[span])
            still = torch.from_numpy(real[start - 1 : start]).expand_as(truth)
            for name, guess in (("dream", torch.from_numpy(dream[span])), ("still", still)):
                error = metrics.squared_error(guess, truth).mean()
                figures[f"{name}_psnr_{t}"] = float(metrics.psnr(error))
    return figures
