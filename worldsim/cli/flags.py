"""Flags that several commands share."""

from __future__ import annotations

from typing import Literal

import torch

SizeName = Literal["tiny", "small", "medium", "base", "xl"]


def use_threads(count: int | None) -> None:
    """Compute on `count` CPU threads, as many as torch likes if None."""
    torch.set_num_threads(count or torch.get_num_threads())
