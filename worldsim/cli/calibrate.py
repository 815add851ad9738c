"""Fit a world's trust."""

from __future__ import annotations

import json
from pathlib import Path

from worldsim.core import WorldError
from worldsim.data.open import open_for
from worldsim.evaluate.calibrate import calibrate as fit_trust
from worldsim.store.folder import load, save

from .destination import destination
from .flags import use_threads


def calibrate(
    world: str,
    data: str,
    out: Path | None = None,
    in_place: bool = False,
    camera: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
) -> None:
    """Fit a world's trust to dreams of its validation episodes.

    Holds for the sampling in the world's config; again after a change of weights or sampling.

    Args:
        world: a bundled world's name or a folder.
        data: a folder of ours, or what `worldsim.open` takes, with train and val splits.
        out: a new folder for the world with its trust.
        in_place: put the trust into the world's own folder, not of a bundled world.
        camera: which of several, or "tile" for all side by side.
        device: where to compute.
        threads: CPU threads; all by default.
    """
    use_threads(threads)
    folder = destination(world, out, in_place)
    if folder is None:
        raise WorldError("out, in_place: expected one of them, got neither; name where to write")
    loaded = load(world, device)
    recorded = open_for(data, loaded.spec, camera=camera, sizes=loaded.config.sizes)
    calibrated, figures = fit_trust(loaded, recorded)
    save(calibrated.to("cpu"), folder, overwrite=in_place)
    print(json.dumps(figures, indent=1))
    print(f"put the trust into {folder}")
