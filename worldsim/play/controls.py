"""Held keys, or numbers from sliders, as an action of the world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldsim.core import ActionSpec, WorldError


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key and what it does, for the page to show.

    Attributes:
        key: a character: "w", "3".
        label: what it does: "axis 2 up", "action 3".
    """

    key: str
    label: str


class Controls:
    """Turns what a player holds into an action.

    mapping: keys held down together -> action, as `gymnasium.utils.play` has it; may be empty.
    noop: the action of idle hands.
    """

    def __init__(self, mapping: dict[Any, Any], noop: Any, spec: ActionSpec) -> None:
        self.mapping = {frozenset(_characters(held)): action for held, action in mapping.items()}
        self.noop, self.spec = noop, spec

    @property
    def keys(self) -> tuple[Key, ...]:
        """Every key on its own, with what it does."""
        alone = [(next(iter(held)), a) for held, a in self.mapping.items() if len(held) == 1]
        return tuple(Key(key=key, label=self._label(action)) for key, action in alone)

    def from_keys(self, held: Sequence[str]) -> Any:
        """The action of held keys, newest last: the largest known group of them, newest first."""
        down, newest = frozenset(held), held[-1] if held else ""
        known = [group for group in self.mapping if group <= down]
        if not known:
            return self.noop
        return self.mapping[max(known, key=lambda group: (len(group), newest in group))]

    def nearest(self, action: Any) -> tuple[str, ...]:
        """The keys that do what is nearest to `action`; none where idle hands are."""
        given = self._place(action)
        options: dict[frozenset[str], Any] = {frozenset(): self.noop, **self.mapping}
        gaps = {held: np.abs(self._place(a) - given).sum() for held, a in options.items()}
        return tuple(sorted(min(gaps, key=lambda held: (gaps[held], len(held)))))

    def _place(self, action: Any) -> NDArray[np.float64]:
        """An action as numbers whose distances mean something: axes in units of their range."""
        values = np.atleast_1d(np.asarray(action, np.float64))
        if not self.spec.is_discrete:
            return values / np.subtract(self.spec.high, self.spec.low)
        counts = zip(self.spec.choices, values - self.spec.least, strict=True)
        return np.concatenate([np.arange(n) == v for n, v in counts]).astype(np.float64)

    def from_values(self, values: Sequence[float]) -> Any:
        """The action of explicit numbers, one for each entry; `WorldError` if they do not fit."""
        array = np.asarray(values, np.float32)
        if self.spec.is_discrete:
            if not np.array_equal(array, array.astype(np.int64)):
                raise WorldError(f"action: expected whole numbers, got {list(values)}")
            array = array.astype(np.int64)
        action = array if self.spec.shape else array.reshape(-1)[0] if len(array) == 1 else array
        return self.spec.check(action).numpy() if self.spec.shape else int(self.spec.check(action))

    def _label(self, action: Any) -> str:
        if not self.spec.shape:
            return f"action {int(action)}"
        before, after = (np.asarray(x).ravel().tolist() for x in (self.noop, action))
        changed = [
            (i, x, y) for i, (x, y) in enumerate(zip(before, after, strict=True), 1) if x != y
        ]
        if self.spec.is_discrete:
            return ", ".join(f"entry {i} is {y}" for i, _, y in changed)
        words = [f"axis {i} {'up' if y > x else 'down'}" for i, x, y in changed]
        return ", ".join(words) or "nothing"


def _characters(held: Any) -> list[str]:
    """Keys as `gymnasium.utils.play` writes them: "wa", or a tuple of characters or codes."""
    return [chr(key) if isinstance(key, int) else key for key in held]
