"""All that must agree before the first step of a training, and sizes that follow from the data.

A run takes hours: whatever can be known to fail at its end is refused at its start, in a sentence.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from worldsim.core import WorldError
from worldsim.data.dataset import Dataset
from worldsim.models.vae import DOWN, SpacetimeVAE
from worldsim.presets import Sizes

from .buckets import buckets_of, divisible
from .context import DREAMT_FROM
from .distributed import check_batch, world_size
from .plan import STAGES
from .recipe import Recipe, new_dynamics
from .words import with_words

LEAST_CONTEXT = 2
"""Chunks: fewer show no motion."""

COVERED = 0.9
"""Share of all chunks that must lie in episodes long enough for a clip, where that can be had."""

MOST_REWARD = 20.0
"""Symlog of the largest reward that a head can be made for."""


def check_device(device: str | torch.device | None) -> torch.device:
    """The device to train on, by default the accelerator if there is one; raises WorldError."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    known = "cpu, cuda, cuda:N or mps"
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise WorldError(f"device: expected {known}, got {str(device)!r}") from error
    there = {"cpu": True, "cuda": torch.cuda.is_available(),
             "mps": torch.backends.mps.is_available()}  # fmt: skip
    if found.type not in there:
        raise WorldError(f"device: expected {known}, got {str(device)!r}")
    count = torch.cuda.device_count() if found.type == "cuda" else 1
    if not there[found.type] or (found.index or 0) >= count:
        raise WorldError(
            f"device: expected one of this machine, got {str(device)!r}, which torch "
            f"{torch.__version__} does not find; take cpu, or install torch for that device"
        )
    return found


def check_output(out: Path, overwrite: bool) -> None:
    """Raise WorldError where the world could not be written at the end."""
    if out.exists() and not overwrite:
        raise WorldError(
            f"out: expected a new folder, got {out}, which exists; choose another, or overwrite"
        )
    if out.exists() and not (out / "manifest.json").is_file():
        raise WorldError(f"out: expected a world to overwrite, got {out}, which is none")


