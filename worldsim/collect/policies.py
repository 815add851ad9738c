"""Who acts while a world is recorded: ways of driving, their mix, and policies of the user.

A behaviour makes a policy for one episode from the environment and a random generator; the policy
maps an observation to an action. The drivers of CarRacing read the track from the simulator, so
none needs training.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import gymnasium
import numpy as np

Policy = Callable[[Any], Any]
MakePolicy = Callable[[gymnasium.Env[Any, Any], np.random.Generator], Policy]
GOLDEN = 0.6180339887498949


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """A named way to act.

    share: its part of the episodes, relative to the other shares, > 0.
    seeds: [first, stop) that are its alone; it then has no part in the others.
    sees: what its policy is handed: the environment's "obs", or the "chunk" that was recorded last,
        (c, H, W, 3) uint8 as it is stored (at first the newest frame, standing still).
    """

    name: str
    make: MakePolicy
    share: float = 1.0
    seeds: tuple[int, int] | None = None
    sees: Literal["obs", "chunk"] = "obs"

    def __post_init__(self) -> None:
        if not self.share > 0:
            raise ValueError(f"share: expected a number > 0 for {self.name!r}, got {self.share}")


def choose(behaviours: Sequence[Behaviour], seed: int) -> Behaviour:
    """The behaviour of episode `seed`. Multiples of the golden ratio spread evenly over the shares,
    so any run of consecutive seeds holds them nearly exactly."""
    for behaviour in behaviours:
        if behaviour.seeds and behaviour.seeds[0] <= seed < behaviour.seeds[1]:
            return behaviour
    sharing = [behaviour for behaviour in behaviours if behaviour.seeds is None]
    if not sharing:
        raise ValueError(f"behaviours: expected at least one for seed {seed}, got none")
    shares = np.cumsum([behaviour.share for behaviour in sharing])
    point = (seed + 0.5) * GOLDEN % 1.0
    return sharing[int(np.searchsorted(shares / shares[-1], point, side="right"))]


def uniform(env: gymnasium.Env[Any, Any], rng: np.random.Generator) -> Policy:
    """A fresh random action each time: for worlds that need no skill to move."""
    space = env.action_space
    if isinstance(space, gymnasium.spaces.Box):
        return lambda obs: rng.uniform(space.low, space.high).astype(np.float32)
    if isinstance(space, gymnasium.spaces.Discrete):
        return lambda obs: int(rng.integers(space.n))
    raise ValueError(f"action space: expected Box or Discrete, got {space}")


def from_path(path: str) -> Behaviour:
    """The plain policy ``obs -> action`` at "module:function", importable here and in workers.

    Raises ValueError if there is no such callable.
    """
    _resolve(path)
    return Behaviour(name=path, make=partial(_make_from_path, path))


def _make_from_path(path: str, env: object, rng: object) -> Policy:
    return _resolve(path)


def _resolve(path: str) -> Policy:
    module, _, name = path.partition(":")
    try:
        policy = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"policy: expected an importable 'module:function', got {path!r} ({error}); "
            "run from the folder that holds the module, or install it"
        ) from error
    if not callable(policy):
        raise ValueError(f"policy: expected a callable at {path!r}, got {type(policy).__name__}")
    return policy
