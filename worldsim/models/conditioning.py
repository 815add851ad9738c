"""The only reader of `Conditions`: what is said of chunks, as vectors that a network is given.

Each part has an embedder and a learned null vector that stands for "not known". The sum is the
`vector` of each chunk, for adaLN; a prompt may also become a few `tokens`, for cross-attention (as
pictures do in IP-Adapter, Ye et al. 2023, 2308.06721).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn

from worldsim.core import ActionSpec, Conditions
from worldsim.fields import ABSENT
from worldsim.nn.embed import fourier
from worldsim.states import StateSpec

from .text import TextConfig, TextEncoder


@dataclass(frozen=True, kw_only=True)
class ConditioningConfig:
    """What is said to a dynamics model.

    Attributes:
        action: the actions.
        latent_action: width of inferred actions, 0 without.
        action_map: None where actions are embedded on their own; else they are mapped to inferred
            ones first, by a perceptron of so many hidden units, 0 for a linear map.
        text: width of the vectors that a prompt becomes, 0 without.
        text_tokens: vectors that it becomes for cross-attention, 0 for none.
        encoder: how it is read, None without.
        worlds: how many worlds one network knows, 0 where it is one.
        state: the state vector before each chunk, None without.
    """

    action: ActionSpec
    latent_action: int = 0
    text: int = 0
    text_tokens: int = 0
    worlds: int = 0
    state: StateSpec | None = field(default=None, metadata=ABSENT)
    encoder: TextConfig | None = field(default=None, metadata=ABSENT)
    action_map: int | None = field(default=None, metadata=ABSENT)

    def __post_init__(self) -> None:
        for name in ("latent_action", "text", "text_tokens", "worlds"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}")
        if bool(self.text) != (self.encoder is not None):
            raise ValueError(f"encoder: expected one with text and none without, got {self}")
        if self.action_map is not None and not self.latent_action:
            raise ValueError("action_map: expected None without latent_action")
        if self.text_tokens and not self.text:
            raise ValueError(f"text_tokens: expected 0 without text, got {self.text_tokens}")


class Conditioned(NamedTuple):
    """What a network is given.

    Attributes:
        vector: (B, F, dim).
        tokens: (B, L, dim), or None without.
        reads: (B, F) bool, which chunks the tokens are for, or None without.
    """

    vector: Tensor
    tokens: Tensor | None = None
    reads: Tensor | None = None


class ActionEmbed(nn.Module):
    """Actions of any kind to vectors, with a learned one for what is not known."""

    def __init__(self, spec: ActionSpec, dim: int) -> None:
        super().__init__()
        self.spec = spec
        self.unknown = nn.Parameter(torch.zeros(dim))
        if spec.is_discrete:
            self.table = nn.Embedding(sum(spec.choices), dim)
            self.firsts = list(accumulate(spec.choices[:-1], initial=0))
        else:
            self.proj = nn.Linear(len(spec.low) * 9, dim)

    def forward(self, action: Tensor, known: Tensor) -> Tensor:
        """`(..., *action)` and bool `(...)` -> `(..., dim)`; several choices add up."""
        vector = self._choices(action) if self.spec.is_discrete else self._box(action)
        return torch.where(known[..., None], vector, self.unknown)

    def _box(self, action: Tensor) -> Tensor:
        unit = self.spec.to_normalized(action)
        waves = torch.cat([unit, fourier(unit, 4, 8.0).flatten(-2)], -1)
        return self.proj(waves.to(self.proj.weight.dtype))

    def _choices(self, action: Tensor) -> Tensor:
        entries = action.unbind(-1) if self.spec.shape else (action,)
        parts = zip(entries, self.spec.choices, self.firsts, strict=True)
        # what is not known may hold any number, and a table has no row for any number
        rows = [(x - self.spec.least).clamp(0, n - 1) + first for x, n, first in parts]
        return torch.stack([self.table(row) for row in rows]).sum(0)


WAVES, REACH = 4, 4.0
"""Frequencies that an entry of a state is told in, and the standard deviations they span."""


class StateEmbed(nn.Module):
    """State vectors to vectors, with a learned one for what is not known; without a say at first.

    A vector for adaLN and no token of its own: attention over time is between the same patches, so
    that a token would reach them in every second block only, and all keys that are there already
    would lose weight to it, before it knows anything.
    """

    def __init__(self, spec: StateSpec, dim: int) -> None:
        super().__init__()
        self.spec = spec
        self.unknown = nn.Parameter(torch.zeros(dim))
        self.proj = nn.Linear(len(spec) * (1 + 2 * WAVES), dim)
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(self, state: Tensor, known: Tensor) -> Tensor:
        """`(..., D)` and bool `(...)` -> `(..., dim)`."""
        x = self.spec.normalized(state).clamp(-2 * REACH, 2 * REACH)
        told = torch.cat([x, fourier(x / REACH, WAVES, 8.0).flatten(-2)], -1)
        vector = self.proj(told.to(self.proj.weight.dtype))
        return torch.where(known[..., None], vector, self.unknown)


class ActionMap(nn.Module):
    """Actions of any kind to inferred ones: a mean for each choice, a perceptron of a box
    (AdaWorld, 2503.18938)."""

    def __init__(self, spec: ActionSpec, width: int, hidden: int) -> None:
        super().__init__()
        self.spec = spec
        if spec.is_discrete:
            self.table = nn.Embedding(sum(spec.choices), width)
            self.firsts = list(accumulate(spec.choices[:-1], initial=0))
        else:
            wide = [nn.Linear(len(spec.low), hidden), nn.SiLU()] if hidden else []
            self.box = nn.Sequential(*wide, nn.Linear(hidden or len(spec.low), width))

    @property
    def lines(self) -> list[nn.Linear]:
        """The linear layers of a box's map, one or two; none of a table."""
        parts = () if self.spec.is_discrete else self.box
        return [part for part in parts if isinstance(part, nn.Linear)]

    @property
    def hidden(self) -> int:
        """Hidden units, 0 where the map is linear or a table."""
        return self.lines[0].out_features if len(self.lines) > 1 else 0

    def forward(self, action: Tensor) -> Tensor:
        """`(..., *action)` -> `(..., L)`; several choices add up."""
        if not self.spec.is_discrete:
            dtype = next(self.box.parameters()).dtype
            return self.box(self.spec.to_normalized(action).to(dtype))
        entries = action.unbind(-1) if self.spec.shape else (action,)
        parts = zip(entries, self.spec.choices, self.firsts, strict=True)
        rows = [(x - self.spec.least).clamp(0, n - 1) + first for x, n, first in parts]
        return torch.stack([self.table(row) for row in rows]).sum(0)


