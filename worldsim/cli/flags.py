"""Flags that several commands share, and files that flags name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from worldsim.config import ConfigError, read_json
from worldsim.core import WorldError

SizeName = Literal["tiny", "small", "medium", "base", "xl"]


def use_threads(count: int | None) -> None:
    """Compute on `count` CPU threads, as many as torch likes if None."""
    if count is not None and count < 1:
        raise WorldError(f"threads: expected at least 1, got {count}; leave it out for all")
    torch.set_num_threads(count or torch.get_num_threads())


def read_result(flag: str, path: Path | None, command: str) -> dict[str, Any] | None:
    """The JSON object that `command` wrote to the file of a flag, None without one."""
    if path is None:
        return None
    try:
        result, got = read_json(path), f"another value in {path}"
    except ConfigError as error:
        result, got = None, str(error)
    if not isinstance(result, dict):
        raise WorldError(f"{flag}: expected the JSON object that {command} writes, got {got}")
    return result
