"""What environments save: values that say all their futures depend on."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from worldsim.core import WorldError, WorldModel, WorldState
from worldsim.store.snapshot import check_fits


@dataclass(frozen=True, kw_only=True)
class Rng:
    """Where an environment's `np_random` stands (NumPy's PCG64, O'Neill 2014).

    Attributes:
        state, inc: the 128-bit words of PCG64.
        has_uint32, uinteger: half a word that was drawn and not yet used.
        seed: what it began with, -1 if unknown.
    """

    state: int
    inc: int
    has_uint32: int
    uinteger: int
    seed: int

    @classmethod
    def of(cls, generator: np.random.Generator, seed: int) -> Self:
        """Where `generator` stands."""
        saved: dict[str, Any] = dict(generator.bit_generator.state)
        if saved["bit_generator"] != "PCG64":
            raise WorldError(f"np_random: expected PCG64 to save, got {saved['bit_generator']}")
        words = {name: int(word) for name, word in saved["state"].items()}
        half = {name: int(saved[name]) for name in ("has_uint32", "uinteger")}
        return cls(**words, **half, seed=-1 if seed is None else int(seed))

    def generator(self) -> np.random.Generator:
        """A new generator that goes on from here."""
        bits = np.random.PCG64()
        try:
            bits.state = {
                "bit_generator": "PCG64",
                "state": {"state": self.state, "inc": self.inc},
                "has_uint32": self.has_uint32,
                "uinteger": self.uinteger,
            }
        except (OverflowError, TypeError, ValueError) as error:
            raise WorldError(f"saved: expected the state of PCG64, got {self}") from error
        return np.random.Generator(bits)


@dataclass(frozen=True, kw_only=True)
class Episode:
    """Where one episode stands.

    Attributes:
        state: the world's state, one row.
        seed: drawn when the environment was seeded; names all its episodes' randomness.
        number: episodes since then.
        steps: steps since the reset.
        over: whether only a reset may follow.
    """

    state: WorldState
    seed: int
    number: int
    steps: int
    over: bool


@dataclass(frozen=True, kw_only=True)
class EnvState:
    """All that the future of a `WorldSimEnv` depends on, its action sampler apart.

    Attributes:
        world: the world's name.
        episode: where the episode stands.
        rng: where `env.np_random` stands.
    """

    world: str
    episode: Episode
    rng: Rng

    def check(self, world: WorldModel, like: WorldState | None = None) -> None:
        """Raise `WorldError` unless an environment of `world` could go on from here."""
        _check(world, self.world, self.episode.state, 1, like)


@dataclass(frozen=True, kw_only=True)
class VectorEnvState:
    """All that the future of a `WorldSimVectorEnv` depends on, its action sampler apart.

    Attributes:
        world: the world's name.
        autoreset_mode: the mode it was saved under, by name.
        state: (N, ...) where the rows stand.
        frames: (N, c, H, W, 3) uint8, what was last seen; None where observations are latents.
        due: (N,) bool, rows that ended in the last step.
        rng: where `env.np_random` stands.
    """

    world: str
    autoreset_mode: str
    state: WorldState
    frames: Tensor | None
    due: Tensor
    rng: Rng

    def check(self, world: WorldModel, mode: str, rows: int) -> None:
        """Raise `WorldError` unless an environment of such rows could go on from here."""
        if self.autoreset_mode != mode:
            raise WorldError(f"saved: expected autoreset mode {mode}, got {self.autoreset_mode}")
        _check(world, self.world, self.state, rows)
        spec, frames, due = world.spec, self.frames, self.due
        seen = (rows, spec.chunk, *spec.frame_shape)
        if frames is not None and (frames.dtype, tuple(frames.shape)) != (torch.uint8, seen):
            got = f"{frames.dtype} {tuple(frames.shape)}"
            raise WorldError(f"saved: expected frames uint8 {seen}, got {got}")
        if (due.dtype, tuple(due.shape)) != (torch.bool, (rows,)):
            got = f"{due.dtype} {tuple(due.shape)}"
            raise WorldError(f"saved: expected due bool ({rows},), got {got}")


@dataclass(frozen=True, kw_only=True)
class TorchRLState:
    """All that the future of a `WorldSimTorchRL` and one tensordict of it depends on.

    Attributes:
        world: the world's name.
        batch: the tensordict's batch size.
        state: where its rows stand, the batch in one axis.
        seed: names the randomness of all that the environment begins.
        begun: rows begun so far.
    """

    world: str
    batch: tuple[int, ...]
    state: WorldState
    seed: int
    begun: int

    def check(self, world: WorldModel) -> None:
        """Raise `WorldError` unless an environment of `world` could go on from here."""
        _check(world, self.world, self.state, prod(self.batch))


def _check(
    world: WorldModel, name: str, state: WorldState, rows: int, like: WorldState | None = None
) -> None:
    if name != world.spec.name:
        raise WorldError(f"saved: expected a state of {world.spec.name}, got {name}")
    if len(state) != rows:
        raise WorldError(f"saved: expected a state of {rows} rows, got {len(state)}")
    check_fits(state, world, like)
