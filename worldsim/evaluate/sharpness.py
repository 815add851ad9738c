"""Whether a dream is as sharp as reality: gradient energy, dream over reality.

Error rewards the mean of all futures, which is a blur. The energy of a picture's gradients does
not: speckle makes it larger than reality's, fog smaller (as in the sharpness term of Mathieu et al.
2016, 1511.05440).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from worldsim.metrics import bootstrap, weighted_mean

from .clips import Clips

SHARP_STEPS = (1, 16, 60)
WEIGHTS = (0.299, 0.587, 0.114)  # of luminance, ITU-R BT.601


def gradient_energy(frames: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels' luminance, 0 to 255, both ways.

    `(..., H, W, 3)` uint8 -> `(...)` float32.
    """
    grey = (frames.float() * torch.tensor(WEIGHTS, device=frames.device)).sum(-1)
    down, right = grey.diff(dim=-2), grey.diff(dim=-1)
    return (down**2).mean((-2, -1)) + (right**2).mean((-2, -1))


def sharpness(
    dreamt: Tensor, clips: Clips, steps: Sequence[int] = SHARP_STEPS
) -> dict[str, dict[str, float]]:
    """Gradient energy of dreams (N, T, c, H, W, 3) over that of the real frames, by step.

    With 95% intervals over episodes; 1 is as sharp as reality.
    """
    found = {}
    for step in (s for s in steps if s <= dreamt.shape[1]):
        frames = (x[:, step - 1] for x in (dreamt, clips.frames))
        both = torch.stack([gradient_energy(x).mean(1) for x in frames], 1)

        def figure(weights: Tensor, both: Tensor = both) -> Tensor:
            means = weighted_mean(both, weights)
            return means[:, 0] / means[:, 1]

        found[str(step)] = bootstrap(figure, clips.cluster)._asdict()
    return found
