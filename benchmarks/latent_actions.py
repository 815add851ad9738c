"""Actions from video alone: how much of the true ones is found, and what a world makes of it.

    python -m benchmarks.latent_actions --rows pendulum pendulum-labels codes worlds

The others are planner, agents, unseen, car-racing, car-racing-labels and driving; all without
--rows. Each row is measured on its own and kept in the JSON, so that the table may be filled over
days. The recordings are made by `worldsim collect` (the recipes) where they are missing. Nothing is
chosen on test episodes.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from worldsim.core import WorldError
from worldsim.data.dataset import Dataset
from worldsim.data.native import NativeDataset
from worldsim.evaluate.report import write_card
from worldsim.flags import refuse_repeated
from worldsim.latent_actions.mapping import fit_map, map_quality, pairs
from worldsim.latent_actions.measures import probe, steering, transitions
from worldsim.latent_actions.training import MOVING, train_latent_actions
from worldsim.models.latent_actions import LatentActionModel
from worldsim.recipes.registry import RECIPES
from worldsim.store.latent_actions import load_latent_actions
from worldsim.store.provenance import provenance

from . import RESULTS
from .page import put

SHARE = 0.025  # of labels, where there are some
TRANSITIONS = 200
CURVE = (0.005, 0.01, 0.05, 1.0)
DRAWS = 3  # of labelled transitions for a map
PROBED = 100  # chunks of each episode
RECORDED = {"pendulum": "pendulum", "car-racing": "car-racing-state"}
"""Recipes of the rows: the latter's pictures are those of `car-racing`, of more drivers."""
MOVES = ("car-racing",)
"""Rows whose camera goes along, so that latent actions move the picture."""
MOST, TESTED = {"pendulum": 160, "car-racing": 100}, 20  # episodes


@dataclass(frozen=True)
class Setting:
    """What the rows share.

    Attributes:
        data, runs: folders of recordings and of trainings.
        steps: of a latent action model's training, at most. world_steps: of a world's.
        iterations: batches of dreams of an agent's.
        training, held: episodes of the training split and of the others; all if 0.
    """

    data: Path
    runs: Path
    steps: int = 4000
    world_steps: int = 1000
    iterations: int = 120
    training: int = 0
    held: int = 0

    def recorded(self, name: str) -> NativeDataset:
        """The recording of a recipe, made if it is not there."""
        folder = self.data / name
        if not (folder / "dataset.json").exists():
            recipe = RECIPES[name]()
            seen: dict[str, int] = {"train": 0, "val": 0, "test": 0}
            jobs = []
            for job in recipe.jobs():
                seen[job.split] += 1
                most = self.training if job.split == "train" else self.held
                if not most or seen[job.split] <= most:
                    jobs.append(job)
            recipe.collect(folder, jobs=jobs)
        return NativeDataset(folder)

    def model(self, name: str, data: Dataset, labels: float | None, **more: Any) -> Any:
        """The latent action model of a row, trained if it is not there, and what it took."""
        steps = min(self.steps, MOVING.fit.steps) if more.get("moves") else self.steps
        file, kept = self.runs / f"{name}.safetensors", self.runs / f"{name}.json"
        if not file.exists():
            begun = time.process_time()
            train_latent_actions(data, labels, run=self.runs / name, out=file, steps=steps, **more)
            seconds = round(time.process_time() - begun)
            kept.write_text(json.dumps({"steps": steps, "cpu_seconds": seconds}) + "\n")
        about = json.loads(kept.read_text()) if kept.exists() else {"steps": steps}
        return load_latent_actions(file), about


def told(model: LatentActionModel, train: Dataset, test: Dataset) -> dict[str, Any]:
    """What the latent actions steer and hold, on test episodes; the maps are of training ones."""
    known, unseen = transitions(model, train, PROBED), transitions(model, test, PROBED)
    whole, judged = pairs(model, train), pairs(model, test)
    curve = {}
    for count in (TRANSITIONS, *(round(share * len(whole.latent)) for share in CURVE)):
        found = []
        for seed in range(DRAWS):
            order = torch.randperm(
                len(whole.latent), generator=torch.Generator().manual_seed(seed)
            )[: min(count, 5000)]
            made = fit_map(train.spec.action, whole.rows(order), seed)
            found.append(map_quality(made, judged)["r2"])
        curve[str(count)] = {"mean": sum(found) / DRAWS, "least": min(found)}
    return {
        "steering": steering(model, test),
        "probe": probe(known, unseen),
        "map": curve,
        "transitions": {"train": len(whole.latent), "test": len(judged.latent)},
        "confidence": float(unseen.confidence.mean()),
    }


def inferred(setting: Setting, env: str, labels: float | None) -> dict[str, Any]:
    """The row of an environment, without labels or with few."""
    from .latent_worlds import First

    data, most = setting.recorded(RECORDED[env]), MOST[env]
    train, test = First(data.split("train"), most), First(data.split("test"), TESTED)
    name = env if labels is None else f"{env}-labels"
    moves = env in MOVES
    model, about = setting.model(name, train, labels, moves=moves)
    row = {"labels": labels or 0.0, "moves": moves, "episodes": len(train), "tested": len(test)}
    return {**row, **about, **told(model, train, test)}


