"""How far a world can be trusted: measured on the test episodes, printed, written as JSON.

    python -m benchmarks.fidelity --world car-racing --teacher runs/car-racing

Without recorded data it first records the bundled world's test tracks. The goals beside the figures
are those that every world of this house is held to.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import tyro

from worldsim.config import read_json
from worldsim.evaluate import evaluate
from worldsim.evaluate.report import table, write_card
from worldsim.flags import refuse_repeated
from worldsim.recipes.car_racing.settings import car_racing

from . import RESULTS
from .rows import RowsPlan, measure


def main(
    world: str = "car-racing",
    data: Path = Path("data/car-racing"),
    teacher: str | None = None,
    run: Path | None = None,
    out: Path | None = None,
    quick: bool = False,
    noise_floor: Path | None = None,
    offtrack_reference: Path | None = None,
    policies: Path | None = None,
    device: str = "cpu",
    threads: int | None = None,
    rows: bool = False,
    plan: RowsPlan = RowsPlan(),  # noqa: B008
    scratch: Path = Path("runs/rows"),
) -> None:
    """Measure a world against the test episodes of its data, or by the rows of its table.

    Args:
        world: a bundled world's name or a folder.
        data: a folder of episodes; recorded if it is missing and the world is `car-racing`.
        teacher: a training run or a world folder, to compare the student with.
        run: the training run, whose logs say what training cost; the teacher's if it is a run.
        out: the JSON file; benchmarks/results/fidelity-WORLD.json by default.
        quick: a tenth of the work, for a first look.
        noise_floor: what `python -m benchmarks.noise_floor` wrote.
        offtrack_reference: what `python -m benchmarks.offtrack_reference` wrote: reality under
            recorded actions.
        policies: what `python -m benchmarks.transfer` wrote: their returns, dreamt and real.
        device: where to compute.
        threads: CPU threads; all by default.
        rows: measure the rows of `benchmarks.rows` instead, on validation tracks recorded anew.
        plan: how much of them.
        scratch: where their tracks and latents are kept.
    """
    if threads:
        torch.set_num_threads(threads)
    if rows:
        found = measure(world, plan, scratch, policies)
        write_card(found, out or RESULTS / f"rows-{Path(world).name}.json")
        return
    if run is None and teacher and (Path(teacher) / "teacher").is_dir():
        run = Path(teacher)
    record_tests(world, data)
    others = (noise_floor, offtrack_reference, policies)
    measured = [None if path is None else read_json(path) for path in others]
    card = evaluate(
        world, data, teacher=teacher, run=run, quick=quick, device=device,
        noise_floor=measured[0], offtrack_reference=measured[1], policies=measured[2],
    )  # fmt: skip
    name = f"fidelity-{card['world']}{'-quick' if quick else ''}.json"
    path = out or RESULTS / name
    write_card(card, path)
    print(table(card["lines"]))
    print(f"wrote {path}")


def record_tests(world: str, data: Path) -> None:
    """Record the test tracks of the bundled `car-racing` if there is no data: two minutes."""
    if world == "car-racing" and not data.exists():
        recipe = car_racing()
        recipe.collect(data, jobs=[job for job in recipe.jobs() if job.split == "test"])


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, args=refuse_repeated(sys.argv[1:]))
