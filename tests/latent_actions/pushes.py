"""Films of a square that the action pushes: what was done shows only from one chunk to the next."""

from __future__ import annotations

import numpy as np

from tests.train.films import FORCE, NONE, Films
from worldsim.core import ActionSpec
from worldsim.data.dataset import DatasetSpec, Episode

SIDE, REACH = 16, 2.5
TIMES = {"train": 12, "val": 2, "test": 3}


def pushes(
    action: ActionSpec = FORCE, *, chunks: int = 24, shift: int = 0, still: bool = False
) -> Films:
    """Episodes of chunk 2; `shift` puts each action beside a chunk so much later than its own."""
    spec = DatasetSpec(
        name="pushes", frame_shape=(SIDE, SIDE, 3), fps=20.0, chunk=2, action=action,
        has_rewards=True,
    )  # fmt: skip
    splits, seed = {}, 0
    for split, count in TIMES.items():
        splits[split] = [push(spec, seed + i, chunks, shift, still) for i in range(count)]
        seed += count
    return Films(spec, splits)


def push(spec: DatasetSpec, seed: int, chunks: int, shift: int, still: bool) -> Episode:
    """One episode: the square's centre goes right by the action, and bounces off the edges."""
    rng = np.random.default_rng(seed)
    forces = rng.uniform(-1, 1, (chunks, 1)).astype(np.float32)
    frames, x = np.full((2 * chunks, SIDE, SIDE, 3), 30, np.uint8), SIDE / 2
    column = np.arange(SIDE) + 0.5
    for t in range(2 * chunks):
        force = float(forces[t // 2, 0])
        if not 4 <= x + REACH * force <= SIDE - 4:
            force = forces[t // 2, 0] = -force  # towards the middle, and recorded so
        x += 0 if still else REACH * force / 2
        bright = np.clip(3.5 - np.abs(column - x), 0, 1)
        frames[t, 5:11] = (30 + 220 * bright)[None, :, None].astype(np.uint8)
    actions = np.roll(forces, shift, 0)
    if spec.action.kind == "discrete":
        actions = (actions[:, 0] > 0).astype(np.int64) + spec.action.start
    return Episode(
        name=f"push-{seed}", frames=frames, chunk=2, fps=20.0, truncated=True,
        actions=None if spec.action == NONE else actions,
        rewards=(frames[1::2].mean((1, 2, 3)) / 255).astype(np.float32),
    )  # fmt: skip
