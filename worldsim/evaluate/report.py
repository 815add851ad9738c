"""What a world's figures must at least be, line by line, and the table that shows it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from worldsim.files import atomic_path

Line = dict[str, Any]


def _line(figure: str, value: float | None, goal: float | None, unit: str = "", *,
          most: bool = False, above: bool = False, interval: Any = None, note: str = "",
          ) -> Line:  # fmt: skip
    """One line: passed if value >= goal (`most`: <=, `above`: >); None where there is no goal."""
    passed = None
    if goal is not None and value is not None:
        fits = value <= goal if most else value > goal if above else value >= goal
        passed = isfinite(value) and fits
    return {
        "figure": figure, "value": value, "unit": unit, "goal": goal, "most": most, "above": above,
        "interval": interval, "passed": passed, "note": note,
    }  # fmt: skip


def _with_interval(figure: str, found: dict[str, float], goal: float | None, unit: str = "",
                   *, most: bool = False, above: bool = False, note: str = "") -> Line:  # fmt: skip
    interval = [found["low"], found["high"]]
    return _line(figure, found["value"], goal, unit, most=most, above=above, interval=interval,
                 note=note)  # fmt: skip


def report(figures: dict[str, Any], speed: Sequence[dict[str, Any]] = ()) -> list[Line]:
    """All lines of a card's figures: first what a world must show, then all else.

    speed: rows of `measure_speed`. What could not be measured has no line; the card says why under
    `not_measured`.
    """
    own = figures["num_steps"]
    others = [n for n in figures["above_persistence"] if n != own]
    first = [_above(figures, own), _vae(figures), _actions(figures), _reward(figures),
             _speed(speed)]  # fmt: skip
    rest = [_everywhere(figures, own), *(_above(figures, n) for n in others),
            *(_everywhere(figures, n) for n in others), _moved(figures), _teacher(figures),
            _ends(figures), _states(figures), _trust(figures), _policies(figures),
            _sizes(figures), _long(figures)]  # fmt: skip
    return [line for part in (*first, *rest) for line in part]


def _above(figures: dict[str, Any], num_steps: str) -> Iterator[Line]:
    curves, found = figures["horizon"], figures["above_persistence"][num_steps]
    later = found["later_horizon"]
    name = f"dream above persistence, {num_steps} denoising step{'s' * (num_steps != '1')}"
    for title, key, at in (("next chunk", "next", 1), (f"horizon {later}", "later", later)):
        dream, still, vae = (c[at - 1] for c in (
            curves["psnr"][num_steps], curves["persistence"], curves["vae"]))  # fmt: skip
        note = f"dream {dream:.2f}, persistence {still:.2f}, VAE alone {vae:.2f} dB"
        if at == 1 or later > 1:
            yield _with_interval(f"{name}: {title}", found[key], 0, "dB", above=True, note=note)


def _everywhere(figures: dict[str, Any], num_steps: str) -> Iterator[Line]:
    found = figures["above_persistence"][num_steps]
    name = f"dream above persistence, {num_steps} denoising step{'s' * (num_steps != '1')}"
    last = len(found["by_horizon"])
    note = f"the worst of horizons 1-{last} is {found['worst_horizon']}"
    yield _with_interval(f"{name}: everywhere", found["worst"], 0, "dB", above=True, note=note)


def _vae(figures: dict[str, Any]) -> Iterator[Line]:
    found = figures["vae"]
    note = f"mean of chunks {found['chunk_psnr']:.2f} dB"
    yield _with_interval("VAE: test frames", found["psnr"], 30, "dB", note=note)


def _moved(figures: dict[str, Any]) -> Iterator[Line]:
    found = figures["vae"]
    if found["moved_psnr"] is not None:
        note = f"mean of chunks {found['moved_chunk_psnr']:.2f} dB"
        yield _with_interval("VAE: pixels that moved", found["moved_psnr"], 25, "dB", note=note)
    for name, place in found["landmarks"].items():
        note = f"95% below {place['q95']:.2f}, found {place['found']:.2%} of {place['count']}"
        yield _line(f"VAE: {name} is off by", place["mean"], None, "px", note=note)


def _teacher(figures: dict[str, Any]) -> Iterator[Line]:
    goals, found = {"1": 0.7, "2": 0.4}, figures["teacher"]
    for steps, gaps in (found["gaps"] if found else {}).items():
        for h, gap in gaps.items():
            name = f"teacher ({found['steps']} steps) minus {steps}-step student, horizon {h}"
            note = f"teacher {found['psnr'][int(h) - 1]:.2f} dB"
            yield _with_interval(name, gap, goals.get(steps), "dB", most=True, note=note)


def _actions(figures: dict[str, Any]) -> Iterator[Line]:
    for h, ratio in (figures["actions"] or {}).items():
        goal = 1.5 if h == "8" else None
        yield _with_interval(f"error, shuffled / true actions, horizon {h}", ratio, goal, "x")


def _reward(figures: dict[str, Any]) -> Iterator[Line]:
    reward = figures["reward"]
    if reward is None:
        return
    if reward["pearson"] is not None:
        name, note = f"reward over {reward['steps']} steps: Pearson", f"{reward['sums']} dreams"
        yield _with_interval(name, reward["pearson"], 0.8, note=note)
    rates = reward["f1"], reward["f1_at_zero"]
    if all(rate is not None and isfinite(rate) for rate in rates):  # some reward is positive
        note = f"predicted above {reward['threshold']:.2f}; above 0: {rates[1]:.2f}"
        yield _line("reward > 0: F1 a step", rates[0], None, note=note)


def _ends(figures: dict[str, Any]) -> Iterator[Line]:
    ends = figures["ends"]
    counts = ends["counts"]
    yield _line("false ends a step", ends["false_rate"], 0.001, most=True,
                note=f"{counts['false']} in {counts['false'] + counts['quiet']} steps")  # fmt: skip
    if ends["count"]:
        note = f"{ends['count']} real ends: {counts['hits']} predicted, {counts['missed']} missed"
        yield _line("end: F1 a step", ends["f1"], None, note=note)


def _states(figures: dict[str, Any]) -> Iterator[Line]:
    for name, by_horizon in (figures.get("states") or {}).items():
        for h, found in by_horizon.items():
            yield _with_interval(f"state {name}: R² after {h} steps", found, None)


def _speed(rows: Sequence[dict[str, Any]]) -> Iterator[Line]:
    for row in rows:
        note = f"{row['device']}, {row['threads']} threads, with pixels"
        yield _line(f"speed, batch {row['batch']}", row["steps_per_second"], None, "steps/s",
                    note=note)  # fmt: skip


def _trust(figures: dict[str, Any]) -> Iterator[Line]:
    safe, found = figures["safe_horizon"], figures["trust"]
    note = f"of {safe['of']}: up to there the gap to persistence is above 0 with 95% confidence"
    yield _line("safe horizon", safe["steps"], None, "steps", note=note)
    for name, kind in (found["kinds"] if found else {}).items():
        note = f"{kind['tracking']:.0%} of {kind['steps']} steps track reality"
        if name == "recorded" and safe["steps"] == 0:
            note += "; below persistence at the next chunk: not to be trusted"
        goal = 0.85 if 0.02 < kind["tracking"] < 0.98 else None  # else there is nothing to tell
        yield _line(f"trust, {name}: AUROC", kind["auroc"], goal, note=note)
        yield _line(f"trust, {name}: calibration error", kind["ece"], 0.05, most=True)


def _policies(figures: dict[str, Any]) -> Iterator[Line]:
    if found := figures["policies"]:
        name = "policies' returns, dream and reality: Pearson"
        note = f"{found['ranked']} policies, mean maximum rank violation {found['mmrv']:.0f}"
        yield _with_interval(name, found["pearson"], 0.78, note=note)


def _sizes(figures: dict[str, Any]) -> Iterator[Line]:
    for row in figures.get("sizes") or ():
        size = "{} x {}".format(*row["size"])
        name = f"at {size}{'' if row['trained'] else ', never trained on'}: horizon {row['steps']}"
        note = f"dream {row['psnr']:.2f}, persistence {row['persistence']:.2f} dB"
        yield _with_interval(f"dream above persistence {name}", row["above"], 0, "dB", above=True,
                             note=note)  # fmt: skip


def _long(figures: dict[str, Any]) -> Iterator[Line]:
    found = figures["long"]
    if found is None:
        return
    yield _line("long dreams: all finite", found["finite"], found["dreams"], "dreams")
    note = ", ".join(f"{k} {v['z_of_mean']:.1f}" for k, v in found["looks"].items())
    yield _line("long dreams: mean, contrast, colour: worst window", found["z_of_mean"], 3, "sigma",
                most=True, note=note)  # fmt: skip
    note = f"real windows {found['real_share_within']:.1%}"
    yield _line("long dreams: single windows within 3 sigma", found["share_within"], None,
                note=note)  # fmt: skip
    for name, share in found["landmarks"].items():
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
            sign = "<=" if line["most"] else ">" if line["above"] else ">="
            goal = f"{sign} {line['goal']:.3g}"
        rows.append((mark, line["figure"], value, goal, line["note"]))
    wide = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        "  ".join([*(x.ljust(w) for x, w in zip(row, wide, strict=False)), row[4]]).rstrip()
        for row in rows
    )


def write_card(card: dict[str, Any], path: Path) -> None:
    """Write a card as JSON, all or nothing; what is not a number becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
        text = json.dumps(finite(card), indent=1, allow_nan=False)
        part.write_text(text + "\n", encoding="utf-8")


def finite(value: Any) -> Any:
    """A tree of JSON values with None for every NaN and infinity, which JSON does not know."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not isfinite(value) else value
