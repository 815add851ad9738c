"""Devices by name."""

from __future__ import annotations

import torch

from worldsim.errors import WorldError


def as_device(device: torch.device | str) -> torch.device:
    """The device of that name, "cpu", "cuda", "cuda:1", "mps", if this machine has it.

    Raises WorldError that says what there is.
    """
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError):
        there = ["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]
        if torch.backends.mps.is_available():
            there.append("mps")
        remedy = "" if len(there) > 1 else " (no GPU that this build of torch can use)"
        raise WorldError(
            f"device: expected one of {', '.join(there)}{remedy}, got {str(device)!r}"
        ) from None
    return found
