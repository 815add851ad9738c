"""Worlds as environments for RL code, imported as `worldsim.envs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .core import NeedsReset
from .gym_env import WorldSimEnv
from .rows import REASONS
from .state import EnvState, TorchRLState, VectorEnvState
from .vector_env import WorldSimVectorEnv

if TYPE_CHECKING:
    from .torchrl_env import WorldSimTorchRL

__all__ = [
    "REASONS",
    "EnvState",
    "NeedsReset",
    "TorchRLState",
    "VectorEnvState",
    "WorldSimEnv",
    "WorldSimTorchRL",
    "WorldSimVectorEnv",
]


def __getattr__(name: str) -> Any:
    """Import the TorchRL environment when it is first used: torchrl is slow to import."""
    if name != "WorldSimTorchRL":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .torchrl_env import WorldSimTorchRL

    return WorldSimTorchRL
