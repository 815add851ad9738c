"""What is said of stretches of an episode: several wordings of one stretch lie side by side."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldsim.config import ConfigError, from_json, parse_json

from .dataset import Caption, Dataset, Episode, unfit


@dataclass(frozen=True)
class CaptionTable:
    """Captions of episodes laid end to end, M in all, by where they begin.

    Attributes:
        first, stop: (M,) int64, chunks [first, stop) that each speaks of.
        texts: what they say.
    """

    first: Tensor
    stop: Tensor
    texts: tuple[str, ...]

    def at(self, chunk: int) -> list[int]:
        """Which captions speak of a chunk."""
        longest = int((self.stop - self.first).amax()) if self.texts else 0
        low, high = torch.searchsorted(self.first, torch.tensor([chunk - longest, chunk + 1]))
        near = torch.arange(int(low), int(high))
        return near[self.stop[near] > chunk].tolist()


def table_of(data: Dataset) -> CaptionTable:
    """The captions of all episodes."""
    found, start = [], 0
    for place, length in enumerate(data.lengths):
        said = captions_of(data.episode(place))
        found += [(start + one.first, start + one.stop, one.text) for one in said]
        start += length
    found.sort()
    ends = torch.tensor([row[:2] for row in found], dtype=torch.int64).reshape(-1, 2)
    return CaptionTable(ends[:, 0].contiguous(), ends[:, 1], tuple(row[2] for row in found))


def merged(told: Sequence[tuple[str, ...]]) -> tuple[Caption, ...]:
    """Captions of what was told of each chunk, (N,) wordings each: one a wording and stretch."""
    found, first = [], 0
    for wordings, group in groupby(told):
        stop = first + len(list(group))
        found += [Caption(first=first, stop=stop, text=text) for text in wordings if text]
        first = stop
    return tuple(found)


def captions_of(episode: Episode) -> tuple[Caption, ...]:
    """All that is said of an episode; its `text` holds throughout."""
    whole = (Caption(first=0, stop=len(episode), text=episode.text),) if episode.text else ()
    return whole + episode.captions


def by_chunk(episode: Episode) -> list[str]:
    """One caption for each chunk: the first of the shortest stretch that it lies in."""
    found = [""] * len(episode)
    free = list(range(len(episode) + 1))  # of each chunk: the next one, or itself, without words
    for one in sorted(captions_of(episode), key=lambda one: one.stop - one.first):
        place = _next(free, one.first)
        while place < one.stop:
            found[place], free[place] = one.text, place + 1
            place = _next(free, place)
    return found


def _next(free: list[int], place: int) -> int:
    """The first free place from `place` on; the way there is shortened for the next who asks."""
    end = place
    while free[end] != end:
        end = free[end]
    while free[place] != end:
        free[place], place = end, free[place]
    return end


def check_captions(captions: Iterable[Caption], count: int, where: object) -> tuple[Caption, ...]:
    """Captions of an episode of `count` chunks; raises DatasetError for one that does not fit."""
    checked = tuple(captions)
    for one in checked:
        if not (0 <= one.first < one.stop <= count and one.text.strip()):
            expected = f"words about chunks from 0 to {count}"
            raise unfit(where, "captions", expected, f"{one.first} to {one.stop}: {one.text[:80]}")
    return checked


def pack(captions: Sequence[Caption]) -> NDArray[np.str_]:
    """As a string array that an archive holds."""
    rows = [[one.first, one.stop, one.text] for one in captions]
    return np.array(json.dumps(rows, ensure_ascii=False, separators=(",", ":")))


def unpack(text: str, path: Path) -> tuple[Caption, ...]:
    """Captions from an archive's string; raises DatasetError."""
    try:
        rows: Any = parse_json(text, "captions")
        if not isinstance(rows, list) or not all(isinstance(r, list) and len(r) == 3 for r in rows):
            raise ConfigError("captions: expected a list of [first, stop, text]")
        keys = ("first", "stop", "text")
        return tuple(from_json(Caption, dict(zip(keys, row, strict=True))) for row in rows)
    except ConfigError as error:
        raise unfit(path, "captions", "a list of [first, stop, text]", str(error)[:200]) from error
