"""Where an environment's world comes from: a name, a folder, a function or an object."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import torch

from worldsim.core import WorldError, WorldModel
from worldsim.store.hub import is_address
from worldsim.world.fixed_batch import FixedBatch
from worldsim.worlds import names

WORLDS_KEPT = 4  # loaded worlds that a process keeps for the next environment


_process = os.getpid()  # that was last seen here


def use_one_thread_if_forked() -> None:
    """In a forked child in which an environment is used: compute on one thread.

    OpenMP's threads do not survive a fork, and a child that waits for them waits for ever (tried:
    AsyncVectorEnv's workers, forked after a step on two threads). On one thread it needs none.
    """
    global _process
    if os.getpid() != _process:
        torch.set_num_threads(1)
        _process = os.getpid()


@dataclass(frozen=True, eq=False)
class SharedWorld:
    """A world given as an object; copies of an `EnvSpec` share it instead of copying networks."""

    world: WorldModel

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


Source = str | SharedWorld


def as_source(world: Any) -> Source:
    """What an environment may keep, copy and pickle of its `world` argument.

    A folder becomes an absolute path, so that a copy finds it after `os.chdir`, too.
    """
    if isinstance(world, SharedWorld):
        return world
    if is_address(world):
        return world
    if isinstance(world, os.PathLike) or (isinstance(world, str) and world not in names()):
        return os.path.abspath(world) if os.path.exists(world) else os.fspath(world)
    if isinstance(world, str):
        return world
    if isinstance(world, WorldModel) and not isinstance(world, type):
        return SharedWorld(world)
    raise WorldError(
        'world: expected a bundled name, a folder, "hf://ORG/NAME", "module:function" or an object '
        f"with the methods of worldsim.WorldModel, got {type(world).__name__}"
    )


def find_world(
    source: Source,
    device: str,
    num_steps: int | None,
    compile: bool = False,
    dtype: str | None = None,
    micro_batch: int | None = None,
) -> WorldModel:
    """The world itself; one read from disk or made by a function is shared within the process."""
    use_one_thread_if_forked()
    if dtype is not None and not compile:
        raise WorldError(f"dtype: expected None, as compile is False, got {dtype!r}")
    world = _sampled(source, device, num_steps)
    world = _compiled(world, dtype) if compile else world
    return world if micro_batch is None else FixedBatch(world, micro_batch)


def _compiled(world: WorldModel, dtype: str | None) -> WorldModel:
    from worldsim.world.compiled import compiled  # here: worlds made by a function need no networks
    from worldsim.world.diffusion import DiffusionWorld

    if not isinstance(world, DiffusionWorld):
        raise WorldError(f"compile: {world.spec.name} has no networks, leave compile=False")
    return compiled(world, dtype=dtype)  # type: ignore[arg-type]


def _sampled(source: Source, device: str, num_steps: int | None) -> WorldModel:
    if isinstance(source, SharedWorld):
        world = source.world
    elif ":" in source and not is_address(source) and not Path(source).exists():
        world = _make(source, device)
    else:
        world = _load(source, device, _identity(source))
    if num_steps is not None:
        world = world.with_num_steps(num_steps)
    return world


def _identity(folder: str) -> tuple[int, int] | None:
    """Changes when another world is saved to the folder; None for a bundled name."""
    try:
        info = os.stat(folder)
    except OSError:
        return None
    return info.st_ino, info.st_ctime_ns


@lru_cache(maxsize=WORLDS_KEPT)
def _load(name: str, device: str, identity: tuple[int, int] | None) -> WorldModel:
    from worldsim.store.folder import load  # here: worlds made by a function need no networks

    return load(name, device=device)


@lru_cache(maxsize=WORLDS_KEPT)
def _make(name: str, device: str) -> WorldModel:
    module, _, function = name.partition(":")
    try:
        make = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise WorldError(
            f'world: expected "module:function" that can be imported, got {name!r}: {error}'
        ) from error
    world = make(device=torch.device(device))
    if not isinstance(world, WorldModel):
        raise WorldError(f"world: expected {name} to return a world, got {type(world).__name__}")
    return world
