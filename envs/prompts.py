"""What rows of a world are told: when an episode begins, and in the middle of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldsim.core import WorldError, WorldModel, WorldState
from worldsim.diffusion.rng import hash_rows
from worldsim.world.generate import MOST_GUIDANCE

TEXT_DRAW = 2**20 + 1
"""Number of the draw that chooses a prompt, beside that of a start clip."""


@dataclass(frozen=True)
class Prompts:
    """Prompts that episodes begin with.

    Attributes:
        tokens: (n, L), None where nothing is said.
        by_row: whether row i is told the i-th; else each episode draws its own by its key.
        guidance: how much more strongly than in the recording they are followed.
    """

    tokens: Tensor | None = None
    by_row: bool = False
    guidance: float | None = None

    @classmethod
    def of(
        cls, world: WorldModel, text: Any, guidance: Any, *, rows: int | None, draw: bool
    ) -> Prompts:
        """From an environment's arguments; `rows` of a vector environment, else None.

        Raises `WorldError` for what is no prompt, and where the world takes none.
        """
        strength = check_guidance(world, guidance)
        if text is None:
            return cls(guidance=strength)
        by_row = rows is not None and not draw and not isinstance(text, str)
        tokens = read(world, text, rows if by_row else None)
        return cls(tokens, by_row, strength)

    def asked(self, world: WorldModel, options: Mapping[str, Any], rows: int | None) -> Prompts:
        """Those of a reset's options, and what these leave open as here."""
        text, guidance = options.get("text"), options.get("guidance")
        own = Prompts.of(world, text, guidance, rows=rows, draw=rows is None)
        source = self if own.tokens is None else own
        strength = self.guidance if own.guidance is None else own.guidance
        return Prompts(source.tokens, source.by_row, strength)

    def begin(self, state: WorldState) -> WorldState:
        """States at the start of episodes, told what they are to be told."""
        if self.tokens is None:
            return told(state, None, self.guidance)
        tokens = self.tokens.to(state.text.device)
        if not self.by_row:
            zero = torch.zeros_like(state.key[:, 0])
            tokens = tokens[hash_rows(state.key, zero, TEXT_DRAW) % len(tokens)]
        return told(state, tokens, self.guidance)


def say(
    world: WorldModel, state: WorldState, text: Any, guidance: Any, rows: Tensor | None = None
) -> WorldState:
    """States whose `rows` (B,) bool, all if None, are told something else; nothing if `text` is
    None. Raises `WorldError`."""
    strength, tokens = check_guidance(world, guidance), None
    if text is not None:
        tokens = read(world, text, None if isinstance(text, str) else len(state))
    after = told(state if tokens is not None else state.prompted(None), tokens, strength)
    return after if rows is None else after.where(rows.to(world.device), state)


def told(state: WorldState, tokens: Tensor | None, guidance: float | None) -> WorldState:
    """States with a prompt and a guidance, as they were where None."""
    if tokens is not None:
        return state.prompted(tokens, guidance)
    if guidance is None:
        return state
    return replace(state, guidance=torch.full_like(state.guidance, guidance))


def read(world: WorldModel, text: Any, rows: int | None) -> Tensor:
    """Tokens of a prompt (1, L), or of several (n, L), as many as `rows` unless that is None.

    Raises `WorldError`.
    """
    prompt = getattr(world, "prompt", None)
    if prompt is None:
        raise WorldError(f"text: expected None, as {world.spec.name} takes no words")
    if isinstance(text, str):
        return prompt(text)
    if isinstance(text, np.ndarray):
        text = text.tolist()
    if not isinstance(text, Sequence) or not len(text):
        raise WorldError(f"text: expected a string or some, got {text!r}")
    if rows is not None and len(text) != rows:
        raise WorldError(f"text: expected one string, or one for each of {rows}, got {len(text)}")
    return prompt(list(text))


def check_guidance(world: WorldModel, guidance: Any) -> float | None:
    """Raise `WorldError` for a guidance that is none, or a world without words."""
    if guidance is None:
        return None
    if getattr(world, "prompt", None) is None:
        raise WorldError(f"guidance: expected None, as {world.spec.name} takes no words")
    number = isinstance(guidance, int | float) and not isinstance(guidance, bool)
    if not number or not isfinite(guidance) or not 1 <= guidance <= MOST_GUIDANCE:
        raise WorldError(f"guidance: expected 1 to {MOST_GUIDANCE:g}, got {guidance!r}")
    return float(guidance)
