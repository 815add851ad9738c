"""The bundled worlds: one folder each, data only; load them with `worldsim.load(name)`."""

from pathlib import Path

ROOT = Path(__file__).parent

DEFAULT = "car-racing-state"
"""The world where none is named: `gymnasium.make("WorldSim-v0")`, `worldsim play`, `demo`, ..."""


def names() -> list[str]:
    """The bundled worlds' names, sorted."""
    return sorted(path.parent.name for path in ROOT.glob("*/manifest.json"))
