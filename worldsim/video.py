"""Video from words, pictures and clips; and clips, or whole data sets, that show something else."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from worldsim.core import WorldError, WorldModel
from worldsim.data.dataset import Dataset, DatasetSpec, Episode
from worldsim.data.native import NativeDataset, NativeWriter, file_name
from worldsim.data.open import open_dataset
from worldsim.store.folder import load
from worldsim.world import edit as editing
from worldsim.world import generate as drawing
from worldsim.world.diffusion import DiffusionWorld


def generate(
    prompt: str | WorldModel | None = None,
    given: Sequence[tuple[Any, ...]] = (),
    *,
    world: str | Path | WorldModel | None = None,
    frames: int | None = None,
    seconds: float | None = None,
    size: tuple[int, int] | None = None,
    actions: Any = None,
    known: Any = None,
    seed: int = 0,
    num_steps: int | None = None,
    guidance: float | None = None,
) -> Tensor:
    """Video (frames, H, W, 3) uint8, on the host, of what is said and around what is given.

        worldsim.generate("a red car in a jungle", world="scenery", seconds=8)
        worldsim.generate(world, [(clip, 0), (picture, 96)], frames=98)

    Args:
        prompt: what is to be seen, in a world that was trained with captions; or the world itself,
            where nothing is said.
        given: `(media, start)` or `(media, start, strength)` each: a clip (m, H, W, 3) or a picture
            (H, W, 3), uint8, whose first frame is frame `start`, a multiple of the world's chunk.
            At strength 1 its frames come back unchanged; below, chunks are drawn anew from a noise
            level of 1 - strength, and resemble it. Alone at 0 it is continued; alone at the end it
            is led up to, backwards; two with a gap are joined; the same picture at both ends makes
            a loop. Where nothing is given the video begins with the words alone.
        world: a world, its folder or its name.
        frames: how long; or seconds.
        seconds: how long; or frames.
        size: (height, width), from 16 up; the world's own if None, and what its networks were
            trained for looks best. It is drawn in multiples of 8 and cut.
        actions: (ceil(frames / chunk), *action), of which each led into a chunk, in the world's own
            range; None where all are unknown. known: (...,) bool, which of them are; all if None.
        seed: names the randomness. num_steps: denoising steps a chunk, None for the world's own.
        guidance: from 1 up, how much more strongly than in the recording the words are followed.

    Raises WorldError for what does not fit, overlaps or lies beyond the end, for a prompt that is
    none or that the world takes none, and where a world in closed form is asked for more than to go
    on from the start.
    """
    if prompt is not None and not isinstance(prompt, str):
        if world is not None:
            raise WorldError("world: expected None, as the first argument is one, got two")
        prompt, world = None, prompt
    if world is None:
        raise WorldError('world: expected a world, its folder or its name; say world="..."')
    model = load(world) if isinstance(world, str | Path) else world
    return drawing.generate(
        model, given, frames=_count(model, frames, seconds), actions=actions, known=known,
        seed=seed, num_steps=num_steps, text=prompt, guidance=guidance, size=size,
    )  # fmt: skip


def _count(world: WorldModel, frames: int | None, seconds: float | None) -> int:
    if (frames is None) == (seconds is None):
        raise WorldError(f"frames, seconds: expected one of them, got {frames} and {seconds}")
    if frames is not None:
        return frames
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not math.isfinite(seconds) or not 0 < seconds < 1e6:  # type: ignore[arg-type]
        raise WorldError(f"seconds: expected a number above 0, got {seconds!r}")
    return max(1, round(seconds * world.spec.fps))  # type: ignore[operator]


def edit(
    clip: Any,
    text: str,
    *,
    world: str | Path | DiffusionWorld,
    strength: float = editing.STRENGTH,
    actions: Any = None,
    known: Any = None,
    guidance: float | None = None,
    seed: int = 0,
    num_steps: int | None = None,
) -> Tensor:
    """The clip with what the words say, (n, H, W, 3) uint8; see `worldsim.world.edit.edit`."""
    model = load(world) if isinstance(world, str | Path) else world
    return editing.edit(
        model, clip, text, strength=strength, actions=actions, known=known, guidance=guidance,
        seed=seed, num_steps=num_steps,
    )  # fmt: skip


def edit_dataset(
    data: Dataset | str | Path,
    text: str,
    *,
    world: str | Path | DiffusionWorld,
    out: str | Path,
    strength: float = editing.STRENGTH,
    guidance: float | None = None,
    seed: int = 0,
    keep_all: bool = False,
) -> NativeDataset:
    """A data set of the same episodes as they would look: frames change, and all else is kept.

    An episode is dropped where the world's own heads read other rewards or ends from it than from
    the recording, or where its recorded actions foretell it no better than those of another time
    (`worldsim.world.edit.agreement`). Typed again, it goes on where it was stopped.

    Args:
        data: episodes of the world's kind. text: what is to be seen, and their caption.
        world: one that was trained with captions. out: the folder to write.
        strength: see `worldsim.edit`, as guidance.
        guidance: see there. seed: names the randomness.
        keep_all: keep episodes that disagree, too.

    Raises WorldError, before anything is written, for what does not fit.
    """
    opened = open_dataset(data) if isinstance(data, str | Path) else data
    model = load(world) if isinstance(world, str | Path) else world
    model.prompt(text)
    spec = _edited_spec(opened.spec, model)
    writer, dropped, total = NativeWriter(Path(out), spec), [], 0
    told = f"{text!r}, strength {strength}, guidance {guidance}, seed {seed}, keep_all {keep_all}"
    told += f", of {opened.fingerprint()} by {model.spec.name}"
    with writer.copying(told, alone=True):
        for split in opened.splits:
            part = opened.split(split)
            for place in tqdm(range(len(part)), desc=f"editing {split}", file=sys.stderr):
                total += 1
                name = file_name(part.names[place])
                if writer.path(split, name).exists():
                    continue
                changed, agrees = edit_episode(
                    part.episode(place), text, model, strength=strength, guidance=guidance,
                    seed=seed + total,
                )  # fmt: skip
                if agrees.holds() or keep_all:
                    writer.write(split, replace(changed, name=name))
                else:
                    dropped.append(f"{part.names[place]}: {agrees}")
    if dropped:
        print(f"{len(dropped)} of {total} episodes dropped:", *dropped, sep="\n", file=sys.stderr)
    return writer.dataset()


def _edited_spec(spec: DatasetSpec, world: DiffusionWorld) -> DatasetSpec:
    for name in ("frame_shape", "chunk", "action"):
        expected, got = getattr(world.spec, name), getattr(spec, name)
        if expected != got:
            raise WorldError(
                f"data: {name}: expected {expected} of the world {world.spec.name}, got {got} in "
                f"{spec.name}; give episodes of the world's own kind"
            )
    return replace(spec, has_text=True)


@torch.no_grad()
def edit_episode(
    episode: Episode, text: str, world: DiffusionWorld, *, strength: float = editing.STRENGTH,
    guidance: float | None = None, seed: int = 0,
) -> tuple[Episode, editing.Agreement]:  # fmt: skip
    """The episode as it would look, and how far it is still the recorded one."""
    frames = torch.from_numpy(np.array(episode.frames[:]))
    shown = editing.edit(
        world, frames, text, strength=strength, actions=episode.actions, known=episode.known,
        guidance=guidance, seed=seed,
    )  # fmt: skip
    before, after = (editing.encoded(world, x) for x in (frames, shown))
    agrees = editing.agreement(world, before, after, episode.actions, episode.known)
    return replace(episode, frames=shown.numpy(), text=text, captions=()), agrees
