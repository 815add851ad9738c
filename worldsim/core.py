"""The dictionary of the house: what a world is, what a state is, what a step returns.

Everything above this file speaks in these words and nothing here knows a network. A state goes in,
an action goes in, the next state comes out, and nothing is hidden elsewhere.

Shapes: B rows (independent worlds), K context chunks, c video frames a chunk, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Protocol, Self, runtime_checkable

import gymnasium
import torch
from torch import Tensor

from .actions import ActionSpec
from .errors import WorldError
from .fields import ABSENT
from .rows import Conditions, Rows
from .states import StateSpec


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
        state: the state vector that the world knows beside pixels, None without.
    """

    name: str
    frame_shape: tuple[int, int, int]
    chunk: int
    context: int
    latent_shape: tuple[int, ...]
    action: ActionSpec
    fps: float
    time_limit: int
    state: StateSpec | None = field(default=None, metadata=ABSENT)

    @property
    def action_space(self) -> gymnasium.Space[Any]:
        """The Gymnasium space of one action."""
        return self.action.space()

    def check_clip(
        self,
        frames: Tensor,
        actions: Tensor | None = None,
        batch: tuple[int, ...] = (),
        known: Tensor | None = None,
    ) -> None:
        """Raise `WorldError` unless a clip fits: 1 to `context` whole chunks and their actions.

        frames: (*batch, k * chunk, H, W, 3) uint8. actions: (*batch, k, *action) or None.
        known: (*batch, k) bool, which of the actions are known, or None.
        """
        lead, most = len(batch), self.context * self.chunk
        shape = tuple(frames.shape)
        if (*shape[:lead], *shape[lead + 1 :]) != (*batch, *self.frame_shape):
            expected = ", ".join(map(str, (*batch, "n", *self.frame_shape)))
            remedy = "resize or crop them"
            if shape[lead + 1 :] == (3, *self.frame_shape[:2]):
                remedy = "colours come last: frames.transpose(0, 2, 3, 1)"
            raise WorldError(f"frames: expected shape ({expected}), got {shape}; {remedy}")
        if frames.dtype != torch.uint8:
            remedy = "say (255 * frames).round() where 1 is white"
            raise WorldError(f"frames: expected uint8 from 0 to 255, got {frames.dtype}; {remedy}")
        count = shape[lead]
        if not 0 < count <= most or count % self.chunk:
            expected = f"a multiple of {self.chunk} up to {most}"
            raise WorldError(f"frames: expected {expected}, got {count}")
        self.check_actions(actions, (*batch, count // self.chunk), known)

    def check_state(self, state: WorldState) -> None:
        """Raise `WorldError` unless this is a state of a world of these shapes."""
        if not isinstance(state, WorldState):
            remedy = "world.encode, world.reset and world.step make them"
            if hasattr(state, "get_state"):
                remedy = "of an environment it is env.unwrapped.get_state().episode.state"
            raise WorldError(f"state: expected a WorldState, got {type(state).__name__}; {remedy}")
        shapes = (self.context, *self.latent_shape), (self.context, *self.action.shape)
        got = tuple(state.latents.shape[1:]), tuple(state.actions.shape[1:])
        if got != shapes:
            expected = f"latents and actions (B, ...) of {shapes}"
            remedy = f"a state of {self.name} is needed, not another world's"
            raise WorldError(f"state: expected {expected}, got {got}; {remedy}")

    def check_actions(
        self, actions: Tensor | None, lead: tuple[int, ...], known: Tensor | None = None
    ) -> None:
        """Raise `WorldError` unless actions (*lead, *action) and `known` (*lead,) fit."""
        expected = (*lead, *self.action.shape)
        if actions is not None and tuple(actions.shape) != expected:
            raise WorldError(f"actions: expected shape {expected}, got {tuple(actions.shape)}")
        if known is None:
            return
        if actions is None:
            raise WorldError("known: expected None without actions; give the actions, too")
        if tuple(known.shape) != lead or known.dtype != torch.bool:
            got = f"{known.dtype} {tuple(known.shape)}"
            raise WorldError(f"known: expected bool of shape {lead}, got {got}")

    def hold_actions(
        self,
        actions: Tensor | None,
        known: Tensor | None,
        lead: tuple[int, int],
        device: torch.device,
    ) -> tuple[Tensor, Tensor]:
        """What a state holds of a clip's actions: (B, K, *action), and which are known (B, K) bool.

        lead: (B, k), rows and chunks of the clip. actions: (B, k, *action) or None. known: (B, k)
        or None. What is not known is zeros. Raises `WorldError` where they do not fit.
        """
        self.check_actions(actions, lead, known)
        (rows, count), first = lead, self.context - lead[1]
        held = self.action.blank(rows, self.context, device=device)
        mask = torch.zeros(held.shape[:2], dtype=torch.bool, device=device)
        if actions is not None:
            mask[:, first:] = True if known is None else known.to(device)
            seen = mask[:, first:].reshape(rows, count, *[1] * (held.ndim - 2))
            held[:, first:] = torch.where(seen, actions.to(held), 0)
        return held, mask


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
        ranges = {"chunk": (1, 1000), "warmup": (0, 10**6), "max_frames": (1, 10**12)}
        for name, (least, most) in ranges.items():
            if type(value := getattr(self, name)) is not int or not least <= value <= most:
                expected = f"a whole number from {least} to {most}"
                raise WorldError(f"{name}: expected {expected}, got {value!r}")
        if self.max_frames < self.chunk:
            got = f"{self.max_frames} for chunks of {self.chunk}"
            raise WorldError(f"max_frames: expected at least one chunk, got {got}")
        if len(self.size) != 2 or min(self.size) < 1 or max(self.size) > 2**14:
            raise WorldError(f"size: expected (height, width) from 1 to {2**14}, got {self.size}")


@dataclass(frozen=True)
class WorldState(Rows):
    """All that a world's future depends on; equal states have equal futures.

    Attributes:
        latents: (B, K, *latent) clean latents, newest last.
        actions: (B, K, *action); `actions[:, k]` led into chunk k.
        known: (B, K) bool, which of the actions are known; the others are zeros.
        filled: (B,) int64, how many of the K chunks are real; the newest `filled` count.
        age: (B,) int64, steps since `encode`.
        key: (B, 2) int64, (seed, episode): names the row's stream of randomness.
        cache: (B, layers, 2, K - 1, S, heads, dim) keys and values of all chunks but the newest,
            which joins them inside the next step's first pass; empty `(B, 0)` where unused.
        uncertainty: (B, 3, S) last, mean and maximal features of uncertainty since `encode`
            (`worldsim.world.uncertainty`); empty `(B, 0)` in a world that is not calibrated.
        latent_actions, latent_known: (B, K, L) and (B, K) bool, inferred actions; empty `(B, 0)` in
            a world without.
        text, text_known: (B, L) int64 tokens and (B, 1) bool, the prompt from now on; empty
            `(B, 0)` in a world without.
        guidance: (B, 1), how much more strongly than in the recording it is followed, from 1 up;
            empty `(B, 0)` in a world without.
        world, world_known: (B, 1) int64 and bool, which of several worlds; empty `(B, 0)` in one
            that stands alone.
        states, states_known: (B, K, D) and (B, K) bool, the state vector at each chunk's end, in
            its own units, zeros where not known; empty `(B, 0)` in a world without.
    """

    latents: Tensor
    actions: Tensor
    known: Tensor
    filled: Tensor
    age: Tensor
    key: Tensor
    cache: Tensor
    uncertainty: Tensor
    latent_actions: Tensor
    latent_known: Tensor
    text: Tensor
    text_known: Tensor
    guidance: Tensor
    world: Tensor
    world_known: Tensor
    states: Tensor
    states_known: Tensor

    @classmethod
    def of(cls, **parts: Tensor) -> Self:
        """A state of these parts; those left out are empty, (B, 0)."""
        empty = parts["latents"].new_empty(len(parts["latents"]), 0)
        masks = ("latent_known", "text_known", "world_known", "states_known")
        left = {f.name: empty.bool() if f.name in masks else empty for f in fields(cls)}
        left["text"] = empty.long()
        return cls(**{**left, **parts})

    @property
    def latent(self) -> Tensor:
        """The newest chunk's latent, (B, *latent)."""
        return self.latents[:, -1]

    @property
    def context(self) -> Conditions:
        """What is said of the K context chunks; no text is, and no state before the oldest."""
        silent = torch.zeros_like(self.known) if self.text.shape[1] else self.text_known
        state, state_known = (
            torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
            for x in (self.states, self.states_known)
        )
        return Conditions(
            self.actions, self.known, self.latent_actions, self.latent_known,
            self.text, silent, self.guidance, self.world, self.world_known, state, state_known,
        )  # fmt: skip

    def prompted(self, text: Tensor | None, guidance: float | Tensor | None = None) -> Self:
        """The same with another prompt from the next step on.

        text: (B, L) tokens, or (L,) for all rows; no prompt if None, and in rows of nothing but
        zeros. guidance: another strength, (B, 1) or one for all rows; as it was if None.
        Raises `WorldError` where the world takes no text of that length.
        """
        if text is None:
            return replace(self, text_known=torch.zeros_like(self.text_known))
        text = text.to(self.text).expand(len(self), -1)
        if text.shape != self.text.shape:
            expected, got = tuple(self.text.shape), tuple(text.shape)
            raise WorldError(f"text: expected tokens of shape {expected}, got {got}")
        strength = self.guidance
        if guidance is not None:
            strength = torch.ones_like(strength) * torch.as_tensor(guidance).to(strength)
        known = (text != 0).any(1, keepdim=True)
        return replace(self, text=text.contiguous(), text_known=known, guidance=strength)


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

    @property
    def calibrated(self) -> bool:
        """Whether the trust that its steps tell was fitted (or holds by construction)."""
        ...

    def with_num_steps(self, num_steps: int) -> WorldModel:
        """The same world with another number of denoising steps; `WorldError` without a sampler."""
        ...

    def reset(self, key: Tensor) -> WorldState:
        """A start state for every key `(B, 2)`."""
        ...

    def encode(
        self,
        frames: Tensor,
        actions: Tensor | None = None,
        key: Tensor | None = None,
        *,
        known: Tensor | None = None,
        states: Tensor | None = None,
    ) -> WorldState:
        """The state after a clip: `(B, k * c, H, W, 3)` uint8, 1 <= k <= K.

        actions: `(B, k, *action)`, None where all are unknown. known: `(B, k)` bool, which of them
        are known, all if None. key: `(B, 2)`; without, rows have the seeds 0 to B - 1. states:
        `(B, k, D)` at each chunk's end, NaN where unknown, in a world with `spec.state`.
        """
        ...

    def from_latents(
        self,
        latents: Tensor,
        actions: Tensor | None = None,
        key: Tensor | None = None,
        *,
        known: Tensor | None = None,
        states: Tensor | None = None,
    ) -> WorldState:
        """`encode` of a clip whose latents `(B, k, *latent)` are known already."""
        ...

    def step(
        self,
        state: WorldState,
        action: Tensor | None = None,
        *,
        latent_action: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[WorldState, Prediction]:
        """The next state under `action` `(B, *action)`; `state` stays as it was.

        None is an unknown action. latent_action: `(B, L)`, where the world knows such.
        """
        ...

    def decode(self, state: WorldState) -> Tensor:
        """The newest chunk's frames, `(B, c, H, W, 3)` uint8."""
        ...

    def decode_latents(self, latent: Tensor, previous: Tensor, filled: Tensor) -> Tensor:
        """`decode` of a latent and the one before it, each `(B, *latent)`; of `filled` `(B,)`
        chunks, without one before where that is 1."""
        ...


def as_keys(key: Tensor, device: torch.device) -> Tensor:
    """Keys (B, 2) int64 on `device`, or WorldError for what is none, such as a seed."""
    if not isinstance(key, Tensor) or key.ndim != 2 or key.shape[1] != 2:
        got = f"shape {tuple(key.shape)}" if isinstance(key, Tensor) else type(key).__name__
        raise WorldError(
            f"key: expected a key for each row, (B, 2) int64, got {got}; worldsim.core.row_keys "
            "makes them of seeds: row_keys([0])"
        )
    return key.to(device)


def row_keys(seeds: Sequence[int], episode: int = 0) -> Tensor:
    """Keys `(B, 2)` int64 for rows with these seeds."""
    return torch.tensor([(seed, episode) for seed in seeds], dtype=torch.int64).reshape(-1, 2)
