"""A run's newest checkpoint, whoever wrote it: a file of one process, or a folder of many.

Any number of processes reads either, see `checkpoint.py` and `sharded.py`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from .checkpoint import Settings, Shapes, read_checkpoint, read_step, shapes_of

NAME = re.compile(r"checkpoint-(\d{9})$")

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Stored:
    """A checkpoint that is whole.

    Attributes:
        step, settings: of the training.
        shapes: of its tensors by name.
        read: `read(like)`, the tensors, placed on the processes as those of `like` are.
    """

    step: int
    settings: Settings
    shapes: Shapes
    read: Callable[[Tensors], Tensors]


def newest(folder: Path) -> Path | None:
    """The newest checkpoint of a run, if any."""
    single, shards = folder / "checkpoint", sealed(folder)
    if not shards or not single.exists():
        return shards[-1] if shards else single if single.exists() else None
    return shards[-1] if step_of(shards[-1]) > read_step(single) else single


def sealed(folder: Path) -> list[Path]:
    """The whole sharded checkpoints of a run, oldest first."""
    return sorted(p for p in folder.glob("checkpoint-*") if NAME.search(p.name))


def step_of(path: Path) -> int:
    """The step that a sharded checkpoint's name says."""
    return int(path.name.rpartition("-")[2])


def remove_sealed(folder: Path) -> None:
    """Remove sharded checkpoints: a newer file of one process is there."""
    for path in sealed(folder):
        shutil.rmtree(path, ignore_errors=True)


def open_checkpoint(path: Path) -> Stored:
    """A checkpoint of either kind; raises CheckpointError, on all processes, unless it is whole."""
    if path.is_dir():
        from . import sharded

        step, settings, shapes = sharded.read_seal(path)
        return Stored(step, settings, shapes, lambda like: sharded.read_tensors(path, like))
    step, settings, tensors = read_checkpoint(path)

    def read(like: Tensors) -> Tensors:
        from .parallel import placed

        return {name: placed(x, like[name]) for name, x in tensors.items()}

    return Stored(step, settings, shapes_of(tensors), read)
