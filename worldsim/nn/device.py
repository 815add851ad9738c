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
        raise WorldError(
            f"device: expected one of {', '.join(there)}, got {str(device)!r}; {_remedy(there)}"
        ) from None
    return found


def _remedy(there: list[str]) -> str:
    """What to do where another device was asked for than there is."""
    if len(there) > 1:
        return f"name one of them, such as {there[1]!r}"
    if torch.version.cuda is None and torch.version.hip is None:
        return "this torch is built for CPUs alone: use 'cpu', or install a torch with CUDA"
    return "torch finds no GPU here: use 'cpu', or see whether nvidia-smi finds one"
