"""What a world's figures must at least be, line by line, and the table that shows it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any

Line = dict[str, Any]


def _line(figure: str, value: float | None, goal: float | None, unit: str = "", *,
          most: bool = False, interval: Any = None, note: str = "") -> Line:  # fmt: skip
    """One line: passed if value >= goal (with `most`: <=); None where there is nothing to judge."""
    passed = None
    if goal is not None and value is not None:
        passed = isfinite(value) and (value <= goal if most else value >= goal)
    return {
        "figure": figure, "value": value, "unit": unit, "goal": goal, "most": most,
        "interval": interval, "passed": passed, "note": note,
    }  # fmt: skip


def _with_interval(figure: str, found: dict[str, float], goal: float | None, unit: str = "",
                   *, most: bool = False, note: str = "") -> Line:  # fmt: skip
    interval = [found["low"], found["high"]]
    return _line(figure, found["value"], goal, unit, most=most, interval=interval, note=note)


def judge(figures: dict[str, Any]) -> list[Line]:
    """All lines of a card's figures, in the order in which they are read."""
    return [*_vae(figures["vae"]), *_horizons(figures), *_teacher(figures["teacher"]),
            *_actions(figures["actions"]), *_heads(figures), *_trust(figures),
            *_policies(figures), *_long(figures["long"])]  # fmt: skip


def _vae(found: dict[str, Any]) -> Iterator[Line]:
    note = f"mean of chunks {found['chunk_psnr']:.2f} dB"
    yield _with_interval("VAE: test frames", found["psnr"], 30, "dB", note=note)
    note = f"mean of chunks {found['moved_chunk_psnr']:.2f} dB"
    yield _with_interval("VAE: pixels that moved", found["moved_psnr"], 25, "dB", note=note)
    for name in ("edge", "car"):
        if place := found[name]:
            words = {"edge": "road edge is off by", "car": "car is off by"}[name]
            note = f"95% below {place['q95']:.2f}, found {place['found']:.2%} of {place['count']}"
            yield _line(f"VAE: {words}", place["mean"], None, "px", note=note)


def _horizons(figures: dict[str, Any]) -> Iterator[Line]:
    curves = figures["horizon"]
    for steps, found in figures["above_persistence"].items():
        dream, still, floor = (c[0] for c in (curves["psnr"][steps], curves["persistence"],
                                              curves["vae"]))  # fmt: skip
        note = f"dream {dream:.2f}, persistence {still:.2f}, VAE alone {floor:.2f} dB"
        name = f"{steps}-step dream above persistence"
        yield _with_interval(f"{name}: next chunk", found["next"], 3, "dB", note=note)
        last = len(found["by_horizon"])
        note = f"the worst of horizons 1-{last} is {found['worst_horizon']}"
        yield _with_interval(f"{name}: everywhere", found["worst"], 1e-9, "dB", note=note)


def _teacher(found: dict[str, Any] | None) -> Iterator[Line]:
    goals = {"1": 0.7, "2": 0.4}
    if found is None:
        yield _line("teacher minus student", None, None, note="not measured: name a teacher")
        return
    for steps, gaps in found["gaps"].items():
        for h, gap in gaps.items():
            name = f"teacher ({found['steps']} steps) minus {steps}-step student, horizon {h}"
            note = f"teacher {found['psnr'][int(h) - 1]:.2f} dB"
            yield _with_interval(name, gap, goals.get(steps), "dB", most=True, note=note)


def _actions(found: dict[str, Any]) -> Iterator[Line]:
    for h, ratio in found.items():
        goal = 1.5 if h == "8" else None
        yield _with_interval(f"error, shuffled / true actions, horizon {h}", ratio, goal, "x")


