"""Measure a world."""

from __future__ import annotations

from pathlib import Path

from worldsim.config import read_json
from worldsim.core import WorldError
from worldsim.evaluate import evaluate, renew_trust
from worldsim.evaluate.describe import describe
from worldsim.store.folder import load, save

from .destination import destination
from .flags import use_threads


def evaluate_world(
    world: str,
    data: Path,
    run: Path | None = None,
    out: Path | None = None,
    in_place: bool = False,
    quick: bool = False,
    budget_seconds: float | None = None,
    noise_floor: Path | None = None,
    offtrack_reference: Path | None = None,
    policies: Path | None = None,
    only_trust: bool = False,
    device: str = "cpu",
    threads: int | None = None,
) -> None:
    """Measure a world on its test episodes and print its card.

    The card is kept in a world's folder only where that is asked for.

    Args:
        world: a bundled world's name or a folder.
        data: a folder of episodes with a test split.
        run: the training run: its teacher is compared with the student, its logs tell the cost.
        out: a new folder for the world with its card.
        in_place: put the card into the world's own folder, not of a bundled world.
        quick: a few seconds' worth of the work.
        budget_seconds: measure less until it takes about as long.
        noise_floor: what `python -m benchmarks.noise_floor` wrote.
        offtrack_reference: what `python -m benchmarks.offtrack_reference` wrote.
        policies: what `python -m benchmarks.transfer` wrote: their returns, dreamt and real.
        only_trust: renew only what the world's card says of safe horizon, trust and, where they are
            given, noise floor and policies.
        device: where to compute.
        threads: CPU threads; all by default.
    """
    use_threads(threads)
    folder = destination(world, out, in_place)
    teacher = None if run is None else str(run)
    floor, off_road, ranked = (
        None if path is None else read_json(path)
        for path in (noise_floor, offtrack_reference, policies)
    )
    if only_trust:
        loaded = load(world, device)
        if loaded.card is None:
            raise WorldError(f"{world}: expected a card to renew; measure all of it first")
        card = renew_trust(loaded.card, loaded, data, noise_floor=floor, policies=ranked)
    else:
        card = evaluate(
            world, data, teacher=teacher, run=run, quick=quick,
            budget_seconds=budget_seconds, device=device,
            noise_floor=floor, offtrack_reference=off_road, policies=ranked,
        )  # fmt: skip
    print(describe(card))
    if folder is not None:
        save(load(world), folder, card=card, overwrite=in_place)
        print(f"put the card into {folder}")
