"""worldsim turns recorded video of a world into a simulator that agents can step through.

    import gymnasium, worldsim
    env = gymnasium.make("WorldSim-v0")

Importing this registers the environments and nothing more: torch comes with the first name used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import gymnasium

if TYPE_CHECKING:
    from .checkpoint import load, save
    from .core import ActionSpec, Prediction, WorldError, WorldModel, WorldSpec, WorldState
    from .engine import compiled
    from .microbatch import MicroBatched
    from .rollout import Rollout, imagine, replay
    from .snapshot import SnapshotError, SnapshotWarning, load_state, save_state
    from .toy import PointWorld

__version__ = "0.1.0"

_HOME = {
    "compiled": "engine",
    "load": "checkpoint",
    "save": "checkpoint",
    "ActionSpec": "core",
    "Prediction": "core",
    "WorldError": "core",
    "WorldModel": "core",
    "WorldSpec": "core",
    "WorldState": "core",
    "MicroBatched": "microbatch",
    "Rollout": "rollout",
    "imagine": "rollout",
    "replay": "rollout",
    "PointWorld": "toy",
    "SnapshotError": "snapshot",
    "SnapshotWarning": "snapshot",
    "load_state": "snapshot",
    "save_state": "snapshot",
}
_ROOMS = ("agents", "envs")

__all__ = [
    "ActionSpec",
    "MicroBatched",
    "PointWorld",
    "Prediction",
    "Rollout",
    "SnapshotError",
    "SnapshotWarning",
    "WorldError",
    "WorldModel",
    "WorldSpec",
    "WorldState",
    "compiled",
    "imagine",
    "load",
    "load_state",
    "replay",
    "save",
    "save_state",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})


# The environment enforces order and its own time limit, so that `make` returns it unwrapped and
# `env.get_state()` is at hand: since Gymnasium 1.0 wrappers do not pass such names on.
gymnasium.register(
    "WorldSim-v0",
    entry_point="worldsim.envs:WorldSimEnv",
    vector_entry_point="worldsim.envs:WorldSimVectorEnv",
    order_enforce=False,
    disable_env_checker=True,
)
