"""Training checkpoints: one safetensors file, whole or refused.

The file holds a SHA-256 over all that it says (step, settings, and every tensor's name, type, shape
and bytes), so that a single flipped bit anywhere is noticed before a run goes on from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from worldsim.config import parse_json, short
from worldsim.core import WorldError
from worldsim.files import atomic_path, open_plain

Settings = dict[str, Any]
"""All that decides a run, as JSON: the fields of its training, its model, hashes of its data and of
the weights that it begins with."""

Shapes = dict[str, tuple[int, ...]]

HARMLESS = (
    "save_seconds",
    "log_every",
    "compile",
    "strategy",
    "activation_checkpointing",
)  # what a resumed run may change
PLANNED = ("fit.steps", "fit.warmup", "fit.ema")  # what a run with a budget of time may, too


class CheckpointError(WorldError):
    """A training checkpoint that is damaged, or that was made with other settings."""


def write_checkpoint(path: Path, step: int, settings: Settings, tensors: dict[str, Tensor]) -> None:
    """Write a checkpoint, all or nothing; equal runs give equal bytes."""
    tensors = {k: v.detach().contiguous() for k, v in tensors.items()}
    run = {"step": step, "settings": settings}
    run["sha256"] = _digest(run, tensors)
    # one key: safetensors writes several in any order
    with atomic_path(path) as part:
        save_file(tensors, part, metadata={"run": json.dumps(run)})


def read_checkpoint(path: Path) -> tuple[int, Settings, dict[str, Tensor]]:
    """Step, settings and tensors; raises CheckpointError for anything but a whole checkpoint."""
    try:
        run = _run_of(path)
        tensors = load_file(path)
        digest = run.pop("sha256")
        step, settings = run["step"], run["settings"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(path, repr(error)[:200]) from error
    if digest != _digest(run, tensors):
        raise damaged(path, "other content than its SHA-256 says")
    check_header(path, step, settings)
    if wrong := not_finite(tensors):
        raise damaged(path, f"values that are not finite in {wrong}")
    return step, settings, tensors


def read_step(path: Path) -> int:
    """The step of a checkpoint, nothing else of it being looked at; -1 where there is none."""
    try:
        step = _run_of(path)["step"]
        return step if type(step) is int else -1
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return -1


def _run_of(path: Path) -> Any:
    """What a checkpoint says of its run; looked at first, as a pipe would be waited for."""
    open_plain(path).close()
    with safe_open(path, "pt") as file:
        return parse_json((file.metadata() or {})["run"], "run")


def damaged(path: Path, got: str) -> CheckpointError:
    """What is said of a checkpoint that no run can have written."""
    return CheckpointError(
        f"{path}: expected a training checkpoint, got {got}; move it away to start anew"
    )


def check_header(path: Path, step: Any, settings: Any) -> None:
    """Raise CheckpointError for a step or settings that are none."""
    if type(step) is not int or step < 0 or not isinstance(settings, dict):
        raise damaged(path, f"step {short(step)}")


def not_finite(tensors: dict[str, Tensor]) -> str:
    """Names of the tensors with values that are not finite; "" for none."""
    wrong = [n for n, x in tensors.items() if x.is_floating_point() and not x.isfinite().all()]
    return short(wrong) if wrong else ""


def _digest(run: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    whole = sha256(json.dumps(run, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        _feed(whole, name, value)
    return whole.hexdigest()


def _feed(whole: Any, name: str, value: Tensor) -> None:
    whole.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
    whole.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of all weights and buffers: what a run begins with."""
    whole = sha256()
    for name, value in model.state_dict().items():
        _feed(whole, name, value)
    return whole.hexdigest()


def shapes_of(tensors: dict[str, Tensor]) -> Shapes:
    """The tensors' shapes by name."""
    return {name: tuple(x.shape) for name, x in tensors.items()}


def check_tensors(path: Path, a: Shapes, b: Shapes) -> None:
    """Raise CheckpointError unless the names and shapes found, `a`, are those of this model."""
    if a != b:
        differ = sorted(n for n in a.keys() | b.keys() if a.get(n) != b.get(n))
        raise CheckpointError(
            f"{path}: expected the tensors of this model, got others: {short(differ)}; "
            "use the same sizes to resume, or another folder to start anew"
        )


def check_settings(path: Path, found: Settings, asked: Settings) -> None:
    """Raise CheckpointError, which names differences, unless a run may go on from a checkpoint."""
    a, b = dict(_leaves(found)), dict(_leaves(asked))
    planned = PLANNED if b.get("fit.budgeted") else ()
    names = [n for n in sorted(a.keys() | b) if n.split(".")[-1] not in HARMLESS]
    names = [n for n in names if n not in planned]
    differ = [f"{n} was {a.get(n)!r}, is {b.get(n)!r}" for n in names if a.get(n) != b.get(n)]
    if differ:
        more = f" and {len(differ) - 5} more" if len(differ) > 5 else ""
        raise CheckpointError(
            f"{path}: made with other settings: {'; '.join(differ[:5])}{more}; "
            "use the same flags to resume, or another folder to start anew"
        )


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested objects by dotted name."""
    if not isinstance(value, dict):
        yield name, value
        return
    for key, item in value.items():
        yield from _leaves(item, f"{name}.{key}" if name else key)
