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
    from worldsim.collect.api import collect
    from worldsim.core import ActionSpec, Prediction, WorldError, WorldModel, WorldSpec, WorldState
    from worldsim.data.export import export
    from worldsim.data.open import open
    from worldsim.hub.push import push
    from worldsim.latent_actions.mapping import map_actions
    from worldsim.latent_actions.reading import read_actions
    from worldsim.latent_actions.training import train_latent_actions
    from worldsim.pipeline import train
    from worldsim.store.folder import load, save
    from worldsim.store.snapshot import SnapshotError, SnapshotWarning, load_state, save_state
    from worldsim.video import edit, generate
    from worldsim.world.compiled import compiled
    from worldsim.world.fixed_batch import FixedBatch
    from worldsim.world.point import PointWorld
    from worldsim.world.rollout import Rollout, imagine, replay

__version__ = "0.1.0"

_HOME = {
    "export": "data.export",
    "open": "data.open",
    "map_actions": "latent_actions.mapping",
    "read_actions": "latent_actions.reading",
    "train_latent_actions": "latent_actions.training",
    "compiled": "world.compiled",
    "load": "store.folder",
    "push": "hub.push",
    "save": "store.folder",
    "ActionSpec": "core",
    "Prediction": "core",
    "WorldError": "core",
    "WorldModel": "core",
    "WorldSpec": "core",
    "WorldState": "core",
    "FixedBatch": "world.fixed_batch",
    "Rollout": "world.rollout",
    "edit": "video",
    "generate": "video",
    "imagine": "world.rollout",
    "replay": "world.rollout",
    "PointWorld": "world.point",
    "SnapshotError": "store.snapshot",
    "SnapshotWarning": "store.snapshot",
    "load_state": "store.snapshot",
    "save_state": "store.snapshot",
}
_ROOMS = ("agents", "collect", "envs", "train")

__all__ = [
    "ActionSpec",
    "FixedBatch",
    "PointWorld",
    "Prediction",
    "Rollout",
    "SnapshotError",
    "SnapshotWarning",
    "WorldError",
    "WorldModel",
    "WorldSpec",
    "WorldState",
    "collect",
    "compiled",
    "edit",
    "export",
    "generate",
    "imagine",
    "load",
    "load_state",
    "map_actions",
    "open",
    "push",
    "read_actions",
    "replay",
    "save",
    "save_state",
    "train",
    "train_latent_actions",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{_hint(name)}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def _hint(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, __all__, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


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
gymnasium.register(
    "WorldSim/SceneryRacing-v0", entry_point="worldsim.recipes.car_racing.captioned:make"
)
gymnasium.register(
    "WorldSim/StateRacing-v0", entry_point="worldsim.recipes.car_racing.sensors:make"
)
