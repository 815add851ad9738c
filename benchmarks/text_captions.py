"""How well a captioner that saw some captions labels the rest: attributes told right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from worldsim.data.captions import captions_of
from worldsim.data.dataset import Dataset
from worldsim.recipes.car_racing.captions import values_in
from worldsim.train.captioner import CaptionerTraining, recaption, told_in

from .text_weathers import recorded

DRAWS = 3
"""Of the drives that are captioned: of twenty, some draws have a weather in one stretch alone."""


def captions(folder: Path, *, quick: bool = False) -> dict[str, Any]:
    """Captions by captioners of few of 400 drives, of 40 tracks under ten lights and weathers."""
    data = recorded(folder / "data", *((30, 1) if quick else (60, 40)))
    steps = 10 if quick else 1200
    found: dict[str, Any] = {}
    for share in (0.05, 0.2):
        draws = [
            captioned(data, folder / f"out-{share}-{draw}", share, steps, draw)
            for draw in range(1 if quick else DRAWS)
        ]
        mean = {name: float(np.mean([draw[name] for draw in draws])) for name in draws[0]}
        by_draw = [draw["attributes right"] for draw in draws]
        found[f"{share:.0%} labelled"] = {**mean, "attributes right by draw": by_draw}
    return found


def captioned(
    data: Dataset, out: Path, share: float, steps: int, draw: int = 0
) -> dict[str, float]:
    """Learn from a drawn share of the episodes; how right the captions of the others are.

    An attribute counts that a caption speaks of, against what the true captions of the same
    stretch say. draw: which episodes.
    """
    whole, known = told_in(data), drawn_names(data.split("train"), share, draw)
    told = {name: captions for name, captions in whole.items() if name in known}
    made, _ = recaption(data, told, out, CaptionerTraining(steps=steps), wordings=1)
    right = total = said = 0
    for place, name in enumerate(made.names):
        if name in known:
            continue
        for one in captions_of(made.episode(place)):
            truth: dict[str, str] = {}
            for other in whole[name]:
                if other.first <= one.first and one.stop <= other.stop:
                    truth |= values_in(other.text)
            found = values_in(one.text)
            both = found.keys() & truth.keys()
            said, total = said + 1, total + len(both)
            right += sum(found[key] == truth[key] for key in both)
    return {"attributes right": right / max(total, 1), "attributes a caption": total / max(said, 1)}


def drawn_names(data: Dataset, share: float, draw: int = 0) -> set[str]:
    """A share of the episodes, one or more, the same ones in each `draw`."""
    names = list(data.names)
    count = max(1, round(share * len(names)))
    return set(np.random.default_rng(draw).choice(names, count, replace=False).tolist())
