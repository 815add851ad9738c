"""Keys for a world that says only what shape its actions have."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from worldsim.core import ActionSpec, WorldError

DIGITS = "0123456789"


def neutral_action(action: ActionSpec) -> Any:
    """The action of idle hands: choice 0; zero on each axis; gas and brake at their lowest."""
    if action.kind == "discrete":
        return 0
    low, high = np.array(action.low, np.float32), np.array(action.high, np.float32)
    rest = np.clip(np.zeros_like(low), low, high)
    if len(low) == 3:
        rest[1:] = low[1:]
    return rest


def keys_to_action(action: ActionSpec) -> dict[str, Any]:
    """Keys held down together -> action, as `gymnasium.utils.play` wants it.

    Discrete: the digits. Boxes: A and D move the first entry to its ends; with two entries S and W
    do so with the second; with three (steer, gas, brake) W is full gas and S full brake.
    """
    if action.kind == "discrete" and action.n <= len(DIGITS):
        return {DIGITS[choice]: choice for choice in range(action.n)}
    if not 1 <= len(action.low) <= 3:
        raise WorldError(
            f"keys: expected at most 10 choices or 3 axes, got {action}; "
            "pass keys_to_action to play()"
        )
    ends = {"a": (0, action.low[0]), "d": (0, action.high[0])}
    if len(action.low) == 2:
        ends |= {"s": (1, action.low[1]), "w": (1, action.high[1])}
    elif len(action.low) == 3:
        ends |= {"s": (2, action.high[2]), "w": (1, action.high[1])}
    mapping = {}
    for pair in product(("", "a", "d"), ("", "s", "w")):
        held = "".join(pair)
        if held and set(held) <= ends.keys():
            mapping[held] = neutral_action(action)
            for key in held:
                axis, value = ends[key]
                mapping[held][axis] = value
    return mapping
