"""What `benchmarks.trust` found as a picture: whether trust came true, and what error it foretold.

python -m benchmarks.trust_pictures
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image, ImageDraw, ImageFont

from worldsim.config import read_json
from worldsim.flags import refuse_repeated
from worldsim.play import film as video

from . import RESULTS

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 460, 380, 60, 44, 34, 14  # pixels of a panel
LINES = (70, 70, 78)
COLOURS = (
    (110, 170, 255), video.GREEN, (220, 130, 220), video.AMBER, (235, 95, 95), video.INK,
)  # fmt: skip
LEAST = 20  # steps that a bin needs to be drawn
WORST, BEST = 10.0, 40.0  # dB at the ends of the axis


@dataclass(frozen=True)
class Panel:
    """A sheet with linear axes: across from 0 to 1, up from `low` to `high`."""

    pen: ImageDraw.ImageDraw
    low: float
    high: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a pair of values lies, pixels."""
        up = (min(max(y, self.low), self.high) - self.low) / (self.high - self.low)
        return (LEFT + x * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - BOTTOM - TOP))

    def line(self, points: list[tuple[float, float]], colour: tuple[int, int, int]) -> None:
        """A line through pairs of values."""
        self.pen.line([self.at(*p) for p in points], fill=colour, width=2)

    def dot(self, x: float, y: float, colour: tuple[int, int, int], size: float) -> None:
        """A dot of a radius in pixels."""
        a, b = self.at(x, y)
        self.pen.ellipse([a - size, b - size, a + size, b + size], fill=colour)

    def text(
        self, where: tuple[float, float], words: str, anchor: str = "la", size: int = 13
    ) -> None:
        """Words at a place in pixels."""
        font = ImageFont.load_default(size=size)
        self.pen.text(where, words, fill=video.INK, font=font, anchor=anchor)


def panel(
    found: dict[str, Any], figure: str, ends: tuple[float, float], titles: tuple[str, str],
    tell: Callable[[float], str], step: float,
) -> tuple[Image.Image, Panel]:  # fmt: skip
    """A line a kind of starts, through the bins of trust; larger dots stand for more steps."""
    sheet = Image.new("RGB", (WIDTH, HEIGHT), video.PAPER)
    axes = Panel(ImageDraw.Draw(sheet), *ends)
    axes.pen.rectangle([LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM], outline=LINES)
    for x in np.linspace(0, 1, 6):
        axes.text((axes.at(x, ends[0])[0], HEIGHT - BOTTOM + 6), f"{x:.1f}", "ma", 11)
    for y in np.arange(ends[0], ends[1] + step / 2, step):
        axes.text((LEFT - 7, axes.at(0, y)[1]), tell(y), "rm", 11)
    axes.text((LEFT, 8), titles[0], size=15)
    axes.text((WIDTH - RIGHT, HEIGHT - 4), titles[1], "rd", 12)
    for kind, colour in zip(found["kinds"].values(), COLOURS, strict=False):
        bins = kind["reliability"]
        cells = zip(bins["predicted"], bins[figure], bins["count"], strict=True)
        points = [(x, y, n) for x, y, n in cells if n >= LEAST]
        axes.line([(x, y) for x, y, _ in points], colour)
        for x, y, n in points:
            axes.dot(x, y, colour, 2 + 6 * (n / kind["steps"]) ** 0.5)
    return sheet, axes


def drawn(results: dict[str, Any]) -> video.Picture:
    """Both panels, of every step."""
    found = results["every step"]
    came, axes = panel(
        found, "true", (0.0, 1.0), ("share that tracked reality", "trust that was said"),
        lambda y: f"{y:.0%}", 0.2,
    )  # fmt: skip
    axes.line([(0, 0), (1, 1)], LINES)
    for i, (name, colour) in enumerate(zip(found["kinds"], COLOURS, strict=False)):
        y = TOP + 8 + 17 * i
        axes.pen.rectangle([LEFT + 10, y, LEFT + 20, y + 10], colour)
        axes.text((LEFT + 26, y - 3), name)
    error, axes = panel(
        found, "psnr", (WORST, BEST), ("likeness to what really followed, dB",
                                       "trust that was said"),
        lambda y: f"{y:.0f}", 5.0,
    )  # fmt: skip
    axes.line([(0, found["bound_psnr"]), (1, found["bound_psnr"])], LINES)
    x, y = axes.at(1, found["bound_psnr"])
    axes.text((x - 4, y - 2), "bound", "rd", 11)
    return video.beside([np.asarray(came), np.asarray(error)])


def main(
    results: Path = RESULTS / "trust-car-racing.json", out: Path = Path("docs/media/trust.png")
) -> None:
    """Draw what was measured; nothing is computed anew.

    Args:
        results: what `python -m benchmarks.trust` wrote.
        out: the picture.
    """
    video.save_picture(out, drawn(read_json(results)))
    print(f"wrote {out}")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, args=refuse_repeated(sys.argv[1:]))
