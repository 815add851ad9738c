"""Pictures for people: frames enlarged, labelled, side by side, as a sheet or a film."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from worldsim.data.encode import container_of, write_film
from worldsim.files import atomic_path

Picture = NDArray[np.uint8]
INK, PAPER = (235, 235, 235), (24, 24, 28)
GREEN, AMBER = (90, 200, 120), (235, 165, 60)
GAP = 4  # pixels between neighbouring pictures


def enlarge(picture: Picture, times: int) -> Picture:
    """Every pixel as a square of `times` x `times`: (..., H, W, 3), H and W grow."""
    if times < 1:
        raise ValueError(f"times: expected at least 1, got {times}")
    return picture.repeat(times, -3).repeat(times, -2)


def label(text: str, width: int, height: int = 14, ink: tuple[int, int, int] = INK) -> Picture:
    """A strip (height, width, 3) with `text` at its left; what does not fit is cut."""
    strip = Image.new("RGB", (width, height), PAPER)
    font = ImageFont.load_default(size=height - 3)
    ImageDraw.Draw(strip).text((3, 0), text, fill=ink, font=font)
    return np.asarray(strip)


def bar(share: float, width: int, height: int = 6, ink: tuple[int, int, int] = AMBER) -> Picture:
    """A strip (height, width, 3), coloured from the left for `share` (0 to 1) of its width."""
    strip = np.full((height, width, 3), PAPER, np.uint8)
    strip[:, : round(min(max(share, 0.0), 1.0) * width)] = ink
    return strip


def beside(pictures: Sequence[Picture]) -> Picture:
    """Pictures of one height in a row, a gap between them."""
    _check_side(pictures, 0, "height")
    gap = np.full((len(pictures[0]), GAP, 3), PAPER, np.uint8)
    return np.concatenate([x for p in pictures for x in (gap, p)][1:], 1)


def below(pictures: Sequence[Picture]) -> Picture:
    """Pictures of one width in a column, a gap between them."""
    _check_side(pictures, 1, "width")
    gap = np.full((GAP, pictures[0].shape[1], 3), PAPER, np.uint8)
    return np.concatenate([x for p in pictures for x in (gap, p)][1:])


def _check_side(pictures: Sequence[Picture], axis: int, name: str) -> None:
    if len(sides := sorted({p.shape[axis] for p in pictures})) != 1:
        raise ValueError(f"pictures: expected one or more of one {name}, got {sides}")


def sheet(rows: Sequence[Sequence[Picture]], names: Sequence[str], heads: Sequence[str],
          times: int = 2) -> Picture:  # fmt: skip
    """A contact sheet: rows of equal pictures, a name before each row, a head above each column."""
    if {len(row) for row in rows} != {len(heads)} or len(names) != len(rows):
        shape = f"{len(rows)} rows of {sorted({len(row) for row in rows})} pictures"
        raise ValueError(f"rows: expected {len(names)} rows of {len(heads)} pictures, got {shape}")
    height, width = rows[0][0].shape[0] * times, rows[0][0].shape[1] * times
    margin = 8 + 7 * max(len(name) for name in names)
    top = beside([label("", margin), *(label(head, width) for head in heads)])
    lines = []
    for name, row in zip(names, rows, strict=True):
        side = np.full((height, margin, 3), PAPER, np.uint8)
        side[height // 2 - 7 : height // 2 + 7] = label(name, margin)
        lines.append(beside([side, *(enlarge(p, times) for p in row)]))
    return below([top, *lines])


def save_picture(path: Path, picture: Picture) -> None:
    """Write a PNG, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
        Image.fromarray(picture).save(part, "PNG", optimize=True)


def save_film(path: Path, pictures: Iterable[Picture], fps: float, quality: float = 7) -> None:
    """Write a film (H.264) of pictures of one size; odd sides lose a pixel, as the format asks.

    quality: 0 to 10. Raises ValueError without a picture, OSError where the disk is full or the
    film cannot be encoded; then, or at a kill, what was there stays.
    """
    container, shown = container_of(path), iter(pictures)
    first = next(shown, None)
    if first is None:
        raise ValueError("pictures: expected at least one, got none")
    with atomic_path(path) as part:
        write_film(part, chain([first], shown), fps, container=container,
                   crf=round(36 - 2.2 * quality))  # fmt: skip
