"""The figures of `benchmarks.rollout_speed` as a table, as goals met or missed, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from worldsim.play import film as video

Found = dict[str, Any]
BEST = "compiled bfloat16"
LINE, NAME, BAR, VALUE = 16, 260, 220, 110  # pixels

AGAINST = (
    # name of the goal, peer, its mode, its passes (None: default), goals at batch 1 and 8
    ("DIAMOND, default", "diamond", "default", 3, (40.0, 100.0)),
    ("DIAMOND, best mode", "diamond", "best", 3, (15.0, 30.0)),
    ("DIAMOND, best mode, one pass each", "diamond", "best", 1, (6.0, 8.0)),
    ("Delta-IRIS, best type", "delta-iris", None, 1, (5.0, 8.0)),
)


def cost(found: Found, **what: Any) -> float | None:
    """CPU milliseconds of an env step of the cheapest row that is `what`; None without one."""
    rows = [r for r in found["rows"] if all(r[key] == value for key, value in what.items())]
    return min((r["cpu_ms_per_env_step"] for r in rows), default=None)


def goals(found: Found) -> list[dict[str, Any]]:
    """Every goal of the CPU with its figure and whether it is met; None where not measured."""
    lines: list[dict[str, Any]] = []

    def add(name: str, figure: float | None, goal: float, *, least: bool = True) -> None:
        met = None if figure is None else (figure >= goal if least else figure <= goal)
        lines.append({"name": name, "figure": figure, "goal": goal, "least": least, "met": met})

    passes = sorted({r["passes"] for r in found["rows"] if r["name"] == "worldsim"})
    for title, peer, mode, count, wanted in AGAINST:
        for batch, goal in zip((1, 8), wanted, strict=True):
            what = {"name": peer, "batch": batch, "passes": count} | (
                {"mode": mode} if mode else {}
            )
            theirs = cost(found, **what)
            for own in passes[:1] if count == 1 and peer == "diamond" else passes:
                ours = cost(found, name="worldsim", side=64, batch=batch, passes=own, pixels=True)
                ratio = None if theirs is None or ours is None else theirs / ours
                add(f"times {title}, batch {batch}, {own}-pass student", ratio, goal)
    for row in found["rows"]:
        if row["name"] == "worldsim" and row["mode"] == BEST and row["batch"] >= 8:
            seen = "pixels" if row["pixels"] else "latents"
            way = f"batch {row['batch']}, {row['passes']}-pass, {row['side']} x 64 {seen}"
            add(f"share of bf16 GEMM peak, {way}", row["share_of_gemm_peak"], 0.5)
    ages = found["horizon"]
    add(f"step {ages['late']} over step {ages['early']}", ages["ratio"], 1.02, least=False)
    add("bytes a state grows between them", ages["state_bytes_grown"], 0, least=False)
    for name, most in (("gymnasium", 100), ("vector", 150), ("torchrl", 200)):
        add(f"{name} face, us above the step", found["wrappers"][name], most, least=False)
    return lines


def table(found: Found) -> str:
    """Everything in Markdown: contenders, goals."""
    lines = [
        "| | mode | batch | passes | sees | CPU ms a step | steps a CPU s | p50, p99 ms | peak |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in found["rows"]:
        share = f"{r['share_of_gemm_peak']:.0%}" if "share_of_gemm_peak" in r else ""
        sees = f"{r['side']} x 64" if r["pixels"] else "latents"
        lines.append(
            f"| {r['name']} | {r['mode']} | {r['batch']} | {r['passes']} | {sees} "
            f"| {r['cpu_ms_per_env_step']:.2f} | {r['env_steps_per_cpu_second']:.0f} "
            f"| {r['cpu_ms_p50']:.1f}, {r['cpu_ms_p99']:.1f} | {share} |"
        )
    lines += ["", "| goal | figure | goal | met |", "|---|---|---|---|"]
    for g in found["goals"]:
        figure = "not measured" if g["figure"] is None else f"{g['figure']:.3g}"
        met = {None: "open", True: "yes", False: "**no**"}[g["met"]]
        lines.append(
            f"| {g['name']} | {figure} | {'>=' if g['least'] else '<='} {g['goal']:g} | {met} |"
        )
    return "\n".join(lines)


def picture(found: Found, folder: Path) -> None:
    """Bars of CPU time an env step into FOLDER/speed.png."""
    blocks = []
    for batch in sorted({r["batch"] for r in found["rows"]}):
        rows = [r for r in found["rows"] if r["batch"] == batch and r["side"] == 64 and r["pixels"]]
        rows.sort(key=lambda r: -r["cpu_ms_per_env_step"])
        if rows:
            blocks.append(_block(f"batch {batch}: CPU ms an env step, one thread", rows))
    folder.mkdir(parents=True, exist_ok=True)
    video.save_picture(folder / "speed.png", video.enlarge(video.below(blocks), 2))


def _block(head: str, rows: list[dict[str, Any]]) -> video.Picture:
    times = [r["cpu_ms_per_env_step"] for r in rows]
    lines = [video.label(head, NAME + BAR + VALUE + 2 * video.GAP, LINE)]
    for r, time in zip(rows, times, strict=True):
        strip = np.full((LINE, BAR, 3), video.PAPER, np.uint8)
        strip[3:-3] = video.bar(time / max(times), BAR, LINE - 6)
        name = f"{r['name']}, {r['mode']}, {r['passes']} pass{'es' * (r['passes'] > 1)}"
        parts = [video.label(name, NAME, LINE), strip, video.label(f"{time:.2f}", VALUE, LINE)]
        lines.append(video.beside(parts))
    return video.below(lines)
