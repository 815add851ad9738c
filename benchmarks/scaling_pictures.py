"""The scaling law as a picture, and dreams of small and large compute beside reality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor, log
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from worldsim.data import Dataset
from worldsim.evaluate.clips import Clips, Recorded, cut_clips
from worldsim.play import film as video
from worldsim.world.diffusion import DiffusionWorld
from worldsim.world.rollout import dream_frames

from .scaling_report import law_of, measures, of_kind, split

Record = dict[str, Any]
Point = tuple[float, float]
COLOURS = ((110, 170, 255), video.GREEN, (220, 130, 220), video.AMBER)
BAND, LINES = (74, 62, 44), (70, 70, 78)
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 460, 380, 66, 40, 34, 14  # pixels of a panel
STRIP = (0, 1, 2, 4, 8, 16, 24)  # steps of the film strip
FILM_STEPS, FILM_CLIPS = 50, 3


@dataclass(frozen=True)
class Axes:
    """A panel with logarithmic axes.

    Attributes:
        pen: draws on it.
        x, y: logarithms of the ends of the axes.
    """

    pen: ImageDraw.ImageDraw
    x: Point
    y: Point

    def at(self, x: float, y: float) -> Point:
        """Where a pair of values lies, pixels."""
        across = (log(x) - self.x[0]) / (self.x[1] - self.x[0])
        up = (log(y) - self.y[0]) / (self.y[1] - self.y[0])
        return (LEFT + across * (WIDTH - LEFT - RIGHT),
                HEIGHT - BOTTOM - up * (HEIGHT - BOTTOM - TOP))  # fmt: skip

    def line(self, points: list[Point], colour: tuple[int, int, int]) -> None:
        """A line through pairs of values."""
        self.pen.line([self.at(*p) for p in points], fill=colour, width=2)

    def mark(self, x: float, interval: Record, colour: tuple[int, int, int], size: int) -> None:
        """A dot with its interval."""
        (a, b), (_, low), (_, high) = (self.at(x, interval[k]) for k in ("value", "low", "high"))
        self.pen.line([(a, low), (a, high)], fill=colour, width=2)
        self.pen.ellipse([a - size, b - size, a + size, b + size], fill=colour)

    def text(self, where: Point, words: str, anchor: str = "la", size: int = 13) -> None:
        """Words at a place in pixels."""
        font = ImageFont.load_default(size=size)
        self.pen.text(where, words, fill=video.INK, font=font, anchor=anchor)


def law_picture(records: list[Record]) -> video.Picture:
    """One panel a measure: runs by width, the law fitted before the largest, and its prediction."""
    _, prediction, _ = split(records)
    return video.beside([panel(records, key) for key in measures(prediction)])


def panel(records: list[Record], key: str) -> video.Picture:
    """Error against compute. The band is where the law expects a run of the largest width."""
    seen, prediction, last = split(records)
    every, law = of_kind(records, "run"), law_of(seen, key)
    widths = sorted({r["width"] for r in every})
    low, high = min(r["flops"] for r in every) / 1.4, max(r["flops"] for r in every) * 1.6
    steps = np.geomspace(low, high, 60).tolist()
    band = [law.next_run(c, c / last["clip_flops"]) for c in steps]
    ends = [v for r in every for v in (r[key]["low"], r[key]["high"])]
    ends += [v for c, i in zip(steps, band, strict=True) if c >= last["flops"] / 4 for v in i]
    sheet = Image.new("RGB", (WIDTH, HEIGHT), video.PAPER)
    axes = Axes(ImageDraw.Draw(sheet), (log(low), log(high)),
                (log(min(ends)) - 0.05, log(max(ends)) + 0.05))  # fmt: skip
    outline = [(c, i.low) for c, i in zip(steps, band, strict=True)]
    outline += [(c, i.high) for c, i in zip(steps, band, strict=True)][::-1]
    axes.pen.polygon([axes.at(*p) for p in outline], fill=BAND)
    for width, colour in zip(widths, COLOURS, strict=False):
        own = [r for r in every if r["width"] == width]
        cost = own[0]["clip_flops"]
        curve = [(c, law.mean(c, c / cost).value) for c in steps]
        axes.line(curve, colour)
        for r in own:
            axes.mark(r["flops"], r[key], colour, 7 if r is last else 4)
    a, b = axes.at(last["flops"], prediction[key]["value"])
    axes.pen.rectangle([a - 9, b - 9, a + 9, b + 9], outline=video.INK, width=2)
    _frame(axes, key)
    names = [f"width {w}" for w in widths]
    for i, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        axes.pen.rectangle([WIDTH - 100, TOP + 6 + 17 * i, WIDTH - 90, TOP + 16 + 17 * i], colour)
        axes.text((WIDTH - 84, TOP + 3 + 17 * i), name)
    return np.asarray(sheet)


def _frame(axes: Axes, key: str) -> None:
    """Paper outside the axes, ticks and titles."""
    pen = axes.pen
    for box in ((0, 0, WIDTH, TOP), (0, 0, LEFT, HEIGHT), (0, HEIGHT - BOTTOM, WIDTH, HEIGHT),
                (WIDTH - RIGHT, 0, WIDTH, HEIGHT)):  # fmt: skip
        pen.rectangle(box, fill=video.PAPER)
    pen.rectangle([LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM], outline=LINES)
    middle = np.exp(sum(axes.y) / 2)
    for c in ticks(axes.x, (1, 3)):
        x, _ = axes.at(c, middle)
        pen.line([(x, HEIGHT - BOTTOM), (x, HEIGHT - BOTTOM + 5)], fill=video.INK)
        axes.text((x, HEIGHT - BOTTOM + 7), f"{c:.0e}".replace("e+", "e"), "ma", 11)
    for e in ticks(axes.y, (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        _, y = axes.at(np.exp(axes.x[0]), e)
        pen.line([(LEFT - 5, y), (LEFT, y)], fill=video.INK)
        axes.text((LEFT - 8, y), f"{e:.2g}", "rm", 11)
    name = "held-out loss" if key == "loss" else f"squared error of dreams, step {key[3:]}"
    axes.text((LEFT, 8), name, size=15)
    axes.text((WIDTH - RIGHT, HEIGHT - 2), "training FLOPs", "rd", 11)


def ticks(ends: Point, leading: tuple[float, ...]) -> list[float]:
    """DynaConfig numbers between two logarithms."""
    powers = range(floor(ends[0] / log(10)), ceil(ends[1] / log(10)) + 1)
    every = [n * 10.0**p for p in powers for n in leading]
    return [v for v in every if ends[0] <= log(v) <= ends[1]]


def save_dreams(worlds: Mapping[str, DiffusionWorld], data: Dataset, media: Path) -> None:
    """Write scaling.mp4 and scaling-strip.png: reality, and the same clips dreamt by each world."""
    clips = pick(data, next(iter(worlds.values())).spec.context)
    films = {"real": clips.frames}
    for name, world in worlds.items():
        state = clips.begin(world)
        films[name] = dream_frames(world, state, clips.actions).reshape(clips.frames.shape)
    video.save_picture(media / "scaling-strip.png", strip(clips, films))
    rate = data.spec.fps / data.spec.chunk
    video.save_film(media / "scaling.mp4", frames(films, rate), rate / 2)


def pick(data: Dataset, context: int) -> Clips:
    """The middle of the first validation episodes that are long enough, every eighth."""
    found = []
    data = data.split("val")
    for place in range(0, len(data), 8):
        episode = data.episode(place)
        first = (len(episode) - FILM_STEPS) // 2
        if first >= context and len(found) < FILM_CLIPS:
            recorded = Recorded.of(episode, data.spec.action)
            found.append(cut_clips(recorded, place, [first], context, FILM_STEPS))
    if not found:
        raise SystemExit(f"data: no validation episode has {FILM_STEPS} steps after {context}")
    return Clips.cat([c for c in found if c is not None])


def strip(clips: Clips, films: Mapping[str, Tensor]) -> video.Picture:
    """Rows: reality and each world, clip by clip; columns: steps."""
    rows, names = [], []
    for i in range(min(2, len(clips))):
        for name, frames in films.items():
            shown = [clips.context[i, -1] if t == 0 else frames[i, t - 1, -1] for t in STRIP]
            rows.append([x.numpy() for x in shown])
            names.append(name)
    return video.sheet(rows, names, [f"step {t}" if t else "last context" for t in STRIP])


def frames(films: Mapping[str, Tensor], rate: float) -> list[video.Picture]:
    """One picture a step: a column for reality and each world, a line for each clip."""
    first = next(iter(films.values()))
    width = first.shape[-2] * 3
    heads = video.beside([video.label(name, width) for name in films])
    pictures = []
    for t in range(first.shape[1]):
        lines = [
            video.beside([video.enlarge(x[i, t, -1].numpy(), 3) for x in films.values()])
            for i in range(len(first))
        ]
        when = video.label(f"{(t + 1) / rate:.2f} s after the last real frame", heads.shape[1])
        pictures.append(video.below([heads, *lines, when]))
    return pictures
