"""The dictionary of the house: what a world is, what a state is, what a step returns.

Everything above this file speaks in these words and nothing here knows a network. A state goes in,
an action goes in, the next state comes out, and nothing is hidden elsewhere.

Shapes: B rows (independent worlds), K context chunks, c video frames a chunk, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from math import inf
from typing import Any, Literal, Protocol, Self, runtime_checkable

import gymnasium
import numpy as np
import torch
from torch import Tensor


class WorldError(ValueError):
    """Something handed to a world does not fit: names the field, what was expected, what came."""


@dataclass(frozen=True, kw_only=True)
class ActionSpec:
    """The actions of a world: a box of floats or one of `n` choices.

    Besides real actions there is "no action known": NaN in every entry (continuous) or -1
    (discrete). Models accept it (unlabelled video, image prompts); environments do not.
    """

    kind: Literal["continuous", "discrete"]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    n: int = 0

    def __post_init__(self) -> None:
        if self.kind == "continuous":
            ok = len(self.low) == len(self.high) > 0
            ok = ok and all(-inf < a < b < inf for a, b in zip(self.low, self.high, strict=True))
        else:
            ok = self.kind == "discrete" and self.n > 0
        if not ok:
            raise WorldError(f"action: expected finite low < high per entry or n > 0, got {self}")

    @property
    def shape(self) -> tuple[int, ...]:
        """`(A,)` for continuous actions, `()` for discrete ones."""
        return (len(self.low),) if self.kind == "continuous" else ()

    @property
    def dtype(self) -> torch.dtype:
        """float32 or int64."""
        return torch.float32 if self.kind == "continuous" else torch.int64

    def space(self, seed: int | None = None) -> gymnasium.Space[Any]:
        """The same as a Gymnasium space."""
        if self.kind == "discrete":
            return gymnasium.spaces.Discrete(self.n, seed=seed)
        low, high = np.array(self.low, np.float32), np.array(self.high, np.float32)
        return gymnasium.spaces.Box(low, high, dtype=np.float32, seed=seed)

    def normalized(self) -> ActionSpec:
        """The same actions with every entry of a box from -1 to 1."""
        ends = (1.0,) * len(self.low)
        return replace(self, low=tuple(-e for e in ends), high=ends)

    def from_normalized(self, actions: Tensor) -> Tensor:
        """Actions of `normalized()` in this spec's own range, `(..., *shape)`; NaN stays NaN."""
        if set(self.low) <= {-1.0} and set(self.high) <= {1.0}:
            return actions
        low, high = _ends(self.low, self.high, actions.device)
        return (low + (actions + 1) / 2 * (high - low)).clamp(low, high)

    def to_normalized(self, actions: Tensor) -> Tensor:
        """`from_normalized` backwards: every entry of a box from -1 to 1; NaN stays NaN."""
        ends = zip(self.low, self.high, actions.unbind(-1), strict=True)  # no constants to compile
        return torch.stack([2 * (x - low) / (high - low) - 1 for low, high, x in ends], -1)

    def unknown(self, *batch: int, device: torch.device | str | None = None) -> Tensor:
        """What stands for "no action known", `(*batch, *shape)`."""
        fill = float("nan") if self.kind == "continuous" else -1
        return torch.full((*batch, *self.shape), fill, dtype=self.dtype, device=device)

    def is_known(self, actions: Tensor) -> Tensor:
        """Which actions are known: `(..., *shape)` -> bool `(...)`."""
        if self.kind == "continuous":
            return ~actions.isnan().any(-1)
        return actions >= 0

    def check(self, action: Any, batch: tuple[int, ...] = (), *, values: bool = True) -> Tensor:
        """Return `action` as a tensor `(*batch, *shape)`, or raise `WorldError`.

        Refuses wrong shapes, kinds of number, NaN, infinities and values out of range; the last
        three not where `values` is False, as looking at a tensor waits for the device it is on.
        """
        try:
            given = action if isinstance(action, Tensor) else torch.as_tensor(np.asarray(action))
        except (TypeError, ValueError) as error:
            raise WorldError(f"action: expected numbers, got {type(action).__name__}") from error
        expected = (*batch, *self.shape)
        if tuple(given.shape) != expected:
            raise WorldError(f"action: expected shape {expected}, got {tuple(given.shape)}")
        whole = not (given.is_floating_point() or given.is_complex())
        if self.kind == "discrete" and (given.dtype == torch.bool or not whole):
            raise WorldError(f"action: expected an integer, got {given.dtype}")
        if given.dtype == torch.bool or given.is_complex():
            raise WorldError(f"action: expected real numbers, got {given.dtype}")
        given = given.to(self.dtype)  # unsigned numbers do not compare; past int64 they wrap
        if values:
            self._check_values(given)
        return given

    def _check_values(self, given: Tensor) -> None:
        if self.kind == "discrete":
            if not bool(((given >= 0) & (given < self.n)).all()):
                raise WorldError(f"action: expected 0 to {self.n - 1}, got {given.tolist()}")
            return
        low, high = _ends(self.low, self.high, given.device)
        if not torch.equal(given.clamp(low, high), given):  # NaN equals nothing
            raise WorldError(
                f"action: expected finite values from {self.low} to {self.high}, "
                f"got {given.tolist()}; clip it with np.clip(action, space.low, space.high)"
            )


