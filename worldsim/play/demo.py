"""The demo: a film of the real environment beside the dream, under the same actions.

The real environment is driven first, on a track that no world was trained or tuned on. The dream
then gets its actions. At first it is told the truth every two seconds anew, which shows how true
it is over short times; from the middle on it dreams freely, and may go its own way.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from worldsim.collect.errors import CollectError
from worldsim.core import ActionSpec, WorldError, WorldSpec, row_keys
from worldsim.data.columns import columns_of, state_in
from worldsim.data.dataset import Episode
from worldsim.recipes.car_racing.drivers import brownian
from worldsim.recipes.car_racing.landmarks import recognised
from worldsim.recipes.recipe import RESERVED_SEED
from worldsim.recipes.registry import recipe_of
from worldsim.store.folder import load
from worldsim.world.diffusion import DiffusionWorld
from worldsim.worlds import DEFAULT

from . import film as video

ANCHOR_SECONDS = 2.0  # between real frames in the first half
TIMES = 6  # enlargement


@dataclass(frozen=True)
class Moment:
    """One step of the film: frames (c, H, W, 3) uint8, real ones if there are any.

    Attributes:
        dream: the dreamed chunk.
        real: what really happened.
        since: seconds since the dream's last real frame.
        free: whether the dream is told the truth no more.
    """

    dream: np.ndarray
    real: np.ndarray | None
    since: float
    free: bool


def run_demo(
    world: DiffusionWorld | Path | str = DEFAULT,
    out: Path = Path("demo.mp4"),
    seconds: float = 20.0,
    seed: int = RESERVED_SEED + 7,
    device: torch.device | str = "cpu",
) -> Path:
    """Write a film of the real environment beside the dream, and say where it lies.

    world: a world, its folder or name. seconds: length of the film, more than 1. seed: of the real
    track and of the dream, 10,000 or more. Without the real environment, or for a world that no
    recipe of ours records, the film shows a dream alone, and a message says so.
    """
    if not seconds > 1:
        raise WorldError(f"seconds: expected more than 1, got {seconds}")
    if seed < RESERVED_SEED:
        raise WorldError(
            f"seed: expected {RESERVED_SEED} or more, got {seed}; tracks below are in training, "
            "validation or test data"
        )
    world = world if isinstance(world, DiffusionWorld) else load(world, device)
    spec, start = world.spec, time.perf_counter()
    rate = spec.fps / spec.chunk
    steps = round(seconds * rate)
    try:
        moments = against_reality(world, real_drive(spec, steps, seed), steps)
    except CollectError as error:
        print(f"no real environment beside the dream: {error}", file=sys.stderr)
        moments = dream_alone(world, steps, seed)
    # two frames of a chunk are 20 ms apart: the film shows every second one
    pictures = (picture(m, spec) for m in tqdm(moments, desc="dreaming", total=steps))
    video.save_film(out, pictures, rate)
    print(f"wrote {out} ({steps} steps, {time.perf_counter() - start:.0f} s)")
    return out


def real_drive(spec: WorldSpec, steps: int, seed: int) -> Episode:
    """A recipe's skilled policy in its real environment; CollectError where that cannot be had."""
    recipe = recipe_of(spec)
    if recipe is None:
        raise CollectError(f"world: no recipe of ours records what {spec.name} shows")
    frames = (steps + spec.context) * spec.chunk
    return recipe.seen(max_frames=frames).record(seed, recipe.policies[0])


def against_reality(world: DiffusionWorld, episode: Episode, steps: int) -> Iterator[Moment]:
    """The dream of a real episode under its own actions, from its first context on."""
    spec, rate = world.spec, world.spec.fps / world.spec.chunk
    count = len(episode)
    chunks = torch.from_numpy(episode.frames[:]).reshape(count, spec.chunk, *spec.frame_shape)
    columns = columns_of(episode, spec.action, state_in(episode, spec))
    actions, told = columns.actions, bool(columns.states_known.any())
    last = min(count, steps + spec.context)
    every, since, state = round(ANCHOR_SECONDS * rate), 0, None
    for t in range(spec.context, last):
        done = t - spec.context
        free = done >= (last - spec.context) // 2
        if state is None or (not free and done % every == 0):
            past = slice(t - spec.context, t)
            frames, led = chunks[past].flatten(0, 1)[None], actions[past][None]
            states = columns.states[past][None] if told else None
            key = row_keys([episode.seed or 0])
            state, since = world.encode(frames, led, key, states=states), 0
        state, _ = world.step(state, actions[t][None].to(world.device))
        since += 1
        dreamed = world.decode(state)[0].cpu().numpy()
        yield Moment(dreamed, chunks[t].numpy(), since / rate, free)


def dream_alone(world: DiffusionWorld, steps: int, seed: int) -> Iterator[Moment]:
    """A dream from a start clip under wandering actions."""
    rate = world.spec.fps / world.spec.chunk
    state, act = world.reset(row_keys([seed])), wander(world.spec, seed)
    for t in range(steps):
        state, _ = world.step(state, act().to(world.device))
        yield Moment(world.decode(state)[0].cpu().numpy(), None, (t + 1) / rate, True)


def wander(spec: WorldSpec, seed: int) -> Callable[[], Tensor]:
    """Open loop: actions (1, *action) that change slowly, or each held for some steps."""
    rng = np.random.default_rng(seed)
    if recognised(spec):
        policy: Callable[[Any], Any] = brownian(None, rng)  # type: ignore[arg-type]
        return lambda: torch.from_numpy(policy(None))[None]
    return _hold(spec.action, rng)


def _hold(action: ActionSpec, rng: np.random.Generator, steps: int = 10) -> Callable[[], Tensor]:
    space = action.space(seed=int(rng.integers(2**31)))
    held, left = space.sample(), 0

    def act() -> Tensor:
        nonlocal held, left
        held, left = (space.sample(), steps) if left == 0 else (held, left - 1)
        return torch.as_tensor(held)[None]

    return act


def picture(moment: Moment, spec: WorldSpec) -> video.Picture:
    """One picture of the film: real | dream, and for how long the dream has been on its own."""
    dream = video.enlarge(moment.dream[-1], TIMES)
    width = dream.shape[1]
    told = "on its own for" if moment.free else "last told the truth"
    text = f"dream, {told} {moment.since:.1f} s" + ("" if moment.free else " ago")
    ink = video.AMBER if moment.free else video.GREEN
    share = moment.since / (ANCHOR_SECONDS if not moment.free else 20.0)
    parts = [video.label(text, width, 20, ink), dream, video.bar(share, width, ink=ink)]
    right = video.below(parts)
    if moment.real is None:
        return right
    left = video.below([
        video.label("real environment", width, 20),
        video.enlarge(moment.real[-1], TIMES),
        video.bar(0.0, width),
    ])  # fmt: skip
    return video.beside([left, right])
