"""Measure a world."""

from __future__ import annotations

from pathlib import Path

from worldsim.core import WorldError
from worldsim.data.open import open_for
from worldsim.evaluate import evaluate, renew_trust
from worldsim.evaluate.card import load_uncarded
from worldsim.evaluate.describe import describe
from worldsim.store.folder import load, save

from .destination import destination
from .flags import read_result, use_threads


def evaluate_world(
    world: str,
    data: str,
    run: Path | None = None,
    out: Path | None = None,
    in_place: bool = False,
    quick: bool = False,
    budget_seconds: float | None = None,
    camera: str | None = None,
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
        data: a folder of ours, or what `worldsim.open` takes, with a test split.
        run: the training run: its teacher is compared with the student, its logs tell the cost.
        out: a new folder for the world with its card.
        in_place: put the card into the world's own folder, not of a bundled world.
        quick: a few seconds' worth of the work.
        budget_seconds: measure less until it takes about as long.
        camera: which of several, or "tile" for all side by side.
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
        read_result(flag, path, f"python -m benchmarks.{name}")
        for flag, path, name in (
            ("noise_floor", noise_floor, "noise_floor"),
            ("offtrack_reference", offtrack_reference, "offtrack_reference"),
            ("policies", policies, "transfer"),
        )
    )
    if run is not None and not run.is_dir():
        raise WorldError(
            f"run: expected the folder of a training run, got {run}, which is not there; "
            f"worldsim train DATA --out WORLD --run {run} makes one"
        )
    loaded = load_uncarded(world, device)
    recorded = open_for(data, loaded.spec, camera=camera, sizes=loaded.config.sizes)
    if only_trust:
        if loaded.card is None:
            raise WorldError(
                f"{world}: expected a card to renew, got none; measure all of it first: "
                f"worldsim eval --world {world} --data {data} --in-place"
            )
        card = renew_trust(loaded.card, loaded, recorded, noise_floor=floor, policies=ranked)
    else:
        card = evaluate(
            loaded, recorded, teacher=teacher, run=run, quick=quick,
            budget_seconds=budget_seconds,
            noise_floor=floor, offtrack_reference=off_road, policies=ranked,
        )  # fmt: skip
    print(describe(card))
    if folder is not None:
        save(load(world), folder, card=card, overwrite=in_place)
        print(f"put the card into {folder}")
