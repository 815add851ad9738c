"""What `benchmarks.transfer` found, as figures and as a table for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldsim.agents.training import Spent, read_agent
from worldsim.benchmarks.transfer_policies import Contestant
from worldsim.config import read_json_lines
from worldsim.core import WorldError
from worldsim.metrics import Interval, bootstrap, pearson, weighted_mean

MARKS = ("<!-- transfer: begin -->", "<!-- transfer: end -->")


def mmrv(dream: list[float], real: list[float]) -> float:
    """Mean maximum rank violation (Li et al. 2024, SIMPLER, 2405.05941, Eq. 1), in real returns:
    how much worse, at most, the one is that the dream puts before another; 0 if none is misplaced.
    """
    a, b = np.asarray(dream), np.asarray(real)
    wrong = (a[:, None] < a[None]) != (b[:, None] < b[None])
    return float((np.abs(b[:, None] - b[None]) * wrong).max(1).mean())


def read(path: Path) -> list[dict[str, Any]]:
    """Lines written so far; a torn last line is left out."""
    return list(read_json_lines(path, 2**28))


def interval(values: list[float]) -> Interval:
    """The mean and its 95% bootstrap interval over tracks."""
    x = torch.tensor(values)
    return bootstrap(lambda w: weighted_mean(x, w), torch.arange(len(x)))


def row_of(who: Contestant, lines: list[dict[str, Any]], recorded: int) -> dict[str, Any]:
    """One policy's figures.

    recorded: real steps that its world or its own training was recorded from.
    """
    mine = [line for line in lines if line["policy"] == who.name]
    real = [x["return"] for x in mine if x["where"] == "real"]
    dream = [x["return"] for x in mine if x["where"] == "dream"]
    decided = [x["decision"] for x in mine if "decision" in x]
    spent = Spent() if who.agent is None else read_agent(Path(who.agent)).spent
    row: dict[str, Any] = {
        "tracks": len(real),
        "dreams": len(dream),
        "spoilt": who.spoilt,
        "seconds_an_episode": float(np.mean([x["seconds"] for x in mine if x["where"] == "real"]))
        if real
        else None,
        "training_seconds": spent.seconds,
        "decision_seconds": float(np.mean(decided)) if decided else None,
        "recorded_steps": recorded
        if who.script == "plan" or (who.agent and not spent.real_steps)
        else 0,
        "own_real_steps": spent.real_steps,
        "dreamt_steps": spent.dream_steps,
    }
    for key, values in (("real", real), ("dream", dream)):
        if values:
            row[key] = interval(values)._asdict()
    if real and dream:
        row["gap"] = row["dream"]["value"] - row["real"]["value"]
    return row


def dreaming(lines: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What clones return, what they return once they dreamt on, and the difference: of each real
    track that all of them drove, the mean over seeds, with 95% intervals over tracks."""
    found: dict[str, dict[str, dict[int, float]]] = {"cloning": {}, "cloning, then dream": {}}
    for x in lines:
        stage, _, name = x["policy"].rpartition(", ")
        if x["where"] == "real" and stage in found and name.startswith("seed"):
            found[stage].setdefault(name, {})[x["track"]] = x["return"]
    before, after = found.values()
    seeds = sorted(before.keys() & after.keys())
    if not seeds:
        return None
    driven = [stage[seed] for stage in found.values() for seed in seeds]
    tracks = sorted(set.intersection(*(set(returns) for returns in driven)))
    if not tracks:
        return None
    a, b = (np.array([[x[s][t] for t in tracks] for s in seeds]) for x in (before, after))
    apart = [interval(list(y - x)) for x, y in zip(a, b, strict=True)]
    return {
        "seeds": seeds,
        "tracks": len(tracks),
        "clones": interval(list(a.mean(0)))._asdict(),
        "dreamt": interval(list(b.mean(0)))._asdict(),
        "difference": interval(list((b - a).mean(0)))._asdict(),
        "better": int((b.mean(0) > a.mean(0)).sum()),
        "by_seed": [x._asdict() for x in apart],
        "better_by_seed": (b > a).sum(1).tolist(),
    }


def summary(rows: list[Contestant], lines: list[dict[str, Any]], recorded: int) -> dict[str, Any]:
    """The table and the ranking from all lines."""
    found = {who.name: row_of(who, lines, recorded) for who in rows}
    both = [r for r in found.values() if "gap" in r]
    result: dict[str, Any] = {"policies": found, "ranked": len(both), "dreaming": dreaming(lines)}
    if len(both) >= 2:
        dream, real = ([r[k]["value"] for r in both] for k in ("dream", "real"))
        x, y = torch.tensor(dream), torch.tensor(real)
        result["pearson"] = bootstrap(lambda w: pearson(x, y, w), torch.arange(len(x)))._asdict()
        result["mmrv"] = mmrv(dream, real)
    return result


def table(found: dict[str, Any]) -> str:
    """The summary for people, in Markdown."""

    def cell(row: dict[str, Any], key: str) -> str:
        x = row.get(key)
        return f"{x['value']:.0f} [{x['low']:.0f}, {x['high']:.0f}]" if x else ""

    head = ("policy", "real", "tracks", "dream", "dreams", "gap", "real steps", "dreamt steps",
            "training, s", "s an episode", "ms a decision")  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, row in found["policies"].items():
        if not row["tracks"] + row["dreams"]:
            continue
        gap, took = row.get("gap"), row["seconds_an_episode"]
        decision = row["decision_seconds"]
        spent = row["recorded_steps"] + row["own_real_steps"]
        cells = (name, cell(row, "real"), row["tracks"], cell(row, "dream"), row["dreams"],
                 "" if gap is None else f"{gap:+.0f}", f"{spent:,}",
                 f"{row['dreamt_steps']:,}", f"{row['training_seconds']:.0f}",
                 "" if took is None else f"{took:.1f}",
                 "" if decision is None else f"{1000 * decision:.3g}")  # fmt: skip
        lines.append("| " + " | ".join(str(c) for c in cells) + " |")
    if apart := found["dreaming"]:
        a, b, gain = (
            f"{x['value']:.0f} [{x['low']:.0f}, {x['high']:.0f}]"
            for x in (apart["clones"], apart["dreamt"], apart["difference"])
        )
        lines.append(
            f"\nClones {a}, after dreaming on {b}, difference {gain}: means over "
            f"{len(apart['seeds'])} seeds on {apart['tracks']} tracks, better on {apart['better']}."
        )
    if "pearson" in found:
        agree = found["pearson"]
        lines.append(
            f"\nDream against reality over {found['ranked']} policies: Pearson "
            f"{agree['value']:.3f} [{agree['low']:.2f}, {agree['high']:.2f}] "
            f"(95%, policies drawn again), MMRV {found['mmrv']:.1f}."
        )
    return "\n".join(lines)


def write_table(page: Path, found: dict[str, Any]) -> None:
    """Put the table into a page, between its marks."""
    before, _, rest = page.read_text().partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    if not after:
        raise WorldError(f"page: expected {MARKS[0]} and {MARKS[1]} in {page}")
    page.write_text(f"{before}{MARKS[0]}\n\n{table(found)}\n\n{MARKS[1]}{after}")
