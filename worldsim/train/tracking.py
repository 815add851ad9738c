"""Figures of a training beside the JSON lines: TensorBoard, Weights & Biases, where asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from worldsim.core import WorldError

EXTRAS = {"tensorboard": "tensorboard", "wandb": "wandb"}

Write = Callable[[str, int, dict[str, float]], None]
"""`(stage, step, figures)`."""


def check_trackers(**asked: bool) -> None:
    """Raise WorldError for a tracker that is asked for and not installed."""
    for name, wanted in asked.items():
        if wanted and find_spec(EXTRAS[name]) is None:
            raise WorldError(
                f"{name}: expected the package {EXTRAS[name]!r}, which is not installed; "
                f"pip install 'worldsim[{EXTRAS[name]}]', or leave the flag out: log.jsonl is "
                "always written"
            )


def trackers(run: Path, name: str, *, tensorboard: bool, wandb: bool) -> list[Write]:
    """Writers of figures, those asked for."""
    found: list[Write] = []
    if tensorboard:
        found.append(_tensorboard(run / "tensorboard"))
    if wandb:
        found.append(_wandb(run, name))
    return found


def _tensorboard(folder: Path) -> Write:
    writer: Any = import_module("torch.utils.tensorboard").SummaryWriter(str(folder))

    def write(stage: str, step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            writer.add_scalar(f"{stage}/{name.lstrip('_')}", value, step)
        writer.flush()

    return write


def _wandb(run: Path, name: str) -> Write:
    project: Any = import_module("wandb").init(
        project="worldsim", name=name, dir=str(run), resume="allow", id=name
    )

    def write(stage: str, step: int, figures: dict[str, float]) -> None:
        named = {f"{stage}/{key.lstrip('_')}": value for key, value in figures.items()}
        project.log({**named, f"{stage}/step": step})

    return write
