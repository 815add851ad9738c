"""Large frames in tiles: a convolutional network sees a tile and what lies within its reach.

Norms are per pixel, so what comes out of a tile with its whole surroundings is what comes out of
the whole frame, up to rounding; memory is that of a tile, whatever the frame's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

TILE = 64
"""Side of a tile, in cells of the latent grid; frames of no more cells than a tile go in one."""


def in_tiles(
    network: Callable[[Tensor], Tensor], x: Tensor, reach: int, *, cell: int, shown: int,
    tile: int = TILE,
) -> Tensor:  # fmt: skip
    """`network(x)` of x (B, C, H, W), in tiles where it is large.

    reach: cells on each side that a cell of the output depends on. cell: pixels of x in a cell of
    the grid, each way; shown: pixels of the output in one. tile: cells of a tile's side.
    """
    height, width = x.shape[2] // cell, x.shape[3] // cell
    if height * width <= tile * tile:
        return network(x)
    out: Tensor | None = None
    for row in range(len(x)):
        for (top, bottom, a), (left, right, b) in _tiles(height, width, reach, tile):
            y = slice(a[0] * cell, a[1] * cell), slice(b[0] * cell, b[1] * cell)
            part = network(x[row : row + 1, :, y[0], y[1]])
            if out is None:
                size = (len(x), part.shape[1], height * shown, width * shown)
                out = part.new_empty(size)
            above, before = (top - a[0]) * shown, (left - b[0]) * shown
            inner = part[0, :, above : above + (bottom - top) * shown,
                         before : before + (right - left) * shown]  # fmt: skip
            where = slice(top * shown, bottom * shown), slice(left * shown, right * shown)
            out[row, :, where[0], where[1]] = inner
    assert out is not None
    return out


Span = tuple[int, int, tuple[int, int]]
"""First and last cell of a tile along a side, and of its surroundings."""


def _tiles(height: int, width: int, reach: int, tile: int) -> Iterator[tuple[Span, Span]]:
    for down in _spans(height, reach, tile):
        for right in _spans(width, reach, tile):
            yield down, right


def _spans(length: int, reach: int, tile: int) -> Iterator[Span]:
    for first in range(0, length, tile):
        last = min(first + tile, length)
        yield first, last, (max(0, first - reach), min(length, last + reach))


def reach_of(fine: int, coarse: int) -> int:
    """Cells, from 3x3 convolutions at twice the grid's resolution and at the grid's own."""
    return -(-fine // 2) + coarse
