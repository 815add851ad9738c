"""A world's fidelity card as a picture: error by horizon, and whether trust came true.

    python -m benchmarks.card_pictures --world car-racing --out docs/media

Reads the card in the world's folder; nothing is measured.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import tyro

import worldsim
from worldsim.core import WorldError
from worldsim.evaluate.describe import HORIZONS, curves
from worldsim.flags import refuse_repeated
from worldsim.play import film as video

LINE, NAME, BAR, VALUE = 16, 170, 120, 130  # pixels
FLOOR, TOP = 10.0, 48.0  # dB at which bars begin and end


def main(world: str = "car-racing", out: Path = Path("docs/media")) -> None:
    """Draw a world's card.

    Args:
        world: a bundled world's name or a folder.
        out: folder for the picture.
    """
    card = worldsim.load(world).card
    if card is None:
        raise WorldError(f"{world}: no card to draw; worldsim eval --world {world}")
    figures = card["figures"]
    pictures = {"card-horizons.png": horizons(figures)}
    if figures.get("trust"):
        pictures["card-trust.png"] = reliability(figures["trust"]["kinds"])
    for name, picture in pictures.items():
        video.save_picture(out / name, video.enlarge(picture, 2))
    print(f"wrote {', '.join(pictures)} into {out}")


def horizons(figures: dict[str, Any]) -> video.Picture:
    """PSNR by horizon: a block a curve, a line a horizon."""
    columns = []
    for name, curve in curves(figures).items():
        steps = [h for h in HORIZONS if h <= len(curve)]
        cells = [(curve[h - 1], f"step {h}: {curve[h - 1]:.1f} dB") for h in steps]
        columns.append(column(name, [((v - FLOOR) / (TOP - FLOOR), text) for v, text in cells]))
    return video.beside(columns)


def reliability(kinds: dict[str, Any]) -> video.Picture:
    """Reliability diagrams: of steps that said a probability, the share that tracked reality."""
    columns = []
    for name, kind in kinds.items():
        found, cells = kind["reliability"], []
        for i, (true, count) in enumerate(zip(found["true"], found["count"], strict=True)):
            label = f"{i / 10:.1f}-{(i + 1) / 10:.1f}"
            cells.append((true, f"{label}: {true:.0%}") if count else (0.0, f"{label}: never"))
        head = f"{name}: AUROC {kind['auroc'] or 0:.2f}, ECE {kind['ece']:.3f}"
        columns.append(column(head, cells))
    return video.beside(columns)


def column(head: str, cells: list[tuple[float, str]]) -> video.Picture:
    """Bars of shares of 0..1 with their texts."""
    lines = [video.label(head, BAR + VALUE + video.GAP, LINE)]
    for share, text in cells:
        strip = np.full((LINE, BAR, 3), video.PAPER, np.uint8)
        strip[3:-3] = video.bar(min(max(share, 0.0), 1.0), BAR, LINE - 6)
        lines.append(video.beside([strip, video.label(text, VALUE, LINE)]))
    return video.below(lines)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, args=refuse_repeated(sys.argv[1:]))
