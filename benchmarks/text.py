"""Words: what encoders read, what a step with words costs, whether prompts arrive.

    python -m benchmarks.text --rows encoders speed scenery captions recaptions

    python -m benchmarks.text --rows alone changes edits between augmentation training \
        --world scenery

Each row is measured alone and kept in benchmarks/results/text.json beside the others. The second
line judges a world of sceneries.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
import tyro
from tqdm import tqdm

from worldsim.core import ActionSpec, WorldSpec, row_keys
from worldsim.flags import refuse_repeated
from worldsim.models.conditioning import ConditioningConfig
from worldsim.models.dynamics import Dynamics
from worldsim.models.text import TextConfig
from worldsim.models.vae import SpacetimeVAE
from worldsim.play import film as video
from worldsim.presets import SIZES
from worldsim.recipes.car_racing.drivers import pursue
from worldsim.recipes.car_racing.scenery import (
    GROUNDS,
    LIGHTS,
    WEATHERS,
    Scenery,
    SceneryRacing,
    shown,
)
from worldsim.store.folder import load
from worldsim.store.provenance import provenance
from worldsim.world.diffusion import DiffusionWorld, Sampling, Starts, WorldConfig

from . import DOCS, RESULTS
from .text_augmentation import augmentation
from .text_captions import captions
from .text_encoders import encoders
from .text_prompts import Judge, alone, between, changes, edits
from .text_recaptions import recaptions
from .text_training import training

CAR = ActionSpec(kind="continuous", low=(-1.0, 0.0, 0.0), high=(1.0, 1.0, 1.0))
ROADS = {"meadow": "grey", "desert": "red", "snow": "black", "jungle": "pale"}
PROMPTS = ("a red road through the desert at night", "it begins to rain", "a hairpin in the snow")
Row = Literal[
    "encoders",
    "speed",
    "scenery",
    "captions",
    "recaptions",
    "alone",
    "changes",
    "edits",
    "between",
    "augmentation",
    "training",
]
PARTS: tuple[Row, ...] = ("encoders", "speed", "scenery", "captions")
JUDGED = {
    "alone": alone, "changes": changes, "edits": edits, "between": between,
    "augmentation": augmentation, "training": training,
}  # fmt: skip
"""Rows that are of a world."""


def main(
    rows: tuple[Row, ...] = PARTS,
    world: str = "scenery",
    out: Path = RESULTS / "text.json",
    media: Path = DOCS / "media",
    folder: Path | None = None,
    quick: bool = False,
) -> None:
    """Measure the rows and keep what they say.

    Args:
        rows: which.
        world: a world of sceneries, bundled or a folder, for the rows that judge one.
        out: the JSON file, in which other rows are kept.
        media: the folder of pictures.
        folder: of what the row `recaptions` records and trains, to go on if killed; a temporary
            one by default.
        quick: the same in small, nothing to cite.
    """
    torch.set_num_threads(1)
    kept = json.loads(out.read_text()) if out.exists() else {}
    judge = None
    if not JUDGED.keys().isdisjoint(rows):
        judge = Judge(load(world), media, quick)
    for row in rows:
        if row in JUDGED:
            assert judge is not None
            found: Any = JUDGED[row](judge, quick=quick)
        elif row == "encoders":
            found = encoders(quick=quick)
        elif row == "speed":
            found = speed(rounds=3 if quick else 40)
        elif row == "scenery":
            found = scenery(media / "scenery.png", frames=20 if quick else 300)
        else:
            measured = captions if row == "captions" else recaptions
            with tempfile.TemporaryDirectory() as scratch:
                kept_in = folder if row == "recaptions" else None
                found = measured(kept_in or Path(scratch), quick=quick)
        command = f"python -m benchmarks.text --rows {row}" + " --quick" * quick
        command += f" --world {world}" * (row in JUDGED)
        kept[row] = {"found": found, "provenance": provenance(command)}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(kept, indent=1) + "\n")
        print(json.dumps({row: found}, indent=1))


def world_of(*, words: bool, preset: str) -> DiffusionWorld:
    """A world of random weights, of a preset's size, with words or without."""
    sizes = SIZES[preset]()
    dit = replace(sizes.dit, cross_attention=words and sizes.text_tokens > 0)
    text = {"text": sizes.text, "text_tokens": sizes.text_tokens, "encoder": TextConfig()}
    conditioning = ConditioningConfig(action=CAR, **(text if words else {}))
    vae = SpacetimeVAE(sizes.vae)
    spec = WorldSpec(
        name="random", frame_shape=(56, 64, 3), chunk=2, context=sizes.context,
        latent_shape=(7, 8, sizes.vae.channels), action=CAR, fps=50.0, time_limit=500,
    )  # fmt: skip
    config = WorldConfig(
        spec=spec, vae=sizes.vae, dit=dit, heads=sizes.heads, conditioning=conditioning,
        sampling=Sampling(num_steps=2),
    )  # fmt: skip
    dynamics = Dynamics(dit, sizes.heads, sizes.vae.channels, conditioning)
    count = sizes.context
    frames = torch.zeros(1, 2 * count, 56, 64, 3, dtype=torch.uint8)
    known = torch.ones(1, count, dtype=torch.bool)
    return DiffusionWorld(config, vae, dynamics, Starts(frames, torch.zeros(1, count, 3), known))


