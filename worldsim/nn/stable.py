"""Functions whose rows do not know their place in the batch, to the bit."""

from __future__ import annotations

from torch import Tensor


def sigmoid(x: Tensor) -> Tensor:
    """`x.sigmoid()`, elementwise, of any shape and floating type.

    A CPU computes whole vectors of float32 by another polynomial than what is left over at the end,
    and the two differ in the last bit; rounded from float64 they do not.
    """
    return x.double().sigmoid().to(x.dtype) if x.device.type == "cpu" else x.sigmoid()
