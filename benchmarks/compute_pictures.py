"""What steps, latents, the cache and the batch do to the cost of a step and to the crossover.

    python -m benchmarks.compute_pictures --out docs/media

Writes compute.png and prints the presets' costs as a table. Everything is computed from
`worldsim.costs.flops`, nothing is measured.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from math import log
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro

from worldsim.core import ActionSpec
from worldsim.costs.devices import DEVICES, crossover
from worldsim.costs.flops import Networks, stages
from worldsim.costs.report import Use, span, step_seconds
from worldsim.flags import refuse_repeated
from worldsim.play import film as video
from worldsim.presets import SIZES
from worldsim.train.recipe import Recipe

ACTION = ActionSpec(kind="continuous", low=(-1.0, 0.0, 0.0), high=(1.0, 1.0, 1.0))
BATCHES = (1, 4, 16, 256)
LINE, NAME, BAR, VALUE = 16, 190, 90, 66  # pixels


class Way(NamedTuple):
    """A way to step."""

    name: str
    passes: int
    pixels: bool = True
    cached: bool = True


WAYS = (
    Way("250 passes, no cache", 250, cached=False),
    Way("250 passes", 250),
    Way("32 passes: our teacher", 32),
    Way("4 passes", 4),
    Way("2 passes: our student", 2),
    Way("1 pass, no cache", 1, cached=False),
    Way("1 pass", 1),
    Way("1 pass, latents only", 1, pixels=False),
)


def main(
    presets: tuple[str, ...] = ("small", "xl"),
    frame: tuple[int, int] = (56, 64),
    device: str = "h200",
    out: Path = Path("docs/media"),
) -> None:
    """Draw the cost of a step.

    Args:
        presets: one block of the picture each.
        frame: (height, width) in pixels.
        device: whose time is shown.
        out: folder for the picture.
    """
    blocks = [block(preset, frame, device) for preset in presets]
    video.save_picture(out / "compute.png", video.enlarge(video.below(blocks), 2))
    print(preset_table(frame))
    print(f"wrote compute.png into {out}")


def costs(networks: Networks, way: Way) -> tuple[float, float]:
    """FLOPs of an env step, and env steps until stepping has cost more than training."""
    step = sum(networks.step(way.passes, pixels=way.pixels, cached=way.cached).values())
    training = sum(stage.flops for stage in stages(networks, Recipe()))
    return step, crossover(training, step)


def seconds(networks: Networks, way: Way, batch: int, device: str) -> float:
    """Least device time of an env step; the account knows no stepping without a cache."""
    use = Use(passes=way.passes, pixels=way.pixels, batch=batch)
    return step_seconds(networks, use, DEVICES[device])


def block(preset: str, frame: tuple[int, int], device: str) -> video.Picture:
    """One preset: a line each way, a column each for FLOPs, crossover, and time by batch."""
    networks = Networks(SIZES[preset](), frame, ACTION)
    found = [costs(networks, way) for way in WAYS]
    columns = [
        column("FLOPs an env step", [(c[0], f"{c[0]:.2g}") for c in found]),
        column("crossover, env steps", [(c[1], f"{c[1]:.2g}") for c in found]),
    ]
    times = [[seconds(networks, w, b, device) if w.cached else None for b in BATCHES] for w in WAYS]
    ends = bounds([t for row in times for t in row if t is not None])
    for i, batch in enumerate(BATCHES):
        cells = [(row[i], "" if row[i] is None else span(row[i] or 0)) for row in times]
        columns.append(column(f"{device}, batch {batch}", cells, ends))
    names = [video.label(text, NAME, LINE) for text in (preset, *(way.name for way in WAYS))]
    return video.beside([video.below(names), *columns])


def bounds(values: list[float]) -> tuple[float, float]:
    """Where a column's bars begin (half a decade below the least) and end, logarithms."""
    return log(min(values)) - 1.15, log(max(values))


def column(
    head: str,
    cells: list[tuple[float | None, str]],
    ends: tuple[float, float] | None = None,
) -> video.Picture:
    """Bars on a logarithmic scale with their values; None leaves a line empty."""
    low, high = ends or bounds([value for value, _ in cells if value is not None])
    lines = [video.label(head, BAR + VALUE + video.GAP, LINE)]
    for value, text in cells:
        share = 0.0 if value is None else (log(value) - low) / (high - low)
        strip = np.full((LINE, BAR, 3), video.PAPER, np.uint8)
        strip[3:-3] = video.bar(share, BAR, LINE - 6)
        lines.append(video.beside([strip, video.label(text, VALUE, LINE)]))
    return video.below(lines)


def preset_table(frame: tuple[int, int], presets: Iterable[str] = SIZES) -> str:
    """Costs of presets under the bundled world's recipe, in Markdown."""
    lines = [
        "| preset | DiT | VAE | env step | without pixels | training | crossover | env, bytes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in presets:
        networks = Networks(SIZES[name](), frame, ACTION)
        count = networks.parameters
        pixels, steps = costs(networks, WAYS[-2])
        latent, _ = costs(networks, WAYS[-1])
        training = sum(stage.flops for stage in stages(networks, Recipe()))
        vae = count["encoder"] + count["decoder"]
        lines.append(
            f"| {name} | {count['dit'] / 1e6:.2f}M | {vae / 1e6:.2f}M | {pixels:.3g} "
            f"| {latent:.3g} | {training:.3g} | {steps:,.0f} | {networks.state_bytes:,} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, args=refuse_repeated(sys.argv[1:]))
