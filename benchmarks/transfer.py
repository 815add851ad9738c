"""Policies in the dream and on unseen real tracks: do both agree on who drives well?

    python -m benchmarks.transfer --world car-racing --agents runs/agents/seed-0 runs/agents/seed-1

Every policy drives real test tracks for 1,000 frames (action repeat 2, the 50 frames of zoom sat
out) and dreams 475 steps on from the first recorded chunks of the same tracks. A return is the sum
of rewards, the environment's own or the world's. Results go to a file of JSON lines, one for each
policy, track and place; typed again, the command goes on where it stood.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from tqdm import tqdm

from worldsim.agents.training import read_spent
from worldsim.core import WorldError, WorldState, row_keys
from worldsim.data import DatasetSpec, NativeDataset
from worldsim.data.columns import check_kind, columns_of
from worldsim.metrics import Interval, bootstrap, pearson, weighted_mean
from worldsim.recipes.recipe import episode_name
from worldsim.store.folder import load
from worldsim.store.provenance import provenance
from worldsim.world.compiled import compiled
from worldsim.world.diffusion import DiffusionWorld

from .transfer_drivers import Contestant, contestants, drive, thinker

TRACKS = range(5000, 5050)
MARKS = ("<!-- transfer: begin -->", "<!-- transfer: end -->")
Note = Callable[[Contestant, int, str, dict[str, float]], None]
"""(who, track, "real" or "dream", figures: return, seconds and decision) -> written down."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """How much is driven.

    Attributes:
        tracks: real tracks, seeds from 5,000 up, for everybody but those below.
        spoilt_tracks: of those, how many the policies drive that are there for the ranking only.
        plan_tracks: of those, how many the planner drives; 0 leaves it out. It has no dreams of
            its own in the table: they would take as long again.
        dream_tracks: of those, how many are dreamt on from.
        steps: of a dream; a real episode has 475.
        passes: of each step of those dreams; as many as the world ships with if None. A planner has
            its own.
        workers: processes for the real environment.
    """

    tracks: int = len(TRACKS)
    spoilt_tracks: int = len(TRACKS)
    plan_tracks: int = 0
    dream_tracks: int = 16
    steps: int = 475
    passes: int | None = None
    workers: int = 1

    def real(self, who: Contestant) -> list[int]:
        """The real tracks of a policy."""
        most = self.spoilt_tracks if who.spoilt else self.tracks
        return list(TRACKS[: self.plan_tracks if who.script == "plan" else most])

    def dreamt(self, who: Contestant) -> list[int]:
        """The tracks that its dreams begin on; the scripted driver reads the real track."""
        return [] if who.script in ("expert", "plan") else list(TRACKS[: self.dream_tracks])


def dream_returns(
    who: Contestant, world: DiffusionWorld, starts: WorldState, steps: int
) -> list[float]:
    """Dreamt returns of `steps` steps from each start, weighed by the odds of going on."""
    total, alive = torch.zeros(len(starts)), torch.ones(len(starts))
    state, think = starts, thinker(who, world)
    for _ in tqdm(range(steps), desc=f"dream, {who.name}", leave=False):
        state, said = world.step(state, think(state))
        total += alive * said.reward
        alive = alive * said.continue_prob
    return total.tolist()


def track_starts(world: DiffusionWorld, data: Path, tracks: list[int]) -> WorldState:
    """States after the first recorded chunks of these tracks."""
    dataset, context, chunk = NativeDataset(data), world.spec.context, world.spec.chunk
    test = dataset.split("test")
    found = [test.episode(test.names.index(episode_name(seed))) for seed in tracks]
    frames = torch.stack([torch.from_numpy(e.frames[: context * chunk]) for e in found])
    actions = torch.stack([columns_of(e, world.spec.action).actions[:context] for e in found])
    return world.encode(frames, actions, row_keys(tracks))


Job = tuple[Contestant, str, DatasetSpec, int]


def _real_job(job: Job) -> tuple[Contestant, int, dict[str, float]]:
    torch.set_num_threads(1)
    who, name, info, seed = job
    began = time.perf_counter()
    world = load(name)
    found, decision = drive(who, world, info, seed)
    took = time.perf_counter() - began
    return who, seed, {"return": found, "seconds": took, "decision": decision}


def _results(jobs: list[Job], workers: int) -> Iterator[tuple[Contestant, int, dict[str, float]]]:
    if workers == 1:
        yield from map(_real_job, jobs)
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        yield from pool.map(_real_job, jobs)


def drive_all(
    rows: list[Contestant], done: set[tuple[str, int, str]], world: str, data: Path, scope: Scope,
    note: Note,
) -> None:  # fmt: skip
    """What is still to be driven in reality, track by track, so that all rows grow together."""
    info = NativeDataset(data).spec
    jobs = [
        (who, world, info, seed)
        for seed in TRACKS
        for who in rows
        if seed in scope.real(who) and (who.name, seed, "real") not in done
    ]
    for who, seed, figures in tqdm(_results(jobs, scope.workers), "real", len(jobs)):
        note(who, seed, "real", figures)


def dream_all(
    rows: list[Contestant], done: set[tuple[str, int, str]], world: str, data: Path, scope: Scope,
    note: Note,
) -> None:  # fmt: skip
    """What is still to be dreamt, all tracks of a policy at once."""
    shipped = load(world)
    loaded = compiled(shipped.with_num_steps(scope.passes) if scope.passes else shipped)
    for who in rows:
        tracks = [t for t in scope.dreamt(who) if (who.name, t, "dream") not in done]
        if not tracks:
            continue
        began = time.perf_counter()
        found = dream_returns(who, loaded, track_starts(loaded, data, tracks), scope.steps)
        took = (time.perf_counter() - began) / len(tracks)
        for seed, value in zip(tracks, found, strict=True):
            note(who, seed, "dream", {"return": value, "seconds": took})


def mmrv(dream: list[float], real: list[float]) -> float:
    """Mean maximum rank violation (Li et al. 2024, SIMPLER, 2405.05941, Eq. 1), in real returns:
    how much worse, at most, the one is that the dream puts before another; 0 if none is misplaced.
    """
    a, b = np.asarray(dream), np.asarray(real)
    wrong = (a[:, None] < a[None]) != (b[:, None] < b[None])
    return float((np.abs(b[:, None] - b[None]) * wrong).max(1).mean())


def read(path: Path) -> list[dict[str, Any]]:
    """Lines written so far; a torn last line is left out."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


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
    learnt = {} if who.agent is None else read_spent(Path(who.agent))
    own = learnt.get("real_steps", 0)  # practised on real tracks
    row: dict[str, Any] = {
        "tracks": len(real),
        "dreams": len(dream),
        "spoilt": who.spoilt,
        "seconds_an_episode": float(np.mean([x["seconds"] for x in mine if x["where"] == "real"]))
        if real
        else None,
        "training_seconds": learnt.get("seconds", 0),
        "decision_seconds": float(np.mean(decided)) if decided else None,
        "recorded_steps": recorded if who.script == "plan" or (who.agent and not own) else 0,
        "own_real_steps": own,
        "dreamt_steps": learnt.get("dream_steps", 0),
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


def main(
    world: str = "car-racing",
    agents: tuple[Path, ...] = (),
    data: Path = Path("data/car-racing"),
    scope: Scope = Scope(),  # noqa: B008
    out: Path = Path("runs/transfer/car-racing.jsonl"),
    result: Path | None = None,
    page: Path | None = None,
) -> None:
    """Score policies in the dream and on real tracks.

    Args:
        world: a bundled world's name or a folder.
        agents: folders of trained agents (from the agent command).
        data: recordings whose test split starts the dreams.
        scope: how much is driven.
        out: the lines; the summary goes beside them as .json.
        result: where else the summary goes, such as benchmarks/results/transfer-car-racing.json.
        page: whose table is replaced by this one, such as docs/explanation/agents.md.

    Raises WorldError where `data` is of another world.
    """
    recorded = NativeDataset(data)
    check_kind(recorded.spec, load(world).spec)
    out.parent.mkdir(parents=True, exist_ok=True)
    rows, lines = contestants(agents, scope.plan_tracks > 0), read(out)
    done = {(x["policy"], x["track"], x["where"]) for x in lines}
    with open(out, "a") as file:

        def note(who: Contestant, track: int, where: str, figures: dict[str, float]) -> None:
            line = {"policy": who.name, "track": track, "where": where, **figures}
            file.write(json.dumps(line) + "\n")
            file.flush()

        dream_all(rows, done, world, data, scope, note)
        drive_all(rows, done, world, data, scope, note)
    steps = sum(recorded.split("train").lengths)
    found = summary(rows, read(out), steps) | {"command": " ".join(sys.argv[1:])}
    print(table(found))
    text = json.dumps({**found, "provenance": provenance()}, indent=1) + "\n"
    for path in (out.with_suffix(".json"), *([result] if result else [])):
        path.write_text(text)
    if page:
        write_table(page, found)


if __name__ == "__main__":
    tyro.cli(main)
