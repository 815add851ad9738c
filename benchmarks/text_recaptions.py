"""What recaptions are worth: three worlds that differ in their captions alone.

All share drives, VAE, latents, seeds and steps. One is told the true captions, one those of 5% of
the drives, and one these and what a captioner of them says of the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from worldsim.data.captions import CaptionTable
from worldsim.data.dataset import Dataset
from worldsim.data.native import NativeDataset
from worldsim.metrics import bootstrap, weighted_mean
from worldsim.presets import sizes_of
from worldsim.recipes.car_racing.captions import ATTRIBUTES
from worldsim.train.captioner import CaptionerTraining, Told, recaption, told_in
from worldsim.train.dynamics import train_dynamics
from worldsim.train.recipe import (
    QUICK,
    fit_vae,
    latents_of,
    new_dynamics,
    start_clips,
    world_of,
    world_spec,
)
from worldsim.train.words import with_words
from worldsim.world.diffusion import DiffusionWorld, Sampling

from .text_captions import drawn_names
from .text_twins import READ, Probe, fit_probe
from .text_weathers import CHUNK, COMBINATIONS, SEEDS, Drive, Pair, drive, recorded, told

SHARE = 0.05
"""Of the drives: those whose captions are known."""

KINDS = ("true captions", "5% labelled", "5% labelled, the rest recaptioned")
NETWORKS = {"dim": 96, "depth": 4, "heads": 2, "widths": (48, 96), "channels": 16, "patch": (1, 1)}
STEPS = {"vae": 800, "dynamics": 700, "captioner": 1200, "probe": 500}
SAMPLING = Sampling(method="euler", num_steps=8)
PROBED = range(40, 46)
"""Tracks that the probe learns from, in no recording."""

ALONE, AFTER, WORDINGS = 2, 12, 10
"""Chunks of a video from words alone, chunks after an event, prompts of each combination."""


def recaptions(folder: Path, *, quick: bool = False) -> dict[str, Any]:
    """Share of light and weather that a probe of real frames reads as they were told, in videos
    from words alone and in dreams of real drives that are told of another scenery. Killed, it goes
    on in the same folder."""
    chunks, seeds, wordings = (30, 2, 1) if quick else (60, 40, WORDINGS)
    steps = {name: 12 if quick else count for name, count in STEPS.items()}
    data = recorded(folder / "data", chunks, seeds)
    tables = captioned_as(data, folder / "recaptioned", steps["captioner"])
    probe = probe_of([drive(s, chunks) for s in PROBED[: 1 if quick else None]], steps["probe"])
    test = [drive(s, chunks) for s in SEEDS["test"][:seeds]]
    alone, events = list(COMBINATIONS) * wordings, list(COMBINATIONS) * len(test)
    real = torch.from_numpy(np.stack([d.seen(pair)[-1] for d in test for pair in COMBINATIONS]))
    hits: dict[str, dict[str, Tensor]] = {"words alone": {}, "event": {}}
    for name, world in worlds(data, tables, folder, steps):
        hits["words alone"][name] = read_right(probe, begun(world, alone), alone)
        hits["event"][name] = read_right(probe, changed(world, test), events)
    ceiling = read_right(probe, real, events)
    return {
        "real frames": {"light": _mean(ceiling[:, 0]), "weather": _mean(ceiling[:, 1])},
        **{row: compared(found) for row, found in hits.items()},
        "steps": steps,
    }


# --- Captions -------------------------------------------------------------------------------------


def captioned_as(data: Dataset, out: Path, steps: int) -> dict[str, CaptionTable]:
    """What the training drives are told to be, by kind of world; the captioner writes `out`, and
    what it has written already counts."""
    train = data.split("train")
    whole, known = told_in(train), drawn_names(train, SHARE)
    few = {name: captions for name, captions in whole.items() if name in known}
    if not out.exists():
        recaption(data, few, out, CaptionerTraining(steps=steps))
    said = (whole, few, told_in(NativeDataset(out).split("train")))
    return {kind: laid(train, one) for kind, one in zip(KINDS, said, strict=True)}


def laid(data: Dataset, captions: Told) -> CaptionTable:
    """The table of captions that are known by the names of their episodes."""
    begins = np.cumsum([0, *data.lengths]).tolist()
    found = sorted(
        (begin + one.first, begin + one.stop, one.text)
        for name, (begin, _) in zip(data.names, pairwise(begins), strict=True)
        for one in captions.get(name, ())
    )
    ends = torch.tensor([row[:2] for row in found], dtype=torch.int64).reshape(-1, 2)
    return CaptionTable(ends[:, 0].contiguous(), ends[:, 1], tuple(row[2] for row in found))


# --- Worlds ---------------------------------------------------------------------------------------


def worlds(
    data: Dataset, tables: Mapping[str, CaptionTable], folder: Path, steps: Mapping[str, int]
) -> Iterator[tuple[str, DiffusionWorld]]:
    """A world of each kind of captions, drawn in `SAMPLING`: no student is made of it."""
    sizes = with_words(data, sizes_of("tiny", **NETWORKS))
    fit = replace(QUICK.vae.fit, batch=8, steps=steps["vae"])
    vae = fit_vae(data, sizes, replace(QUICK.vae, fit=fit), folder)
    latents = latents_of(data, "train", sizes, folder)
    training = replace(
        QUICK.forced, fit=replace(QUICK.forced.fit, batch=8, steps=steps["dynamics"]),
        from_nothing=0.5, stills=0.5, compile=False,
    )  # fmt: skip
    spec, starts = world_spec(data, sizes, "weathers", 60), start_clips(data, sizes.context, 1)
    for kind, table in tables.items():
        recording = replace(latents, captions=table)
        model, where = new_dynamics(data, sizes), folder / kind
        model = train_dynamics(recording, model, sizes.context, training, where)
        yield kind, world_of(spec, sizes, vae, model, SAMPLING, starts)


# --- Judgement ------------------------------------------------------------------------------------


def probe_of(drives: Sequence[Drive], steps: int) -> Probe:
    """A probe of light and weather, trained on every combination of these drives."""
    frames, labels = [], []
    for one in drives:
        for light, weather in COMBINATIONS:
            truth = {"light": light, "weather": weather}
            frames.append(torch.from_numpy(one.seen((light, weather))))
            label = [ATTRIBUTES[n].index(truth[n]) if n in truth else -1 for n in READ]
            labels.append(torch.tensor(label).expand(len(frames[-1]), -1))
    return fit_probe(torch.cat(frames), torch.cat(labels), steps=steps)


def read_right(probe: Probe, frames: Tensor, pairs: Sequence[Pair]) -> Tensor:
    """Whether light and weather are read as they were told, (n, 2); frames (n, H, W, 3)."""
    read = probe.read(frames)
    found = zip(read["light"], read["weather"], pairs, strict=True)
    return torch.tensor([[a == pair[0], b == pair[1]] for a, b, pair in found])


def begun(world: DiffusionWorld, pairs: Sequence[Pair]) -> Tensor:
    """Last frames of videos that begin with words alone, (n, H, W, 3)."""
    rng = np.random.default_rng(8)
    return torch.stack([
        world.generate([], frames=ALONE * CHUNK, text=told(rng, pair), seed=seed)[-1]
        for seed, pair in enumerate(tqdm(pairs, file=sys.stderr, leave=False))
    ])  # fmt: skip


@torch.no_grad()
def changed(world: DiffusionWorld, drives: Sequence[Drive]) -> Tensor:
    """Frames `AFTER` chunks after drives by day in clear weather are told of each combination."""
    rng, context = np.random.default_rng(7), world.spec.context
    begin = np.stack([one.seen(("day", "clear"), 0, context) for one in drives])
    acts, times = np.stack([one.actions for one in drives]), len(COMBINATIONS)
    frames, actions = (torch.from_numpy(x).repeat_interleave(times, 0) for x in (begin, acts))
    texts = [told(rng, pair) for _ in drives for pair in COMBINATIONS]
    state = world.encode(frames, actions[:, :context]).prompted(world.prompt(texts))
    for t in range(AFTER):
        state, _ = world.step(state, actions[:, context + t])
    return world.decode(state)[:, -1]


def compared(hits: Mapping[str, Tensor]) -> dict[str, Any]:
    """Shares read right in each kind of world, and of recaptions less those of the others.

    hits: (n, 2) of each kind, of the same prompts. Intervals are over prompts.
    """
    *others, ours = hits
    shares = {name: one.float().mean(1) for name, one in hits.items()}
    parts = {name: {"light": _mean(one[:, 0]), "weather": _mean(one[:, 1])}
             for name, one in hits.items()}  # fmt: skip
    return {
        **{name: parts[name] | {"all": _over_prompts(one)} for name, one in shares.items()},
        **{f"recaptions less {name}": _over_prompts(shares[ours] - shares[name])
           for name in others},
    }  # fmt: skip


def _over_prompts(values: Tensor) -> dict[str, float]:
    found = bootstrap(lambda weights: weighted_mean(values, weights), torch.arange(len(values)))
    return found._asdict()


def _mean(hits: Tensor) -> float:
    return float(hits.float().mean())