class Conditioning(nn.Module):
    """`Conditions` of F chunks as vectors for a network of width `dim`.

    A part that joins a trained network starts without a say: its weights are zero.
    """

    def __init__(self, config: ConditioningConfig, dim: int) -> None:
        super().__init__()
        self.config, self.dim = config, dim
        acts = config.action.kind != "none" and config.action_map is None
        mapped = config.action_map is not None
        self.action_map = (
            ActionMap(config.action, config.latent_action, config.action_map or 0)
            if mapped else None
        )  # fmt: skip
        self.action = ActionEmbed(config.action, dim) if acts else None
        self.latent_action = _zeros(config.latent_action, dim)
        self.text, count = _zeros(config.text, dim), config.text_tokens
        self.text_tokens = nn.Linear(config.text, dim) if count else None
        encoder = config.encoder
        self.text_encoder = TextEncoder(encoder, config.text, 1 + count) if encoder else None
        self.guidance = nn.Parameter(torch.zeros(dim)) if encoder else None
        self.world = nn.Embedding(config.worlds, dim) if config.worlds else None
        self.state = StateEmbed(config.state, dim) if config.state else None
        names = [name for name in ("latent_action", "text", "worlds") if getattr(config, name)]
        self.unknown = nn.ParameterDict({n: nn.Parameter(torch.zeros(dim)) for n in names})
        self.silent: Tensor  # what nothing says, in the type that the network multiplies in
        self.register_buffer("silent", torch.zeros(dim), persistent=False)
        self._init_weights()

    def _init_weights(self) -> None:
        if self.action is not None and not self.action.spec.is_discrete:
            nn.init.xavier_uniform_(self.action.proj.weight)
            nn.init.zeros_(self.action.proj.bias)
        if self.world is not None:
            nn.init.zeros_(self.world.weight)

    def forward(self, given: Conditions) -> Conditioned:
        """Conditions of F chunks -> (B, F, dim), and tokens where there are any."""
        parts: list[Tensor] = []
        if self.action is not None:
            parts.append(self.action(given.action, given.action_known))
        if self.latent_action is not None:
            latent, known = self._latent(given)
            vector = self._linear(self.latent_action, latent)
            parts.append(self._known("latent_action", vector, known))
        read: Tensor | None = None
        if self.text is not None and self.text_encoder is not None:
            assert self.guidance is not None
            encoding: Tensor = self.text_encoder(given.text)
            read = encoding
            stronger = (given.guidance - 1).to(self.guidance.dtype) * self.guidance
            vector = self._linear(self.text, encoding[:, 0]) + stronger
            parts.append(self._known("text", vector[:, None], given.text_known))
        if self.world is not None:
            vector = self.world(given.world)
            parts.append(self._known("worlds", vector, given.world_known))
        if self.state is not None:
            parts.append(self.state(given.state, given.state_known))
        nothing = self.silent.expand(*given.action.shape[:2], -1)
        vector = reduce(torch.add, parts) if parts else nothing
        if self.text_tokens is None or read is None:
            return Conditioned(vector)
        return Conditioned(vector, self._linear(self.text_tokens, read[:, 1:]), given.text_known)

    def _latent(self, given: Conditions) -> tuple[Tensor, Tensor]:
        """Inferred actions and which are known; mapped from real ones where these are known."""
        latent, known = given.latent_action, given.latent_action_known
        if latent.ndim == 2:  # a recording without any
            known = torch.zeros_like(given.action_known)
            latent = torch.zeros(*known.shape, self.config.latent_action, device=known.device)
        if self.action_map is None:
            return latent, known
        mapped = self.action_map(given.action).to(latent)
        return torch.where(known[..., None], latent, mapped), known | given.action_known

    def _known(self, name: str, vector: Tensor, known: Tensor) -> Tensor:
        return torch.where(known[..., None], vector, self.unknown[name])

    @staticmethod
    def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
        return layer(x.to(layer.weight.dtype))


def _zeros(width: int, dim: int) -> nn.Linear | None:
    if not width:
        return None
    layer = nn.Linear(width, dim)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
