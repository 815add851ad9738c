"""Consistency distillation of one chunk given its past.

The student maps any point of a teacher's sampling path to the path's clean end in one call. It is
trained by asking that two points of one path agree (Song et al. 2023, Algorithm 2): the teacher
takes a step from the first to the second, where the averaged student answers. Pairs drawn from
data instead (Easy Consistency Tuning, 2406.14548) agree in the mean only, and a student that has
learnt the mean dreams roads away. The context is the same for both points: a network that noises
all chunks together would change the condition from one to the other.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .samplers import Denoise, toward


def earlier_level(level: Tensor, halvings: Tensor) -> Tensor:
    """The level a fraction 1 - 2**-s of the way from clean to `level`, measured as an angle.

    level: (...) in (0, 1]. halvings: (...) s >= 0; s = 0 gives 0, the clean end. Euler steps of
    s = 1, 2, 3 go from pure noise to a level of 0.1 in 4, 10 and 20 steps. The angle
    atan2(t, 1 - t) stays finite at pure noise, where the noise-to-signal ratio does not.
    """
    angle = torch.atan2(level, 1 - level) * (1 - 2.0**-halvings)
    tangent = angle.tan()
    r = tangent / (1 + tangent)
    return torch.where(angle > math.pi / 2 - 1e-4, torch.ones_like(r), r)


@torch.no_grad()
def consistency_target(
    teacher: Denoise, student: Denoise, noisy: Tensor, level: Tensor, earlier: Tensor
) -> Tensor:
    """What the student shall say of `noisy` at `level`: its averaged self's answer at `earlier`.

    noisy: (..., D...). level, earlier: (...), the leading axes of `noisy`.
    """
    return student(toward(noisy, teacher(noisy, level), level, earlier), earlier)


def pseudo_huber(error: Tensor, width: float = 0.03) -> Tensor:
    """(sqrt(|e|^2 + c^2) - c) / sqrt(D) of each chunk, c = width sqrt(D): (B, T, ...) -> (B, T).

    Robust where a wide constant matters: with iCT's narrow one small objects are hallucinated.
    """
    count = error[0, 0].numel()
    c = width * math.sqrt(count)
    square = (error**2).flatten(2).sum(-1)
    return ((square + c**2).sqrt() - c) / math.sqrt(count)


def halvings_at(step: int, steps: int, most: int) -> int:
    """The s of a training step: coarse first, from 1 up to `most` in equal parts."""
    return min(most, 1 + step * most // max(steps, 1))
