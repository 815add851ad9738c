"""How much faster CarRacing is recorded where only what is in sight is drawn, byte for byte alike.

    python -m benchmarks.recording

Both environments take turns within one process, frame by frame, so that whatever else the machine
does meets both; process time counts.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
import tyro

from worldsim.evaluate.report import write_card
from worldsim.flags import refuse_repeated
from worldsim.recipes.car_racing.drawing import draw_in_sight
from worldsim.recipes.car_racing.drivers import pursue
from worldsim.store.provenance import provenance

from . import RESULTS


def main(
    tracks: int = 3, frames: int = 200, out: Path = RESULTS / "recording-car-racing.json"
) -> None:
    """Drive some tracks in both, compare every frame, and print the ratio.

    Args:
        tracks: how many, of the recipe's validation seeds.
        frames: of each.
        out: the JSON file.
    """
    plain, quick = (gymnasium.make("CarRacing-v3") for _ in range(2))
    draw_in_sight(quick)
    spent, equal = [0.0, 0.0], True
    for seed in range(1000, 1000 + tracks):
        for env in (plain, quick):
            env.reset(seed=seed)
        for _ in range(frames):
            action = pursue(plain)
            shown = []
            for place, env in enumerate((plain, quick)):
                begun = time.process_time()
                shown.append(env.step(action)[0])
                spent[place] += time.process_time() - begun
            equal &= np.array_equal(*shown)
    count = tracks * frames
    figures = {
        "frames": count, "equal": bool(equal), "ratio": spent[0] / spent[1],
        "plain_ms": 1e3 * spent[0] / count, "quick_ms": 1e3 * spent[1] / count,
    }  # fmt: skip
    write_card({"format": "worldsim-recording", **figures, "provenance": provenance()}, out)
    print(figures)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, args=refuse_repeated(sys.argv[1:]))
