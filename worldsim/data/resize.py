"""Area resize of video frames, exact to the last bit.

Every output pixel is the mean of the input area that it covers. The overlaps of two regular grids
are whole numbers in a common unit, so the weighted sums are whole numbers too: floating point only
carries them, and the same frame gives the same bytes on every machine.
"""

from functools import lru_cache
from math import gcd

import numpy as np
from numpy.typing import NDArray

FLOAT32_EXACT = 2**24  # float32 holds every whole number up to here


@lru_cache(maxsize=64)
def overlaps(source: int, target: int) -> tuple[NDArray[np.float32], int]:
    """Overlap of each target cell with each source cell, and the length of one target cell.

    Returns (target, source) whole-number weights; each row sums to the returned length.
    """
    common = gcd(source, target)
    source_length, target_length = target // common, source // common
    source_edges = np.arange(source + 1) * source_length
    target_edges = np.arange(target + 1) * target_length
    low = np.maximum(target_edges[:-1, None], source_edges[None, :-1])
    high = np.minimum(target_edges[1:, None], source_edges[None, 1:])
    return np.maximum(high - low, 0).astype(np.float32), target_length


def crop_frames(
    frames: NDArray[np.uint8], crop: tuple[int, int, int, int] | None
) -> NDArray[np.uint8]:
    """Rows top:bottom and columns left:right of (..., H, W, C) frames; crop = (top, bottom, left,
    right) in pixels, None keeps all. Raises ValueError if the window does not lie in the frame."""
    if crop is None:
        return frames
    top, bottom, left, right = crop
    height, width = frames.shape[-3:-1]
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise ValueError(
            f"crop: expected 0 <= top < bottom <= {height} and 0 <= left < right <= {width} for "
            f"frames of {height}x{width}, got {crop}; pass (top, bottom, left, right) in pixels"
        )
    return frames[..., top:bottom, left:right, :]


def centred_crop(source: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest centred window of `source` (height, width) that has the shape of `size`, to the
    nearest pixel, as (top, bottom, left, right)."""
    (height, width), (rows, columns) = source, size
    if height * columns > width * rows:
        kept = min(height, (2 * width * rows + columns) // (2 * columns)), width
    else:
        kept = height, min(width, (2 * height * columns + rows) // (2 * rows))
    top, left = (height - kept[0]) // 2, (width - kept[1]) // 2
    return top, top + kept[0], left, left + kept[1]


def area_resize(frames: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize (..., H, W, C) uint8 frames to (..., *size, C) by area; halves round up.

    size: (height, width), each at least 1; larger than the source repeats pixels by area.
    Raises ValueError for frames of another dtype or rank, or a size below 1.
    """
    if frames.dtype != np.uint8 or frames.ndim < 3:
        raise ValueError(
            f"frames: expected uint8 (..., H, W, C), got {frames.dtype} {frames.shape}; "
            "convert them to 0..255 uint8 images first"
        )
    if min(size) < 1:
        raise ValueError(f"size: expected (height, width) of at least 1, got {size}")
    height, width = frames.shape[-3:-1]
    if (height, width) == tuple(size):
        return frames.copy()
    rows, row_length = overlaps(height, size[0])
    columns, column_length = overlaps(width, size[1])
    area = row_length * column_length
    dtype = np.float32 if 255 * area < FLOAT32_EXACT else np.float64
    sums = np.einsum(
        "oh,...hwc,pw->...opc", rows.astype(dtype), frames.astype(dtype), columns.astype(dtype),
        optimize=True,
    )  # fmt: skip
    whole = sums.astype(np.int64)
    return ((2 * whole + area) // (2 * area)).astype(np.uint8)
