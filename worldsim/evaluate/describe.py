"""A fidelity card in words: the lines, error by horizon, confusion, trust, and where it is from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from worldsim.config import short
from worldsim.errors import WorldError, printable

from .report import table

HORIZONS = (1, 2, 4, 8, 16, 32, 60)


def describe(card: dict[str, Any]) -> str:
    """Everything a card says, as plain text; cards of earlier versions leave out what they lack.

    Raises WorldError for a card that is none. What it quotes moves no terminal's cursor.
    """
    try:
        figures = card.get("figures", {})
        parts = [table(card["lines"]), *_missing(card), *_horizons(figures), *_confusion(figures),
                 *_trust(figures)]  # fmt: skip
        text = "\n\n".join([*parts, "\n".join(_origin(card))])
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise WorldError(
            f"card: expected what worldsim eval writes, got {short(error, 100)}; measure it again"
        ) from error
    return "\n".join(map(printable, text.split("\n")))


def _missing(card: dict[str, Any]) -> Iterator[str]:
    named = {"not measured": "not_measured", "less than asked": "adapted"}
    rows = [f"{title}: {name}: {reason}" for title, key in named.items()
            for name, reason in card.get(key, {}).items()]  # fmt: skip
    if rows:
        yield "\n".join(rows)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text, all but the first column to the right."""
    wide = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(wide[0])]
        cells += [cell.rjust(w) for cell, w in zip(row[1:], wide[1:], strict=True)]
        lines.append("  ".join(cells))
    return "\n".join(lines)


def curves(figures: dict[str, Any]) -> dict[str, list[float]]:
    """PSNR by horizon of everything that was compared with what really followed."""
    found = figures["horizon"]
    named = {f"dream, {n} denoising steps": curve for n, curve in found["psnr"].items()}
    others = {
        "last frame, copied": "persistence",
        "VAE alone": "vae",
        "noise floor": "noise_floor",
    }
    return named | {name: found[key] for name, key in others.items() if found.get(key)}


def _horizons(figures: dict[str, Any]) -> Iterator[str]:
    if "horizon" not in figures:
        return
    found = curves(figures)
    last = len(next(iter(found.values())))
    steps = [h for h in HORIZONS if h <= last]
    rows = [["PSNR, dB, at step", *map(str, steps)]]
    rows += [[name, *(f"{c[h - 1]:.1f}" for h in steps)] for name, c in found.items()]
    yield columns(rows)


def _confusion(figures: dict[str, Any]) -> Iterator[str]:
    kinds = ("hits", "false", "missed", "quiet")
    rows = [["steps", "predicted, true", "predicted, false", "missed", "rightly not predicted"]]
    for name in (name for name in ("reward", "ends") if figures.get(name)):
        rows.append([name, *(f"{figures[name]['counts'][kind]:,}" for kind in kinds)])
    if len(rows) > 1:
        yield columns(rows)


def _trust(figures: dict[str, Any]) -> Iterator[str]:
    found = figures.get("trust")
    if not found:
        return
    rows = [["trust: of steps at probability", *(f"{i / 10:.1f}-" for i in range(10))]]
    for name, kind in found["kinds"].items():
        bins = kind["reliability"]
        cells = zip(bins["true"], bins["count"], strict=True)
        rows.append([f"{name}: tracked reality", *("" if not n else f"{t:.0%}" for t, n in cells)])
    yield columns(rows)
    along = found["along"]
    rows = [["at step", *map(str, along["step"])]]
    for name, key in (("mean trust", "trust"), ("tracked reality", "tracking")):
        rows.append([name, *(f"{x:.0%}" for x in along[key])])
    yield columns(rows)


def _origin(card: dict[str, Any]) -> Iterator[str]:
    data, source = card.get("data", {}), card.get("provenance", {})
    if data:
        yield f"data     {data['episodes']} {data['split']} episodes, sha256 {data['sha256']}"
    if source:
        hardware = source["hardware"]
        machine = hardware["gpu"] or f"{hardware['cpu']}, {hardware['threads']} threads"
        yield f"measured {source['date']} on {machine}, commit {source['commit']}"
        yield f"command  {source['command']}"
    if renewed := card.get("trust_provenance"):
        yield f"trust    {renewed['date']}, commit {renewed['commit']}, {renewed['command']}"
