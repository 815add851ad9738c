"""The dictionary of the house: what a world is, what a state is, what a step returns.

Everything above this file speaks in these words and nothing here knows a network. A state goes in,
an action goes in, the next state comes out, and nothing is hidden elsewhere.

Shapes: B rows (independent worlds), K context chunks, c video frames a chunk, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Protocol, Self, runtime_checkable

import gymnasium
import torch
from torch import Tensor

from .actions import ActionSpec
from .errors import WorldError


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


@dataclass(frozen=True, kw_only=True)
class EnvironmentSpec:
    """How a real environment is made and seen, so that it shows and takes what its world does.

    `worldsim.collect.make_environment` makes it.

    Attributes:
        id: for `gymnasium.make`, or "module:function" that returns an environment; a module is
            imported only where the user says so.
        kwargs: keywords for `gymnasium.make` or the function, values that JSON can hold.
        source: where frames come from: the environment's "observation", or what it "render"s.
        crop: (top, bottom, left, right) in pixels kept of the source, or None.
        size: (height, width) after resizing by area.
        chunk: frames that an action is repeated for.
        warmup: frames without action that are dropped after a reset.
        max_frames: an episode is truncated here, at the latest.
        wrappers: "module:function" of each wrapper put around it, innermost first.
        image: key of the picture where observations are dicts and the source; "" otherwise.
        state: what of an observation makes the state vector: keys of a dict, ("observation",) for
            one that is a vector itself, () for nothing.
    """

    id: str
    size: tuple[int, int]
    kwargs: dict[str, Any] = field(default_factory=dict)
    source: Literal["observation", "render"] = "render"
    crop: tuple[int, int, int, int] | None = None
    chunk: int = 2
    warmup: int = 0
    max_frames: int = 1000
    wrappers: tuple[str, ...] = ()
    image: str = ""
    state: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        least = {"chunk": 1, "warmup": 0, "max_frames": 1}
        for name, bound in least.items():
            if type(value := getattr(self, name)) is not int or value < bound:
                raise WorldError(f"{name}: expected a whole number from {bound} up, got {value!r}")
        if len(self.size) != 2 or min(self.size) < 1:
            raise WorldError(f"size: expected (height, width) of at least 1, got {self.size}")


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
