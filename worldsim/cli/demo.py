"""Film reality beside the dream."""

from __future__ import annotations

from pathlib import Path

from worldsim.play.demo import run_demo
from worldsim.recipes.recipe import RESERVED_SEED
from worldsim.worlds import DEFAULT


def demo(
    world: str = DEFAULT,
    out: Path = Path("demo.mp4"),
    seconds: float = 20.0,
    seed: int = RESERVED_SEED + 7,
    device: str = "cpu",
) -> None:
    """Write a film of the real environment beside the dream.

    Args:
        world: a bundled world's name or a folder.
        out: the film.
        seconds: its length.
        seed: of the track and the dream, from 10,000 up: seen by no training.
        device: where to dream.
    """
    run_demo(world, out, seconds, seed, device)