def _heads(figures: dict[str, Any]) -> Iterator[Line]:
    reward, ends = figures["reward"], figures["ends"]
    name = f"reward over {reward['steps']} steps: Pearson"
    note = f"{reward['sums']} dreams"
    yield _with_interval(name, reward["pearson"], 0.8, note=note)
    note = f"said above {reward['threshold']:.2f}; above 0: {reward['f1_at_zero']:.2f}"
    yield _line("reward > 0: F1 a step", reward["f1"], None, note=note)
    counts = ends["counts"]
    yield _line("false ends a step", ends["false_rate"], 0.001, most=True,
                note=f"{counts['false']} in {counts['false'] + counts['quiet']} steps")  # fmt: skip
    note = f"{ends['count']} real ends: {counts['hits']} said, {counts['missed']} missed"
    yield _line("end: F1 a step", ends["f1"], None, note=note)


def _trust(figures: dict[str, Any]) -> Iterator[Line]:
    safe, found = figures["safe_horizon"], figures["trust"]
    note = f"of {safe['of']}: up to there the gap to persistence is above 0 with 95% confidence"
    yield _line("safe horizon", safe["steps"], None, "steps", note=note)
    if found is None:
        yield _line("trust", None, None, note="unknown: worldsim calibrate")
        return
    for name, kind in found["kinds"].items():
        note = f"{kind['tracking']:.0%} of {kind['steps']} steps track reality"
        goal = 0.85 if 0.02 < kind["tracking"] < 0.98 else None  # else there is nothing to tell
        yield _line(f"trust, {name}: AUROC", kind["auroc"], goal, note=note)
        yield _line(f"trust, {name}: calibration error", kind["ece"], 0.05, most=True)


def _policies(figures: dict[str, Any]) -> Iterator[Line]:
    found, name = figures["policies"], "policies' returns, dream and reality: Pearson"
    if found is None:
        yield _line(name, None, 0.78, note="not measured: python -m benchmarks.transfer")
    else:
        note = f"{found['ranked']} policies, mean maximum rank violation {found['mmrv']:.0f}"
        yield _with_interval(name, found["pearson"], 0.78, note=note)


def _long(found: dict[str, Any]) -> Iterator[Line]:
    yield _line("long dreams: all finite", found["finite"], found["dreams"], "dreams")
    note = ", ".join(f"{k} {v['z_of_mean']:.1f}" for k, v in found["looks"].items())
    yield _line("long dreams: mean, contrast, colour: worst window", found["z_of_mean"], 3, "sigma",
                most=True, note=note)  # fmt: skip
    note = f"real windows {found['real_share_within']:.1%}"
    yield _line("long dreams: single windows within 3 sigma", found["share_within"], None,
                note=note)  # fmt: skip
    for name in ("road", "car"):
        if share := found[name]:
            texts = {k: "none" if v is None else f"{v:.1%}" for k, v in share.items()}
            note = (f"last window {texts['by_sight_last']}, real {texts['real']}; under recorded "
                    f"actions {texts['recorded']}, real {texts['recorded_real']}")  # fmt: skip
            goal = 0.95 * (share["real"] or 0)
            yield _line(f"long dreams: {name} in sight", share["by_sight"], goal, note=note)


def table(lines: list[Line]) -> str:
    """The lines as plain text, a mark before each: + passed, - failed, blank not judged."""
    rows = []
    for line in lines:
        mark = {True: "+", False: "-", None: " "}[line["passed"]]
        value = "" if line["value"] is None else f"{line['value']:.4g} {line['unit']}".strip()
        if line["interval"] and None not in line["interval"]:
            value += " [{:.3g}, {:.3g}]".format(*line["interval"])
        goal = ""
        if line["goal"] is not None:
            goal = f"{'<=' if line['most'] else '>='} {line['goal']:.3g}"
        rows.append((mark, line["figure"], value, goal, line["note"]))
    wide = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        "  ".join([*(x.ljust(w) for x, w in zip(row, wide, strict=False)), row[4]]).rstrip()
        for row in rows
    )


def write_card(card: dict[str, Any], path: Path) -> None:
    """Write a card as JSON, all or nothing; what is not a number becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.tmp")
    part.write_text(json.dumps(card, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(part, path)


def finite(value: Any) -> Any:
    """A tree of JSON values with None for every NaN and infinity, which JSON does not know."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not isfinite(value) else value
