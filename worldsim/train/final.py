"""Weights of a finished stage, which the next one reads."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from torch import nn

from worldsim.core import WorldError
from worldsim.store.tensors import load_weights, save_tensors

from .distributed import main_first

M = TypeVar("M", bound=nn.Module)


def load_final(model: M, stage: Path) -> M:
    """Fill a network with a finished stage's weights; WorldError says what to run first."""
    path = stage / "final.safetensors"
    if not path.exists():
        raise WorldError(
            f"{path}: expected the weights of stage {stage.name!r}, got none; train it first: "
            f"worldsim train DATA --out WORLD --run {stage.parent}"
        )
    return load_weights(path, model)


def finish(model: nn.Module, stage: Path) -> None:
    """Keep a finished stage's weights, which the next stage reads; one process writes them."""
    main_first(lambda: save_tensors(stage / "final.safetensors", model.state_dict()))
