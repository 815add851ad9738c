"""Flags that are read one step late, so that nobody waits for a device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Flags:
    """Flags `(B,)` on their way to the host.

    Reading them waits for the step that made them, and not for what has been asked of the device
    since: so a step that begins by reading those of the step before leaves the device at work.
    """

    def __init__(self, flags: Tensor) -> None:
        self._host = flags.to("cpu", non_blocking=True)
        self._arrival = torch.cuda.Event() if flags.is_cuda else None
        if self._arrival is not None:
            self._arrival.record()

    def read(self) -> Tensor:
        """The flags, on the host."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return self._host

    def __getstate__(self) -> dict[str, Any]:
        return {"_host": self.read(), "_arrival": None}
