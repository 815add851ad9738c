"""How far a world can be trusted: measured on the test episodes, printed, written as JSON.

    python -m benchmarks.fidelity --world car-racing --teacher runs/car-racing
    python -m benchmarks.fidelity --peer diamond=FOLDER --data data/pendulum --cpu-minutes 15

Without recorded data it first records the bundled world's test tracks. The goals beside the figures
are those that every world of this house is held to.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import torch
import tyro

from worldsim.config import read_json
from worldsim.core import WorldError
from worldsim.evaluate import evaluate
from worldsim.evaluate.report import table, write_card
from worldsim.flags import refuse_repeated
from worldsim.recipes.car_racing.settings import car_racing

from . import RESULTS
from .fidelity_peer import Match, compare
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
    match: Annotated[Match, tyro.conf.arg(name="")] = Match(),  # noqa: B008
) -> None:
    """Measure a world against the test episodes of its data, by the rows of its table, or against
    a peer's that is trained as long on the same data.

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
        match: measure a fresh world beside a peer's instead.
    """
    if match.peer is not None:
        if rows:
            raise WorldError("peer: expected no --rows beside it, which measure one world")
        versus(match, data, run, out, device, threads or 1)
        return
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


def versus(
    match: Match, data: Path, run: Path | None, out: Path | None, device: str, threads: int
) -> None:
    """Ours and a peer's, into benchmarks/results/fidelity-peer-DATA.json or `out`."""
    torch.set_num_threads(threads)
    found = compare(match, data, run or Path("runs/peer"), torch.device(device))
    write_card(found, path := out or RESULTS / f"fidelity-peer-{found['data']}.json")
    print(f"wrote {path}")


def record_tests(world: str, data: Path) -> None:
    """Record the test tracks of the bundled `car-racing` if there is no data: two minutes."""
    if world == "car-racing" and not data.exists():
        recipe = car_racing()
        recipe.collect(data, jobs=[job for job in recipe.jobs() if job.split == "test"])


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, args=refuse_repeated(sys.argv[1:]))
