"""Frozen dataclasses of tensors, row by row; and what is said of rows beside their latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor


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
class Conditions(Rows):
    """What is said to a world about F chunks of B rows beside their latents.

    Every part has a mask of what is known; what is masked may hold any finite number. Parts that a
    world does not have, and their masks, are empty: (B, 0).

    Attributes:
        action: (B, F, *action), `action[:, f]` led into chunk f.
        action_known: (B, F) bool.
        latent_action: (B, F, L), inferred from video instead of recorded.
        latent_action_known: (B, F) bool.
        text: (B, L) int64, tokens of a prompt, 0 past its end.
        text_known: (B, F) bool. A prompt speaks of chunks that are being denoised and never of
            context, so nothing of an old one is left in a cache.
        guidance: (B, 1), how much more strongly than in the recording a prompt is followed; 1 is
            as in the recording.
        world: (B, 1) int64, which of several worlds.
        world_known: (B, 1) bool.
        state: (B, F, D), the state vector at the end of the chunk before each, which its action
            was taken in.
        state_known: (B, F) bool.
    """

    action: Tensor
    action_known: Tensor
    latent_action: Tensor
    latent_action_known: Tensor
    text: Tensor
    text_known: Tensor
    guidance: Tensor
    world: Tensor
    world_known: Tensor
    state: Tensor
    state_known: Tensor

    @classmethod
    def of(cls, action: Tensor, known: Tensor | None = None, **parts: Tensor | None) -> Self:
        """Conditions of actions (B, F, *action), all known without a mask, and named `parts`.

        Parts that are left out or None are empty; a part given without its mask is known.
        """
        lead = action.shape[:2]
        known = torch.ones(lead, dtype=torch.bool, device=action.device) if known is None else known
        given = {name: value for name, value in parts.items() if value is not None}
        shapes = {"latent_action": lead, "text": lead, "world": (lead[0], 1), "state": lead}
        for name, shape in shapes.items():
            if name in given and f"{name}_known" not in given:
                given[f"{name}_known"] = known.new_ones(shape)
            dtype = torch.float32 if name == "latent_action" else torch.int64
            given.setdefault(name, action.new_empty(lead[0], 0, dtype=dtype))
            given.setdefault(f"{name}_known", known.new_empty(lead[0], 0))
        if "guidance" not in given:
            ones = torch.ones(lead[0], min(given["text"].shape[1], 1), device=action.device)
            given["guidance"] = ones
        return cls(action, known, **given)

    def chunks(self, which: slice | Tensor) -> Self:
        """The same about some of the chunks: a slice or indices."""
        parts = {name: getattr(self, name) for name in _MOMENTARY}
        return replace(self, **{n: x[:, which] if x.shape[1] else x for n, x in parts.items()})

    def as_context(self) -> Self:
        """The same about chunks that are context: no prompt speaks of them."""
        return replace(self, text_known=torch.zeros_like(self.text_known))

    def stateless(self) -> Self:
        """The same with no state vector known."""
        return replace(self, state_known=torch.zeros_like(self.state_known))

    def then(self, later: Self) -> Self:
        """These chunks and later ones of the same rows, whose text and world hold."""
        both = {n: torch.cat([getattr(self, n), getattr(later, n)], 1) for n in _MOMENTARY}
        return replace(later, **both)


_MOMENTARY = (
    "action", "action_known", "latent_action", "latent_action_known", "text_known", "state",
    "state_known",
)  # fmt: skip
"""Parts of `Conditions` that are said of every chunk."""
