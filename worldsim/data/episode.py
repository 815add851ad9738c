"""What an episode must be: dtypes, shapes and values, checked where it enters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldsim.core import ActionSpec

from .captions import check_captions
from .dataset import DatasetSpec, Episode, unfit


def check_episode(episode: Episode, spec: DatasetSpec, where: object = None) -> Episode:
    """The episode with plain arrays, if it fits `spec`.

    Arrays may be views, of another byte order, or of a wider type of number; what comes back is
    float32 or int64. Frames are not decoded.
    Raises DatasetError that names `where` (the episode by default) and the field.
    """
    where = f"episode {episode.name}" if where is None else where
    _check_frames(episode, spec, where)
    count = len(episode)
    known = _plain(episode.known, (count,), np.bool_, "known", where)
    actions = _check_actions(episode.actions, known, count, spec.action, where)
    if known is not None and actions is None:
        raise unfit(where, "known", "none, as there are no actions", known.shape)
    state = _plain(episode.state, (count, len(spec.state)), np.float32, "state", where)
    rewards = _plain(episode.rewards, (count,), np.float32, "rewards", where)
    for name, values, there in (
        ("state", state, bool(spec.state)), ("rewards", rewards, spec.has_rewards),
    ):  # fmt: skip
        if values is not None and not there:
            raise unfit(where, name, "none, as the dataset declares none", values.shape)
    captions = check_captions(episode.captions, count, where)
    if (episode.text or captions) and not spec.has_text:
        got = (episode.text or captions[0].text)[:80]
        raise unfit(where, "text", "none, as the dataset declares none", got)
    if episode.seed is not None and not 0 <= episode.seed < 2**63:
        raise unfit(where, "seed", "a whole number >= 0", episode.seed)
    return replace(
        episode, actions=actions, known=known, state=state, rewards=rewards, captions=captions
    )


def _check_frames(episode: Episode, spec: DatasetSpec, where: object) -> None:
    shape = tuple(episode.frames.shape)
    dtype = getattr(episode.frames, "dtype", np.dtype(np.uint8))
    if dtype != np.uint8 or shape[1:] != spec.frame_shape or not shape[0]:
        expected = f"uint8 frames (n, {', '.join(map(str, spec.frame_shape))}), n >= 1"
        raise unfit(where, "frames", expected, f"{dtype} {shape}")
    if episode.chunk != spec.chunk:
        raise unfit(where, "chunk", f"{spec.chunk} as in the dataset", episode.chunk)
    if shape[0] % spec.chunk:
        expected = f"a whole number of chunks of {spec.chunk}"
        raise unfit(where, "frames", expected, f"{shape[0]} frames")
    if not np.isclose(episode.fps, spec.fps, rtol=1e-3):
        raise unfit(where, "fps", f"{spec.fps} as in the dataset", episode.fps)


def _plain(
    values: Any, shape: tuple[int, ...], dtype: Any, field: str, where: object
) -> NDArray[Any] | None:
    """`values` as a C-ordered array of this shape and type, finite; None stays None."""
    if values is None:
        return None
    array = np.asarray(values)
    kinds = {"f": "fiu", "i": "iu", "b": "b"}[np.dtype(dtype).kind]
    if array.dtype.kind not in kinds or array.shape != shape:
        expected = f"{np.dtype(dtype).name} {shape}"
        raise unfit(where, field, expected, f"{array.dtype} {array.shape}")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, dtype)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise unfit(where, field, "finite values", "NaN or infinity")
    return array


def _check_actions(
    values: Any, known: NDArray[np.bool_] | None, count: int, spec: ActionSpec, where: object
) -> NDArray[Any] | None:
    if values is None:
        return None
    if spec.kind == "none":
        raise unfit(where, "actions", "none, as the dataset declares none", np.shape(values))
    dtype = np.int64 if spec.is_discrete else np.float32
    array = _plain(values, (count, *spec.shape), dtype, "actions", where)
    assert array is not None
    seen = array if known is None else array[known]
    if spec.is_discrete:
        low, high = spec.least, spec.least + np.asarray(spec.choices) - 1
        high = high if spec.shape else high[0]
    else:  # in float32, as they are stored: a bound may round beyond itself
        low, high = np.asarray(spec.low, np.float32), np.asarray(spec.high, np.float32)
    if not ((seen >= low) & (seen <= high)).all():
        expected = f"values from {np.asarray(low).tolist()} to {np.asarray(high).tolist()}"
        raise unfit(where, "actions", expected, f"{seen.min()} to {seen.max()}")
    return array
