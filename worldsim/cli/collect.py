"""Record episodes of a Gymnasium environment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

from worldsim.collect import CollectError
from worldsim.collect.api import collect as record
from worldsim.data.dataset import Dataset
from worldsim.recipes.mix import mix_of, told
from worldsim.recipes.registry import POLICIES, RECIPES

Several = tyro.conf.UseAppendAction[tuple[str, ...]]
PYTHON = {"True": "true", "False": "false", "None": "null"}


def collect(
    env: tyro.conf.Positional[str],
    folder: Path | None = None,
    policy: str | None = None,
    episodes: int | None = None,
    val: int | None = None,
    test: int | None = None,
    chunk: int | None = None,
    size: tuple[int, int] | None = None,
    crop: tuple[int, int, int, int] | None = None,
    source: Literal["observation", "render"] | None = None,
    image: str | None = None,
    state: tuple[str, ...] | None = None,
    warmup: int | None = None,
    max_frames: int | None = None,
    env_kwarg: Several = (),
    wrapper: Several = (),
    noise: float | None = None,
    seed: int | None = None,
    prefix: str | None = None,
    workers: int | None = None,
) -> None:
    """Record episodes of a Gymnasium environment into a folder.

    Killed at any moment, it goes on where it stood when the same command is typed again.

    Args:
        env: any Gymnasium id, "module:Name-v0" or "module:function"; or car-racing,
            car-racing-state, pendulum or scenery, recordings for whole worlds, which settle all
            but folder, policy, episodes and workers.
        folder: where to; data/NAME by default.
        policy: "module:function", a policy obs -> action; by default the environment's own script
            where we have one (LunarLander-v3), else random actions, each held for a while.
        episodes: of the training split, 100 by default.
        val: validation episodes, a tenth of these by default, at least 2.
        test: test episodes, likewise.
        chunk: frames an action is repeated for, 2 by default.
        size: height and width to resize frames to, divisible by 8; a small one by default.
        crop: top, bottom, left and right in pixels, kept of a picture.
        source: where pictures come from; observations where those are pictures, else rendering.
        image: key of the picture in a dict observation that has several.
        state: keys of a dict observation to record as the state vector; all vectors by default.
        warmup: frames dropped after a reset, 0 by default.
        max_frames: an episode is cut here, at the latest; 1000 by default.
        env_kwarg: key=json, a keyword for the environment; may be given several times.
        wrapper: "module:function" that wraps the environment; may be given several times.
        noise: share of the episodes in which random actions interrupt the policy, and as much
            again of random actions alone; 0.25 by default.
        seed: another one gives other episodes, 0 by default.
        prefix: of the episodes' names: another one adds episodes to the folder's.
        workers: processes; one for each core by default, one for a small recording.
    """
    settings = {
        "val": val, "test": test, "chunk": chunk, "size": size, "crop": crop, "source": source,
        "image": image, "state": state, "warmup": warmup, "max_frames": max_frames,
        "env_kwargs": keywords(env_kwarg) or None, "wrappers": wrapper or None, "noise": noise,
        "seed": seed, "prefix": prefix,
    }  # fmt: skip
    given = {name: value for name, value in settings.items() if value is not None}
    out = folder or Path("data") / env.replace("/", "-").replace(":", "-")
    if env in RECIPES:
        if given:
            names = ", ".join(given)
            raise CollectError(f"{names}: expected none, as the recipe {env} settles it")
        recipe = RECIPES[env]()
        data = recipe.collect(out, policy=policy, episodes=episodes, workers=workers)
        print(told(mix_of(data, recipe.notable)))
    else:
        count = {} if episodes is None else {"episodes": episodes}
        who = policy or POLICIES.get(env)
        data = record(env, out=out, policy=who, workers=workers, **count, **given)
    print(summary(data, out))


def summary(data: Dataset, out: Path) -> str:
    """One line: what was recorded, and what to do with it."""
    counts = ", ".join(f"{len(data.split(split))} {split}" for split in data.splits)
    frames = sum(data.lengths) * data.spec.chunk
    height, width, _ = data.spec.frame_shape
    return (
        f"{out}: {counts} episodes, {frames:,} frames of {height}x{width}; "
        f"next: worldsim train {out}"
    )


def keywords(given: Sequence[str]) -> dict[str, Any]:
    """Each "key=json" as an entry; what is no JSON is a string. Raises CollectError."""
    found: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier() or key in found:
            raise CollectError(f"env-kwarg: expected key=json, each key once, got {text!r}")
        if value in PYTHON:
            raise CollectError(f"env-kwarg: expected JSON, {PYTHON[value]}, got {value!r} in {key}")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found
