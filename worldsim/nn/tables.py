"""Tensors that hang on sizes alone, computed once and not at every pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Tables(nn.Module):
    """Keeps what `make(*sizes, device)` returns, for every function, sizes and device.

    No part of a network's state: tables are found again, not saved, copied or averaged. What a
    compiler traces is read where it is kept already and left alone where it is not, since a traced
    tensor is no value.
    """

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[tuple[Any, ...], str] = {}

    def forward(
        self, make: Callable[..., Tensor], *sizes: int | tuple[int, ...], device: torch.device
    ) -> Tensor:
        """The table of `make`; sizes are hashable."""
        key = (make.__name__, sizes, str(device))
        if key in self._names:
            return getattr(self, self._names[key])
        if torch.compiler.is_compiling():
            return make(*sizes, device)
        with torch.inference_mode(False):  # whoever comes next may want gradients
            table = make(*sizes, device)
        self._names[key] = f"table{len(self._names)}"
        setattr(self, self._names[key], table)
        return table

    def settle(self) -> None:
        """Make what is kept into buffers: constants for a compiler that freezes the network."""
        for name in self._names.values():
            if name not in self._buffers:
                table = getattr(self, name)
                delattr(self, name)
                self.register_buffer(name, table, persistent=False)
