"""Consistency distillation of one chunk given its past.

The student maps any point of a noising path to the path's clean end in one call. It is trained by
asking that two points of one path, drawn from data, agree (Easy Consistency Tuning, 2406.14548):
the point nearer to the end is answered by the averaged student, and at the end itself the answer
is the data. The context is the same for both: a network that noises all chunks together would
change the condition from one point to the other.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def earlier_level(level: Tensor, halvings: Tensor) -> Tensor:
    """The level a fraction 1 - 2**-s of the way from clean to `level`, measured as an angle.

    level: (...) in (0, 1]. halvings: (...) s >= 0; s = 0 gives 0, the clean end. The angle
    atan2(t, 1 - t) stays finite at pure noise, where the noise-to-signal ratio does not.
    """
    angle = torch.atan2(level, 1 - level) * (1 - 2.0**-halvings)
    tangent = angle.tan()
    r = tangent / (1 + tangent)
    return torch.where(angle > math.pi / 2 - 1e-4, torch.ones_like(r), r)


def pseudo_huber(error: Tensor, width: float = 0.03) -> Tensor:
    """(sqrt(|e|^2 + c^2) - c) / sqrt(D) of each chunk, c = width sqrt(D): (B, T, ...) -> (B, T).

    Robust where a wide constant matters: with iCT's narrow one small objects are hallucinated.
    """
    count = error[0, 0].numel()
    c = width * math.sqrt(count)
    square = (error**2).flatten(2).sum(-1)
    return ((square + c**2).sqrt() - c) / math.sqrt(count)


def halvings_at(step: int, steps: int, most: int) -> int:
    """The largest s allowed at a step: coarse first, one finer each third of the training."""
    return min(most, step * (most + 1) // max(steps, 1))
