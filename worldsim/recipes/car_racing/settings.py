"""How CarRacing-v3 is recorded."""

from dataclasses import replace
from pathlib import Path

from worldsim.collect.recorder import CollectConfig


def car_racing(folder: Path = Path("data/car-racing")) -> CollectConfig:
    """CarRacing-v3 as the bundled world saw it: the score bar cropped away, 56x64, 25 actions/s.

    The first 50 frames are the camera's zoom and are dropped.
    """
    return CollectConfig(
        env_id="CarRacing-v3",
        folder=folder,
        source="observation",
        crop=(0, 84, 0, 96),
        size=(56, 64),
        chunk=2,
        warmup=50,
        train=(0, 300),
        val=(1000, 1050),
        test=(5000, 5050),
    )


def car_racing_panel(folder: Path = Path("data/car-racing-panel")) -> CollectConfig:
    """The same with the panel below the picture: 64x64.

    The panel shows the speed, which a moving picture alone shows too roughly to be dreamt on: its
    latest chunk tells it to 1.4 units a second, six without the panel to 3.7 (docs/journal/log.md).
    """
    return replace(car_racing(folder), crop=None, size=(64, 64))
