"""What callers ask of a vector environment: rows, seeds and modes, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from worldsim.actions import as_tensor
from worldsim.core import WorldError

from .core import NeedsReset


def check_mask(mask: Any, num_envs: int, *, running: bool) -> Tensor:
    """Rows to reset, (N,) bool on the host; all of them unless the environment is `running`."""
    if mask is None:
        return torch.ones(num_envs, dtype=torch.bool)
    try:
        rows = mask.cpu() if isinstance(mask, Tensor) else as_tensor(mask, "reset_mask")
    except (TypeError, ValueError) as error:
        got = type(mask).__name__
        raise WorldError(f"reset_mask: expected an array of bool, got {got}") from error
    if rows.dtype != torch.bool or tuple(rows.shape) != (num_envs,):
        expected, got = f"bool of shape ({num_envs},)", tuple(rows.shape)
        raise WorldError(f"reset_mask: expected {expected}, got {rows.dtype} of shape {got}")
    if not bool(rows.any()):
        raise WorldError("reset_mask: expected at least one row to reset, got none")
    if not running and not bool(rows.all()):
        raise NeedsReset("call env.reset() for all rows before resetting some of them")
    return rows.clone()


def check_seeds(seed: Any, num_envs: int) -> list[int | None]:
    """One seed a row, None for its next episode."""
    if seed is None:
        return [None] * num_envs
    if is_seed(seed):
        return [int(seed) + row for row in range(num_envs)]
    listed = list(seed) if isinstance(seed, Sequence | np.ndarray) else []
    if len(listed) != num_envs or not all(s is None or is_seed(s) for s in listed):
        raise WorldError(
            f"seed: expected None, a whole number from 0 up or {num_envs} of these, got {seed!r}"
        )
    return [None if s is None else int(s) for s in listed]


def is_seed(seed: Any) -> bool:
    """Whether this is one seed: a whole number from 0 up."""
    whole = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
    return whole and int(seed) >= 0


def as_mode(mode: AutoresetMode | str) -> AutoresetMode:
    """An `AutoresetMode` from itself or its name: "SAME_STEP", "same_step", "SameStep"."""
    if isinstance(mode, AutoresetMode):
        return mode
    plain = str(mode).replace("_", "").lower()
    for known in AutoresetMode:
        if plain == known.value.lower():
            return known
    names = [known.name for known in AutoresetMode]
    raise WorldError(f"autoreset_mode: expected one of {names}, got {mode!r}")
