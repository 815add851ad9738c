"""Fit a world's trust."""

from __future__ import annotations

import json
from pathlib import Path

from worldsim.data.native import NativeDataset
from worldsim.evaluate.calibrate import calibrate as fit_trust
from worldsim.store.folder import load, save
from worldsim.worlds import ROOT, names

from .flags import use_threads


def calibrate(
    world: str = "car-racing",
    data: Path = Path("data/car-racing"),
    device: str = "cpu",
    threads: int | None = None,
) -> None:
    """Fit a world's trust to dreams of its validation episodes and put it into its folder.

    Holds for the sampling in the world's config; again after a change of weights or sampling.

    Args:
        world: a bundled world's name or a folder.
        data: a folder of episodes with train and val splits.
        device: where to compute.
        threads: CPU threads; all by default.
    """
    use_threads(threads)
    calibrated, figures = fit_trust(load(world, device), NativeDataset(data))
    folder = ROOT / world if world in names() else Path(world)
    save(calibrated.to("cpu"), folder, overwrite=True)
    print(json.dumps(figures, indent=1))
    print(f"put the trust into {folder}")