def check_disk(folder: Path, needed: int) -> None:
    """Raise WorldError unless there is room for `needed` bytes where `folder` will be."""
    there = next(p for p in (folder.resolve(), *folder.resolve().parents) if p.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise WorldError(
            f"run: expected {needed / 2**20:.0f} MiB free for checkpoints and latents in {there}, "
            f"got {free / 2**20:.0f} MiB; free some, or choose another run folder"
        )


def check_budget(hours: float | None, steps: int | None) -> None:
    """Raise WorldError for a budget that is none."""
    if hours is not None and steps is not None:
        raise WorldError(f"steps: expected None beside hours={hours}, got {steps}; give one budget")
    if hours is not None and not 0 < hours < 1e5:
        raise WorldError(f"hours: expected above 0, got {hours}")
    if steps is not None and steps < len(STAGES):
        raise WorldError(f"steps: expected at least {len(STAGES)}, one a stage, got {steps}")


STAGE_NAMES = ("vae", "forced", "teacher", "distill")
"""Of a recipe's fields."""


def check_processes(recipe: Recipe, views: Sequence[Dataset]) -> None:
    """Raise WorldError unless the batches of every stage divide by the processes, and where an
    adversarial term might meet a network in shards, whose weights it cannot hold still.

    views: the data at each frame size.
    """
    strategy = recipe.distill.fit.strategy
    if recipe.distill.adversarial and world_size() > 1 and strategy != "ddp":
        raise WorldError(
            f"strategy: expected 'ddp' beside an adversarial term, got {strategy!r}; say "
            "strategy='ddp', or adversarial=0"
        )
    areas = [view.spec.frame_shape[0] * view.spec.frame_shape[1] for view in views]
    episodes = views[0].split("train").lengths
    for name in STAGE_NAMES:
        part = getattr(recipe, name)
        check_batch(f"{name}.fit.batch", part.fit.batch)
        chunks = part.clip_chunks if name == "vae" else part.targets + 1
        stills = part.stills if name != "vae" and views[0].spec.has_text else 0.0
        for bucket in buckets_of(areas, episodes, chunks, part.lengths, part.fit.batch, stills):
            shape = "{}x{}".format(*views[bucket.size].spec.frame_shape)
            where = f"{name}, clips of {bucket.chunks} chunks at {shape}"
            enough = divisible(part.fit.batch, bucket.cost, world_size())
            check_batch(where, bucket.batch, enough)


def check_lengths(lengths: Sequence[int]) -> tuple[int, ...]:
    """Chunks of clips, rising; raises WorldError for what is none, or given twice."""
    found = [*lengths] if isinstance(lengths, Sequence) and not isinstance(lengths, str) else [0]
    if any(type(n) is not int or n < 1 for n in found) or len(set(found)) < len(found):
        raise WorldError(
            f"lengths: expected whole numbers of chunks from 1 up, each once, got {lengths!r}; "
            "say lengths=(1, 4, 8)"
        )
    return tuple(sorted(found))


def check_data(data: Dataset) -> None:
    """Raise WorldError for data that nothing can be trained on."""
    if "train" not in data.splits or not len(data.split("train")):
        raise WorldError(
            f"data: expected a split 'train' with episodes in {data.spec.name}, got "
            f"{list(data.splits)}; record or add some"
        )
    height, width, _ = data.spec.frame_shape
    if height % DOWN or width % DOWN:
        raise WorldError(
            f"data: expected frames whose sides divide by {DOWN}, got {height} x {width} in "
            f"{data.spec.name}; open it with size=({-(-height // DOWN) * DOWN}, "
            f"{-(-width // DOWN) * DOWN})"
        )


def clip_chunks(lengths: Sequence[int], asked: int) -> int:
    """Chunks of a clip: `asked`, or the most that leave nine tenths of the data in use."""
    total = sum(lengths)
    for chunks in range(asked, 1, -1):
        if sum(n for n in lengths if n >= chunks) >= COVERED * total:
            return chunks
    return 1


def fit_to_data(
    data: Dataset, sizes: Sizes, recipe: Recipe, lengths: tuple[int, ...] = ()
) -> tuple[Sizes, Recipe]:
    """Sizes and recipe for this data: its chunk, clips as short as its episodes, its rewards.

    lengths: of shorter clips besides, which leave the longest as long as any episode allows.
    Raises WorldError where its episodes are too short for any clip.
    """
    train, asked = data.split("train"), max(recipe.distill.targets, recipe.forced.targets) + 1
    longest = min(asked, max(train.lengths)) if lengths else clip_chunks(train.lengths, asked)
    if longest < LEAST_CONTEXT + 2:
        raise WorldError(
            f"data: expected episodes of {LEAST_CONTEXT + 2} chunks ({data.spec.chunk} frames "
            f"each) or more in {data.spec.name}, got {sorted(train.lengths)[len(train) // 2]} in "
            "half of them; record longer ones, or with a smaller chunk"
        )
    sizes = replace(
        sizes,
        vae=replace(sizes.vae, chunk=data.spec.chunk),
        heads=replace(sizes.heads, largest=_largest_reward(train, sizes.heads.largest)),
        context=max(LEAST_CONTEXT, min(sizes.context, longest - 2)),
    )
    shorter = {
        name: replace(part, targets=min(part.targets, longest - 1), lengths=lengths,
                      **_dreamt(part, longest - 1))
        for name in ("forced", "teacher", "distill")
        for part in [getattr(recipe, name)]
    }  # fmt: skip
    vae = replace(recipe.vae, clip_chunks=min(recipe.vae.clip_chunks, longest), lengths=lengths)
    sizes = with_words(data, sizes)
    return sizes, replace(recipe, vae=vae, **shorter)


def _dreamt(part: object, targets: int) -> dict[str, object]:
    """No dreams of the context where clips are too short to hold one."""
    return {} if targets > DREAMT_FROM else {"dreamt": 0.0, "blind": None}


def _largest_reward(data: Dataset, default: float) -> float:
    """Symlog that the reward head must reach; its default where that suffices."""
    if not data.spec.has_rewards:
        return default
    most = 0.0
    for place in range(len(data)):
        rewards = data.episode(place).rewards
        if rewards is not None and len(rewards):
            most = max(most, float(abs(rewards).max()))
    needed = math.log1p(most) * 1.01
    if needed > MOST_REWARD:
        raise WorldError(
            f"rewards: expected up to {math.expm1(MOST_REWARD):.2g} a chunk, got {most:.3g} in "
            f"{data.spec.name}; scale them before recording"
        )
    return max(default, needed)


def needed_bytes(views: Sequence[Dataset], sizes: Sizes) -> int:
    """Bytes of latents and checkpoints of a run, about; views: the data at each frame size."""
    latents = 0
    for data in views:
        height, width, _ = data.spec.frame_shape
        latents += sum(data.lengths) * (height // DOWN) * (width // DOWN) * sizes.vae.channels * 2
    with torch.device("meta"):
        nets = [SpacetimeVAE(sizes.vae), new_dynamics(views[0], sizes)]
    weights = [sum(p.numel() * 4 for p in net.parameters()) for net in nets]
    return latents + 6 * weights[0] + 3 * 6 * weights[1]
