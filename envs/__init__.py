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
    """Import the TorchRL core when it is first used: torchrl is an extra, and slow to import."""
    if name != "WorldSimTorchRL":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from .torchrl_env import WorldSimTorchRL
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{name}: {error}; pip install 'worldsim[rl]'") from error
    return WorldSimTorchRL