def all_rows() -> dict[str, Callable[[Setting], dict[str, Any]]]:
    """All rows by name."""
    from .latent_codes import codes
    from .latent_driving import driving
    from .latent_unseen import unseen
    from .latent_worlds import agents, planner, worlds

    found: dict[str, Callable[[Setting], dict[str, Any]]] = {}
    for env in RECORDED:
        found[env] = lambda setting, env=env: inferred(setting, env, None)
        found[f"{env}-labels"] = lambda setting, env=env: inferred(setting, env, SHARE)
    return found | {
        "codes": codes,
        "worlds": worlds,
        "planner": planner,
        "agents": agents,
        "unseen": unseen,
        "driving": driving,
    }


def table(found: dict[str, Any]) -> str:
    """The report, in Markdown."""
    lines = [
        "| recording | labels | delta PSNR at 4 steps, dB | probe R² (minus frame alone) "
        "| map R² from 200 |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for name in ("pendulum", "pendulum-labels", "car-racing", "car-racing-labels"):
        if name not in found:
            continue
        row = found[name]
        probed = ", ".join(
            f"{a:.2f} ({b:.2f})"
            for a, b in zip(row["probe"]["latent"], row["probe"]["minus"], strict=True)
        )
        lines.append(
            f"| {name.removesuffix('-labels')} | {100 * row['labels']:g}% "
            f"| {row['steering']['delta']:.1f} | {probed} "
            f"| {row['map'][str(TRANSITIONS)]['mean']:.2f} |"
        )
    lines += worlds_table(found.get("worlds"))
    lines += unseen_table(found.get("unseen"))
    return "\n".join([*lines, *played_table(found)])


def worlds_table(row: dict[str, Any] | None) -> list[str]:
    """Lines of the report on worlds that were told actions in part; none without the row."""
    if row is None:
        return []
    lines = [
        "", f"| a world of {row['episodes']} episodes, told | error at {row['horizon']} steps "
        "| over that of all | over that of a tenth |", "|---|---|---|---|",
    ]  # fmt: skip
    for name, arm in row["test"]["worlds"].items():
        lines.append(
            f"| {name} | {arm['mse']:.5f} | {ranged(arm['to_all'])} | {ranged(arm['to_tenth'])} |"
        )
    return [*lines, f"| nothing, a still picture | {row['test']['still']:.5f} | | |"]


def ranged(found: dict[str, Any], digits: int = 2) -> str:
    """A figure with its interval."""
    value, low, high = (f"{found[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def played_table(found: dict[str, Any]) -> list[str]:
    """Lines on who swings the real pendulum, or drives, by what its world was told."""
    lines = []
    for kind in ("planner", "agents"):
        for name in ("random", "all", "video, mapped"):
            if name in found.get(kind, {}):
                who = "random torques" if name == "random" else f"{kind.rstrip('s')}, {name}"
                lines.append(f"| Pendulum | {who} | {ranged(found[kind][name], 0)} |")
    if "unseen" in found:
        planner = found["unseen"]["planner"]["planner"]
        lines.append(f"| Pendulum, unseen | planner, video, mapped | {ranged(planner, 0)} |")
    for name in ("all", "read"):
        if "driving" in found:
            driven = ranged(found["driving"]["test"][name], 0)
            lines.append(f"| CarRacing | cloned driver, {name} | {driven} |")
    head = ["", "| real episodes | who, told | return |", "|---|---|---|"]
    return head + lines if lines else []


def unseen_table(row: dict[str, Any] | None) -> list[str]:
    """Lines on an environment that the model had not seen; none without the row."""
    if row is None:
        return []
    head = ["", "| Pendulum, by a model of five others | delta PSNR, dB | probe R² | map R² |",
            "|---|---|---|---|"]  # fmt: skip
    return head + [
        f"| {name} | {row[key]['steering']['delta']:.1f} | {row[key]['probe']['latent'][0]:.2f} "
        f"| {row[key]['map'][str(TRANSITIONS)]['mean']:.2f} |"
        for key, name in (("before", "as it is"), ("after", "adapted, 200 labels"))
    ]


def main(
    rows: tuple[str, ...] = (),
    data: Path = Path("data"),
    runs: Path = Path("runs/latent-actions"),
    steps: int = 4000,
    world_steps: int = 1000,
    iterations: int = 120,
    training: int = 0,
    held: int = 0,
    out: Path = RESULTS / "latent-actions.json",
    page: Path | None = None,
) -> None:
    """Measure rows of the table.

    Args:
        rows: which; all if none are named.
        data: folder of the recordings.
        runs: folder of the trainings, which go on where they were stopped.
        steps: of each latent action model's training.
        world_steps: of each world's.
        iterations: batches of dreams of each agent's.
        training: episodes of the training split of recordings that are made; the recipe's if 0.
        held: of the other splits.
        out: the JSON file; rows that are in it are kept unless they are measured again.
        page: whose table is replaced, such as docs/how-to/video-without-actions.md.
    """
    known = all_rows()
    for name in rows:
        if name not in known:
            raise WorldError(f"rows: expected some of {list(known)}, got {name!r}")
    setting = Setting(data, runs, steps, world_steps, iterations, training, held)
    runs.mkdir(parents=True, exist_ok=True)
    found = json.loads(out.read_text())["rows"] if out.exists() else {}
    for name in rows or known:
        found[name] = known[name](setting) | {"provenance": provenance()}
        write_card({"format": "worldsim-latent-actions", "rows": found}, out)
        print(name, json.dumps({k: v for k, v in found[name].items() if k != "provenance"}))
    print(table(found))
    if page:
        put(page, table(found))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, args=refuse_repeated(sys.argv[1:]))
