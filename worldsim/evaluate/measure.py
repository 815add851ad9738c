"""Trust and card in one: what is done to every world that was just made."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from worldsim.core import WorldError
from worldsim.data.dataset import Dataset
from worldsim.world.diffusion import DiffusionWorld

from .calibrate import CalibrationPlan, calibrate
from .card import evaluate


def measure(
    world: DiffusionWorld, data: Dataset, run: Path | None, seconds: float | None
) -> tuple[DiffusionWorld, dict[str, Any]]:
    """The world with fitted trust, and its card; what cannot be measured is said in the card.

    run: the training run, whose teacher and cost are told; None without.
    seconds: about how long to measure; in full if None.
    """
    missing: dict[str, str] = {}
    card: dict[str, Any] = {}
    short = seconds is not None and seconds < 1800
    try:
        plan = CalibrationPlan(episodes=16, starts=3, horizon=30) if short else CalibrationPlan()
        world, _ = calibrate(world, data, plan)
    except (WorldError, ValueError, RuntimeError) as error:
        missing["trust"] = str(error)
    try:
        teacher = str(run) if seconds is None and run is not None else None  # which is slow
        card = evaluate(world, data, teacher=teacher, run=run, budget_seconds=seconds)
    except (WorldError, ValueError, RuntimeError) as error:
        missing["fidelity"] = str(error)
    for name, why in missing.items():
        warnings.warn(f"card: {name} could not be measured: {why}", stacklevel=2)
    return world, card | {"not_measured": {**card.get("not_measured", {}), **missing}}
