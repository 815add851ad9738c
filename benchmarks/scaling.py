"""Does more compute make a better world? Train at several sizes and budgets, predict, then look.

    python -m benchmarks.scaling          # trains what is missing, then draws; resumes when killed
    python -m benchmarks.scaling --fit    # only draws, from the results file

Every run is a line of `benchmarks/results/scaling-car-racing.jsonl`, in the order they were made.
Before the largest run a line with its prediction is written, fitted to the runs above that line;
no command changes or removes a line. Drawn are the report inside
docs/explanation/scaling.md, scaling.png (the law), scaling-strip.png and scaling.mp4 (dreams of
base, 4x and largest compute beside reality).
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from worldsim.config import read_json_lines
from worldsim.core import WorldError
from worldsim.data import NativeDataset
from worldsim.flags import refuse_repeated
from worldsim.models.vae import SpacetimeVAE
from worldsim.play import film as video
from worldsim.presets import small
from worldsim.store.provenance import provenance, training_cost
from worldsim.train.final import load_final

from . import page
from . import scaling_pictures as pictures
from . import scaling_report as report
from .scaling_report import law_of, measures, of_kind
from .scaling_runs import Plan, Run, exam, measure, runs, still_error, trained, world_of

Record = dict[str, Any]


@dataclass(frozen=True)
class Places:
    """Where things lie.

    Attributes:
        data: a folder of episodes.
        home: a training run's folder, with its VAE and latents.
        out: folder for the runs of this benchmark.
        results: the JSON lines.
        page: whose report is written anew, if it exists.
        media: folder for pictures and film.
    """

    data: Path = Path("data/car-racing")
    home: Path = Path("runs/car-racing")
    out: Path = Path("runs/scaling")
    results: Path = Path("benchmarks/results/scaling-car-racing.jsonl")
    page: Path = Path("docs/explanation/scaling.md")
    media: Path = Path("docs/media")


def main(places: Places = Places(), fit: bool = False, unit: float = Plan.unit) -> None:
    """Train what is missing, and draw.

    Args:
        places: where things lie.
        fit: train nothing, draw from the results as they are.
        unit: training FLOPs of the smallest run; the largest gets 32 times as many.
    """
    plan = Plan(sizes=small(), unit=unit)
    if not fit:
        train_all(plan, places)
    draw(plan, places)


def train_all(plan: Plan, places: Places) -> None:
    """Train and measure what has no line yet; the last run only after its prediction."""
    data = NativeDataset(places.data)
    every = list(runs(plan, data))
    todo = [run for run in every if not known(run, read(places.results))]
    if not todo:
        return
    paper = exam(plan, data, places.home)
    width = None
    for run in todo:
        if run is every[-1]:
            predict_first(run, places)
        if run.sizes.dit.dim != width:
            torch.compiler.reset()  # past some eight kinds of code training would run uncompiled
            width = run.sizes.dit.dim
        model = trained(run, data, places.home, places.out)
        figures = measure(run, model, paper, data, plan) | {"still": still_error(paper, plan)}
        cost = training_cost(places.out).get("stages", {}).get(run.name, {"seconds": None})
        append(places, "run", run.record | figures | {"seconds": cost["seconds"]})


def known(run: Run, records: list[Record]) -> bool:
    """Whether the run has a line; WorldError if that line was made with other settings."""
    for record in of_kind(records, "run"):
        if record["name"] == run.name:
            if any(record[key] != value for key, value in run.record.items()):
                was = {key: record[key] for key in run.record}
                raise WorldError(f"results: {run.name} was made as {was}, asked for {run.record}; "
                                 "use the same settings, or other places")  # fmt: skip
            return True
    return False


def predict_first(run: Run, places: Places) -> None:
    """Write what the run will reach, unless that has been written before."""
    records = read(places.results)
    if of_kind(records, "prediction"):
        return
    if (places.out / run.name).exists():
        raise WorldError(f"{places.out / run.name}: expected nothing before the prediction, got a "
                         "training; predict first, or choose other places")  # fmt: skip
    seen = of_kind(records, "run")
    found: Record = {"name": run.name, "flops": run.flops, "clips": run.clips,
                     "from": [record["name"] for record in seen]}  # fmt: skip
    for key in measures(seen[0]):
        found[key] = law_of(seen, key).next_run(run.flops, run.clips)._asdict()
        print(f"prediction: {run.name}: {key} {found[key]}")
    append(places, "prediction", found)


def read(path: Path) -> list[Record]:
    """All lines, in the order in which they were written."""
    return list(read_json_lines(path, 2**28))


def append(places: Places, kind: str, found: Record) -> None:
    """Write one line, with where its figures come from."""
    places.results.parent.mkdir(parents=True, exist_ok=True)
    with open(places.results, "a") as file:
        line = {"kind": kind, **found, "provenance": provenance()}
        file.write(json.dumps(line) + "\n")


def draw(plan: Plan, places: Places) -> None:
    """Write the report into the page, the law as a picture, and dreams as film and strip."""
    records = read(places.results)
    report.check_whole(records)
    if places.page.exists():
        page.put(places.page, report.report(records))
    picture = pictures.law_picture(records)
    video.save_picture(places.media / "scaling.png", picture)
    data, shown = NativeDataset(places.data), report.shown(records)
    some = [run for run in runs(plan, data) if run.name in {r["name"] for r in shown}]
    missing = [run.name for run in some if not (places.out / run.name / "checkpoint").exists()]
    if missing:
        raise SystemExit(f"wrote report and law; no film, whose networks {missing} are not here")
    vae = load_final(SpacetimeVAE(plan.sizes.vae), places.home / "vae")
    worlds = {
        f"{run.budget}x, {run.parameters / 1e6:.1f}M": world_of(
            run, trained(run, data, places.home, places.out), vae, data, plan.passes
        )
        for run in some
    }
    pictures.save_dreams(worlds, data, places.media)
    print(f"wrote {places.page}, and scaling.png, -strip.png and .mp4 into {places.media}")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, args=refuse_repeated(sys.argv[1:]))