@torch.no_grad()
def speed(*, rounds: int) -> list[dict[str, Any]]:
    """CPU time of a step with words over one without, contenders taking turns.

    "unprompted" is the same network with nothing said; "without" has no part for words at all.
    """
    found = []
    for preset in ("tiny", "small"):
        kinds = {"without": False, "with": True}
        worlds = {name: world_of(words=words, preset=preset) for name, words in kinds.items()}
        found += [{"preset": preset, **_speed(worlds, rounds, batch)} for batch in (1, 8)]
    return found


def _speed(worlds: dict[str, DiffusionWorld], rounds: int, batch: int) -> dict[str, Any]:
    action, tokens = torch.zeros(batch, 3), worlds["with"].prompt(PROMPTS)
    states = {name: world.reset(row_keys(range(batch))) for name, world in worlds.items()}
    cast = {"without": "without", "unprompted": "with", "prompted": "with"}
    spent: dict[str, list[float]] = {name: [] for name in cast}
    for turn in tqdm(range(rounds + 2), leave=False, file=sys.stderr):
        for name, kind in cast.items():
            begun = time.process_time()
            state = states[kind]
            if name == "prompted":  # another prompt at every step
                state = state.prompted(worlds["with"].prompt(PROMPTS[turn % len(PROMPTS)]))
            worlds[kind].step(state, action)
            spent[name].append(time.process_time() - begun)
    ms = {name: 1e3 * float(np.median(times[2:])) for name, times in spent.items()}
    return {
        "batch": batch, "cpu_ms": ms, "tokens": int((tokens > 0).sum(1).max()),
        "prompted over unprompted": ms["prompted"] / ms["unprompted"],
        "prompted over a world without words": ms["prompted"] / ms["without"],
    }  # fmt: skip


def scenery(path: Path, *, frames: int) -> dict[str, Any]:
    """The contact sheet of all grounds, lights and weathers, and what a frame of each costs."""
    env = SceneryRacing(gymnasium.make("CarRacing-v3"))
    env.reset(seed=3)
    for _ in range(140):
        env.step(pursue(env))
    heads = [f"{light}, {weather}" for light in LIGHTS for weather in WEATHERS]
    rows = []
    for ground in GROUNDS:
        row = []
        for light in LIGHTS:
            for weather in WEATHERS:
                env.change(ground=ground, light=light, weather=weather, road=ROADS[ground])
                picture, *_ = env.step(np.array([0, 0.02, 0], np.float32))
                row.append(picture[:84])
        rows.append(row)
    video.save_picture(path, video.sheet(rows, list(GROUNDS), heads, times=1))
    cost = {}
    for head in heads:
        light, weather = head.split(", ")
        seen = Scenery(light=light, weather=weather)
        begun = time.process_time()
        for t in range(frames):
            shown(rows[0][0], seen, t)
        cost[head] = 1e3 * (time.process_time() - begun) / frames
    begun = time.process_time()
    for _ in range(frames):
        env.env.step(np.array([0, 0.02, 0], np.float32))
    simulator = 1e3 * (time.process_time() - begun) / frames
    env.close()
    return {"cpu_ms_a_frame": cost, "simulator_cpu_ms_a_frame": simulator,
            "dearest over simulator": max(cost.values()) / simulator}  # fmt: skip


if __name__ == "__main__":
    tyro.cli(main, args=refuse_repeated(sys.argv[1:]))
