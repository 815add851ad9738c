"""What an observation holds: a picture, a state vector, a caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from .errors import CollectError

WHOLE = "observation"  # stands for an observation that is no dict, in `EnvironmentSpec.state`
LEAST_SIDE = 16  # pixels: what is smaller is a map of symbols, such as MiniGrid's 7x7
CHANNELS = (1, 3)


def is_picture(space: gymnasium.Space[Any]) -> bool:
    """Whether a space holds pictures: uint8 (H, W), (H, W, C) or (C, H, W) with 1 or 3 channels."""
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return False
    sides = _sides(space.shape)
    return sides is not None and min(sides) >= LEAST_SIDE


def _sides(shape: Sequence[int]) -> tuple[int, int] | None:
    """Height and width of a picture of this shape, None for any other array."""
    match tuple(shape):
        case (height, width) | (height, width, 1 | 3) | (1 | 3, height, width):
            return height, width
    return None


def picture_key(space: gymnasium.Space[Any]) -> str | None:
    """Where the picture of an observation is: "" for the observation itself, a key of a dict, None
    where there is none. Raises CollectError where a dict holds several."""
    if not isinstance(space, spaces.Dict):
        return "" if is_picture(space) else None
    keys = [key for key, part in space.items() if is_picture(part)]
    if len(keys) > 1:
        raise CollectError(
            f"image: expected the name of one of the pictures {keys} in the observation, got none; "
            f"choose one, such as image={keys[0]!r}"
        )
    return keys[0] if keys else None


def to_picture(value: Any, source: str) -> NDArray[np.uint8]:
    """A picture as (H, W, 3) uint8, grey ones repeated; raises CollectError for anything else."""
    array: NDArray[Any] = value if isinstance(value, np.ndarray) else np.zeros(())
    if array.dtype != np.uint8 or _sides(array.shape) is None:
        got = f"{getattr(value, 'dtype', type(value).__name__)} {getattr(value, 'shape', '')}"
        raise CollectError(
            f"source: expected {source} frames that are uint8 pictures (H, W, 3), got "
            f"{got.strip()}; try the other source, or wrap the environment"
        )
    if array.ndim == 2:
        array = array[..., None]
    elif array.shape[-1] not in CHANNELS:
        array = np.moveaxis(array, 0, -1)
    return np.broadcast_to(array, (*array.shape[:2], 3))


def state_parts(space: gymnasium.Space[Any]) -> tuple[str, ...]:
    """All parts of an observation that are vectors or numbers: what `state` is by default."""
    if isinstance(space, spaces.Dict):
        return tuple(key for key, part in space.items() if _length(part) is not None)
    return () if _length(space) is None else (WHOLE,)


def state_names(space: gymnasium.Space[Any], parts: Sequence[str]) -> tuple[str, ...]:
    """Names of the entries of the state vector; raises CollectError for a part that is none."""
    names: list[str] = []
    for part in parts:
        inside = _part_space(space, part)
        length = None if inside is None else _length(inside)
        if length is None:
            raise CollectError(
                f"state: expected vectors among the observation's parts, {state_parts(space)}, got "
                f"{part!r}"
            )
        names += [f"{part}[{i}]" for i in range(length)] if length else [part]
    return tuple(names)


def _part_space(space: gymnasium.Space[Any], part: str) -> gymnasium.Space[Any] | None:
    if isinstance(space, spaces.Dict):
        return space[part] if part in space.spaces else None
    return space if part == WHOLE else None


def _length(space: gymnasium.Space[Any]) -> int | None:
    """Entries of a vector, 0 for a single number, None for any other space."""
    if isinstance(space, spaces.Discrete):
        return 0
    vectors = spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary
    shape = space.shape if isinstance(space, vectors) else None
    if shape is None or len(shape) > 1:
        return None
    return shape[0] if shape else 0


def state_vector(observation: Any, parts: Sequence[str]) -> NDArray[np.float32]:
    """The parts of an observation as one vector (S,)."""
    values = [observation if part == WHOLE else observation[part] for part in parts]
    rows = [np.ravel(np.asarray(value, np.float32)) for value in values]
    return np.concatenate(rows) if rows else np.zeros(0, np.float32)


def text_of(observation: Any) -> str:
    """The caption in a dict observation (BabyAI's mission): its first text, "" without."""
    if not isinstance(observation, Mapping):
        return ""
    return next((value for value in observation.values() if isinstance(value, str)), "")
