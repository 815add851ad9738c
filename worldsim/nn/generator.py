"""Torch's global generators, left as they were found: a user's draws do not depend on ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def kept_generator() -> Iterator[None]:
    """A region in which the global generators may be seeded and drawn from; it puts them back."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        yield