@lru_cache(maxsize=64)
def _ends(
    low: tuple[float, ...], high: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Kept, because copying to a device once a step would wait for it once a step."""
    with torch.inference_mode(False):  # whoever comes next may want gradients
        return torch.tensor(low, device=device), torch.tensor(high, device=device)


@dataclass(frozen=True, kw_only=True)
class WorldSpec:
    """What a user must know to step a world.

    Attributes:
        name: the world's name.
        frame_shape: (H, W, 3), uint8 RGB.
        chunk: video frames a step, all under one action (the action repeat).
        context: chunks a state remembers.
        latent_shape: (h, w, C) of one chunk's latent.
        action: the actions.
        fps: video frames a second; a step lasts `chunk / fps` seconds.
        time_limit: steps after which an episode is truncated.
    """

    name: str
    frame_shape: tuple[int, int, int]
    chunk: int
    context: int
    latent_shape: tuple[int, ...]
    action: ActionSpec
    fps: float
    time_limit: int

    @property
    def action_space(self) -> gymnasium.Space[Any]:
        """The Gymnasium space of one action."""
        return self.action.space()

    def check_clip(self, frames: Tensor, actions: Tensor, batch: tuple[int, ...] = ()) -> None:
        """Raise `WorldError` unless a clip fits: 1 to `context` whole chunks and their actions.

        frames: (*batch, k * chunk, H, W, 3) uint8. actions: (*batch, k, *action), which may hold
        "no action known".
        """
        lead, most = len(batch), self.context * self.chunk
        shape = tuple(frames.shape)
        if (*shape[:lead], *shape[lead + 1 :]) != (*batch, *self.frame_shape):
            expected = (*batch, "n", *self.frame_shape)
            raise WorldError(f"frames: expected shape {expected}, got {shape}; resize or crop them")
        if frames.dtype != torch.uint8:
            raise WorldError(f"frames: expected uint8 from 0 to 255, got {frames.dtype}")
        count = shape[lead]
        if not 0 < count <= most or count % self.chunk:
            expected = f"a multiple of {self.chunk} up to {most}"
            raise WorldError(f"frames: expected {expected}, got {count}")
        expected = (*batch, count // self.chunk, *self.action.shape)
        if tuple(actions.shape) != expected:
            raise WorldError(f"actions: expected shape {expected}, got {tuple(actions.shape)}")


@dataclass(frozen=True)
class Rows:
    """A frozen dataclass of tensors that share their first axis: B independent rows."""

    def map(self, fn: Callable[[Tensor], Tensor]) -> Self:
        """Apply `fn` to every tensor."""
        return replace(self, **{f.name: fn(getattr(self, f.name)) for f in fields(self)})

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def __getitem__(self, rows: Tensor | slice | Sequence[int]) -> Self:
        """Some rows, as a state of their own: a slice, indices or a mask `(B,)`."""
        return self.map(lambda x: x[rows])

    def repeat(self, times: int) -> Self:
        """Each row `times` times, copies beside each other: `(B * times, ...)`."""
        return self.map(lambda x: x.repeat_interleave(times, 0))

    def where(self, mask: Tensor, other: Self) -> Self:
        """Rows of `self` where `mask` `(B,)`, else of `other`; no host sync."""
        pairs = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        return replace(self, **{k: _select(mask, a, b) for k, (a, b) in pairs.items()})

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        return self.map(lambda x: x.to(device))

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """Rows of all parts, in order."""
        names = [f.name for f in fields(cls)]
        return cls(**{n: torch.cat([getattr(p, n) for p in parts]) for n in names})


def _select(mask: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b)


@dataclass(frozen=True)
class WorldState(Rows):
    """All that a world's future depends on; equal states have equal futures.

    Attributes:
        latents: (B, K, *latent) clean latents, newest last.
        actions: (B, K, *action); `actions[:, k]` led into chunk k.
        filled: (B,) int64, how many of the K chunks are real; the newest `filled` count.
        age: (B,) int64, steps since `encode`.
        key: (B, 2) int64, (seed, episode): names the row's stream of randomness.
        cache: (B, layers, 2, K - 1, S, heads, dim) keys and values of all chunks but the newest,
            which joins them inside the next step's first pass; empty `(B, 0)` where unused.
        doubt: (B, 3, S) last, mean and maximal signs of doubt since `encode`
            (`worldsim.world.uncertainty`); empty `(B, 0)` in a world that is not calibrated.
    """

    latents: Tensor
    actions: Tensor
    filled: Tensor
    age: Tensor
    key: Tensor
    cache: Tensor
    doubt: Tensor

    @property
    def latent(self) -> Tensor:
        """The newest chunk's latent, (B, *latent)."""
        return self.latents[:, -1]


@dataclass(frozen=True)
class Prediction(Rows):
    """What a step says beside the next state.

    Attributes:
        reward: (B,) expected reward, summed over the chunk.
        continue_prob: (B,) probability that the episode goes on after this chunk, 0 to 1.
        trust: (B,) probability that the dream still tracks reality, NaN where uncalibrated.
    """

    reward: Tensor
    continue_prob: Tensor
    trust: Tensor


@runtime_checkable
class WorldModel(Protocol):
    """A world that agents can step through; `tests/contracts.py` says what it promises."""

    @property
    def spec(self) -> WorldSpec:
        """What a user must know."""
        ...

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""
        ...

    def reset(self, key: Tensor) -> WorldState:
        """A start state for every key `(B, 2)`."""
        ...

    def encode(self, frames: Tensor, actions: Tensor, key: Tensor | None = None) -> WorldState:
        """The state after a clip: `(B, k * c, H, W, 3)` uint8 and `(B, k, *action)`, k <= K."""
        ...

    def step(
        self, state: WorldState, action: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[WorldState, Prediction]:
        """The next state under `action` `(B, *action)`; `state` stays as it was."""
        ...

    def decode(self, state: WorldState) -> Tensor:
        """The newest chunk's frames, `(B, c, H, W, 3)` uint8."""
        ...


def row_keys(seeds: Sequence[int], episode: int = 0) -> Tensor:
    """Keys `(B, 2)` int64 for rows with these seeds."""
    return torch.tensor([(seed, episode) for seed in seeds], dtype=torch.int64).reshape(-1, 2)
