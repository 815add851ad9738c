"""Whether a dream still knows what a sensor would tell: its state vectors beside the real ones."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from worldsim.metrics import bootstrap, r_squared

from .clips import Clips

STATE_HORIZONS = (1, 10, 30, 60)


def state_figures(clips: Clips, states: Tensor, names: tuple[str, ...]) -> dict[str, Any] | None:
    """R² of each entry of the dreamt states (N, T, D) at some horizons; None where none is known.

    By name and horizon, with 95% intervals over episodes: 1 is perfect, 0 no better than always
    saying the mean.
    """
    if not states.shape[-1] or states.shape != clips.states.shape:
        return None
    known = clips.valid & clips.states.isfinite().all(-1)
    found: dict[str, Any] = {}
    for place, name in enumerate(names):
        by_horizon = {}
        for h in (h for h in STATE_HORIZONS if h <= states.shape[1]):
            rows = known[:, h - 1]
            if rows.sum() < 3:
                continue
            pair = tuple(x[rows, h - 1, place] for x in (states, clips.states))
            figure = partial(r_squared, *pair)
            by_horizon[str(h)] = bootstrap(figure, clips.cluster[rows])._asdict()
        found[name] = by_horizon
    return found if any(found.values()) else None
