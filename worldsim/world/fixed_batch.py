"""Results that do not know the size of the batch: every kernel sees batches of one shape.

A kernel may add up in another order in a batch of another shape, so a row's last bits depend on how
many rows share its step (PyTorch promises no more: "Numerical accuracy", notes on batched
computations). Here rows go through the world in groups of one fixed size, the last group filled up
with copies. What is left is a row's place within its group. In groups of one there is one place; in
larger ones a matrix product may treat its last rows in another way: measured on car-racing, places
are equal in groups of 4 and 8 and differ in the last bits in groups of 2 and 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from worldsim.core import Prediction, WorldError, WorldModel, WorldSpec, WorldState, row_keys


@dataclass(frozen=True, eq=False)
class FixedBatch:
    """A world whose rows are the same to the bit in a batch of any size.

    The price: a batch is computed in multiples of `rows`, one group after the other. `rows=1` costs
    a single environment nothing; a GPU wants as many rows as there are environments at least.

    Attributes:
        world: the world itself.
        rows: rows a group, 1 or more.
    """

    world: WorldModel
    rows: int

    def __post_init__(self) -> None:
        if not (type(self.rows) is int and self.rows >= 1):
            raise WorldError(f"micro_batch: expected a whole number from 1 up, got {self.rows!r}")

    @property
    def spec(self) -> WorldSpec:
        """What a user must know."""
        return self.world.spec

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""
        return self.world.device

    @property
    def calibrated(self) -> bool:
        """Whether somebody fitted the trust that its steps tell."""
        return self.world.calibrated

    def with_num_steps(self, num_steps: int) -> Self:
        """The same with another number of denoising steps."""
        return type(self)(self.world.with_num_steps(num_steps), self.rows)

    def prompt(self, text: str | Sequence[str]) -> Tensor:
        """Tokens of a prompt, or of several; `WorldError` in a world that takes none."""
        prompt = getattr(self.world, "prompt", None)
        if prompt is None:
            raise WorldError(f"text: expected None, as {self.spec.name} takes no words")
        return prompt(text)

    def reset(self, key: Tensor) -> WorldState:
        """A start state for every key `(B, 2)`."""
        parts = [self.world.reset(key[rows]) for rows in self._groups(len(key), key)]
        return WorldState.cat(parts)[: len(key)]

    def encode(
        self,
        frames: Tensor,
        actions: Tensor | None = None,
        key: Tensor | None = None,
        *,
        known: Tensor | None = None,
        states: Tensor | None = None,
    ) -> WorldState:
        """The state after a clip: `(B, k * c, H, W, 3)` uint8 and `(B, k, *action)`, k <= K."""
        count = len(frames)
        self.spec.check_clip(frames, actions, (count,), known)
        key = row_keys(range(count)) if key is None else key
        parts = []
        for rows in self._groups(count, frames):
            given = (frames, actions, key, known, states)
            clip, acts, keys, mask, vectors = (_at(x, rows) for x in given)
            assert clip is not None
            parts.append(self.world.encode(clip, acts, keys, known=mask, states=vectors))
        return WorldState.cat(parts)[:count]

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
        count = len(latents)
        self.spec.check_actions(actions, tuple(latents.shape[:2]), known)
        key = row_keys(range(count)) if key is None else key
        parts = []
        for rows in self._groups(count, latents):
            given = (latents, actions, key, known, states)
            clip, acts, keys, mask, vectors = (_at(x, rows) for x in given)
            assert clip is not None
            parts.append(self.world.from_latents(clip, acts, keys, known=mask, states=vectors))
        return WorldState.cat(parts)[:count]

    def step(
        self,
        state: WorldState,
        action: Tensor | None = None,
        *,
        latent_action: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[WorldState, Prediction]:
        """The next state under `action` `(B, *action)`; `state` stays as it was."""
        expected = (len(state), *self.spec.action.shape)
        if action is not None and tuple(action.shape) != expected:
            raise WorldError(f"action: expected shape {expected}, got {tuple(action.shape)}")
        states, predictions = [], []
        for rows in self._groups(len(state), state.latents):
            following, prediction = self.world.step(
                state[rows],
                _at(action, rows),
                latent_action=_at(latent_action, rows),
                generator=generator,
            )
            states.append(following)
            predictions.append(prediction)
        count = len(state)
        return WorldState.cat(states)[:count], Prediction.cat(predictions)[:count]

    def decode(self, state: WorldState) -> Tensor:
        """The newest chunk's frames, `(B, c, H, W, 3)` uint8."""
        parts = [self.world.decode(state[rows]) for rows in self._groups(len(state), state.latents)]
        return torch.cat(parts)[: len(state)]

    def decode_latents(self, latent: Tensor, previous: Tensor, filled: Tensor) -> Tensor:
        """`decode` of a latent and the one before it, each `(B, *latent)`."""
        parts = [
            self.world.decode_latents(latent[rows], previous[rows], filled[rows])
            for rows in self._groups(len(latent), latent)
        ]
        return torch.cat(parts)[: len(latent)]

    def _groups(self, count: int, like: Tensor) -> Iterator[Tensor]:
        """Rows of each group; past the end the last row stands in."""
        for first in range(0, count, self.rows):
            rows = torch.arange(first, first + self.rows, device=like.device)
            yield rows.clamp(max=count - 1)


def _at(x: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if x is None else x[rows.to(x.device)]
