"""Keys for a world that says only what its actions are, as `gymnasium.utils.play` wants them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldsim.core import ActionSpec, WorldError

PAIRS = ("ad", "sw", "qe", "fr", "gt")  # to the lower and the upper end of an axis
SINGLES = "wsedfrgt"  # to the upper end of an axis that rests at its lower one
CHOICES = "0123456789abcdefghijklmnopqrstuvwxyz"
MOST_HELD = 10  # keys whose every combination has an action: 1,024

Key = tuple[int, float]
"""The entry that a key sets, and to what."""


def neutral_action(action: ActionSpec) -> Any:
    """The action of idle hands: the first choice; zero on each axis, or what is nearest to it."""
    if action.kind == "continuous":
        return np.clip(0, action.low, action.high).astype(np.float32)
    return np.zeros(action.shape, np.int64) if action.shape else action.least


def keys_to_action(action: ActionSpec) -> dict[str, Any]:
    """Keys held down together -> action in the world's own range; no key is a combination, too.

    One choice: the digits, then letters. Several: a key for every choice but the first of each
    entry, in order. Boxes: A and D move the first entry to its ends, S and W the second, and so on
    up to five; an entry that is never negative (a pedal) has one key, W, S, E...

    Raises `WorldError` where there are not that many keys.
    """
    keys = _keys(action)
    held = range(len(keys) + 1 if len(keys) <= MOST_HELD else 3)
    combined = (chosen for count in held for chosen in combinations(keys, count))
    return {"".join(chosen): _held(action, [keys[key] for key in chosen]) for chosen in combined}


def _held(action: ActionSpec, keys: list[Key]) -> Any:
    """What these keys do together: opposite ends cancel, of several choices the first counts."""
    values: NDArray[Any] = np.atleast_1d(neutral_action(action)).copy()
    for entry in {entry for entry, _ in keys}:
        asked = [value for at, value in keys if at == entry]
        if action.is_discrete or len(asked) == 1:
            values[entry] = asked[0]
    return values if action.shape else int(values[0])


def _keys(action: ActionSpec) -> dict[str, Key]:
    pairs = _axes(action) if action.kind == "continuous" else _choices(action)
    try:
        return dict(pairs)
    except IndexError:
        raise WorldError(
            f"keys: expected at most {len(CHOICES)} choices or {len(PAIRS)} axes, got {action}; "
            "pass keys_to_action to play()"
        ) from None


def _choices(action: ActionSpec) -> Iterator[tuple[str, Key]]:
    if action.kind == "none":
        return
    if action.kind == "discrete":
        yield from ((CHOICES[n], (0, action.start + n)) for n in range(action.n))
        return
    wanted = [(entry, n) for entry, count in enumerate(action.nvec) for n in range(1, count)]
    yield from ((CHOICES[place + 1], key) for place, key in enumerate(wanted))


def _axes(action: ActionSpec) -> Iterator[tuple[str, Key]]:
    used: set[str] = set()
    for entry, (low, high) in enumerate(zip(action.low, action.high, strict=True)):
        pedal = low >= 0
        free = [keys for keys in (SINGLES if pedal else PAIRS) if not used & set(keys)]
        if not free:
            raise IndexError
        used |= set(free[0])
        yield free[0][-1], (entry, high)
        if not pedal:
            yield free[0][0], (entry, low)
