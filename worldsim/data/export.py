"""Datasets written out: our own format, LeRobot v3, or a folder of films with tables."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from worldsim.files import atomic_folder, atomic_path

from .captions import by_chunk
from .columns import Columns, columns_of
from .dataset import Dataset, DatasetSpec, Episode, unfit
from .encode import write_film
from .native import NativeDataset, NativeWriter, file_name

FRAMES = 64  # decoded at once
CRF = 10  # x264: hardly visible loss


def export(
    data: Dataset, folder: Path | str,
    format: Literal["native", "lerobot", "video"] = "native",
) -> Path:  # fmt: skip
    """Write every episode of `data` into `folder`, and return it.

    "native" keeps everything, splits and names too; "lerobot" is v3.0 with one camera; "video" is
    a film an episode, beside a CSV of actions and rewards a frame. The last two hold an action for
    each frame of its chunk, compress frames with H.264, and are there whole or not at all; "native"
    keeps the episodes that were finished, and goes on from there.
    Raises DatasetError where the folder holds something else.
    """
    folder = Path(folder)
    if format == "native":
        to_native(data, folder)
    elif folder.exists() and any(folder.iterdir()):
        raise unfit(folder, "folder", "a new or an empty one", "files in it", "choose another")
    elif format == "lerobot":
        from .lerobot_export import to_lerobot  # pyarrow is an extra

        with atomic_folder(folder) as part:
            to_lerobot(data, part)
    elif format == "video":
        with atomic_folder(folder) as part:
            to_video(data, part)
    else:
        raise unfit(folder, "format", "native, lerobot or video", repr(format), "choose one")
    return folder


def to_native(data: Dataset, folder: Path) -> NativeDataset:
    """Copy `data` into our own format, an episode at a time; what is there already is kept."""
    writer = NativeWriter(folder, data.spec)
    with writer.copying(f"a copy of {data.spec.name}, {data.fingerprint()}"):
        for split in data.splits:
            part = data.split(split)
            for place in tqdm(range(len(part)), desc=f"import {split}"):
                name = file_name(part.names[place])
                if not writer.path(split, name).exists():
                    writer.write(split, replace(part.episode(place), name=name))
    return writer.dataset()


def to_video(data: Dataset, folder: Path) -> None:
    """Write a film of each episode, and a table where it has actions, rewards or text."""
    folder.mkdir(parents=True, exist_ok=True)
    for place in tqdm(range(len(data)), desc="films"):
        episode = data.episode(place)
        path = folder / f"{file_name(Path(episode.name).with_suffix('').as_posix())}.mp4"
        with atomic_path(path) as part:
            write_film(part, frames_of(episode), episode.fps, crf=CRF)
        if rows := _rows(episode, data.spec):
            with (
                atomic_path(path.with_name(f"{path.name}.csv")) as part,
                part.open("w", newline="", encoding="utf-8") as file,
            ):
                csv.writer(file).writerows(rows)


def frames_of(episode: Episode) -> Iterator[NDArray[np.uint8]]:
    """Each frame, decoded some at a time."""
    for first in range(0, len(episode.frames), FRAMES):
        yield from episode.frames[first : first + FRAMES]


def by_frame(episode: Episode, spec: DatasetSpec) -> Columns:
    """The columns of a chunk for each of its frames: its reward is of its last frame."""
    c, columns = episode.chunk, columns_of(episode, spec.action)
    held = {n: v.repeat_interleave(c, 0) for n, v in vars(columns).items()}
    last = (np.arange(len(held["rewards"])) + 1) % c == 0
    held["rewards"][~last] = 0
    held["continue_prob"][:-1] = 1
    return Columns(**held)


def _rows(episode: Episode, spec: DatasetSpec) -> list[list[object]]:
    """Rows of the table, head first; none where it would say nothing."""
    held, parts = by_frame(episode, spec), {}
    if episode.actions is not None:
        flat = held.actions.reshape(len(held.actions), math.prod(spec.action.shape)).tolist()
        names = [f"action_{i}" for i in range(len(flat[0]))] if spec.action.shape else ["action"]
        known = held.known.tolist()
        for i, name in enumerate(names):
            parts[name] = [row[i] if k else "" for row, k in zip(flat, known, strict=True)]
    if episode.rewards is not None:
        parts["reward"] = held.rewards.tolist()
    if any(texts := by_chunk(episode)):
        parts["text"] = [text for text in texts for _ in range(episode.chunk)]
    return [list(parts), *map(list, zip(*parts.values(), strict=True))] if parts else []
