"""CarRacing's own pictures, byte for byte, in less time: what is out of sight is not drawn.

The simulator turns every tile of the track and every square of grass into pixels, 700 polygons a
frame in Python, of which some 40 are in sight. Here all corners are placed at once (NumPy), and
only polygons whose box meets the screen go on to the simulator's own drawing.
"""

from __future__ import annotations

import math
import sys
from functools import cache
from importlib import import_module
from types import MethodType
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

Corners = NDArray[np.float64]
"""(N, 4, 2), in units of the simulator."""

SIMULATOR = "gymnasium.envs.box2d.car_racing"  # imports Box2D, so it is imported when needed
MARGIN = 3.0  # pixels around the screen: positions round, and edges are drawn smooth


def draw_in_sight(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """The same environment, whose simulator draws what is in sight alone, if it is a CarRacing."""
    simulator: Any = env.unwrapped
    known = sys.modules.get(SIMULATOR)
    if known is not None and isinstance(simulator, known.CarRacing):
        simulator._render_road = MethodType(_render_road, simulator)
    return env


def _render_road(self: Any, zoom: float, translation: tuple[float, float], angle: float) -> None:
    """In place of `CarRacing._render_road`: same polygons in sight, same order, same colours."""
    view = (zoom, translation, angle)
    bounds = import_module(SIMULATOR).PLAYFIELD
    field = [(bounds, bounds), (bounds, -bounds), (-bounds, -bounds), (-bounds, bounds)]
    self._draw_colored_polygon(self.surf, field, self.bg_color, *view, clip=False)
    squares, corners = _grass()
    for place in _in_sight(corners, *view):
        self._draw_colored_polygon(self.surf, squares[place], self.grass_color, *view)
    for place in _in_sight(_road(self), *view):
        poly, color = self.road_poly[place]
        shade = [int(c) for c in color]
        self._draw_colored_polygon(self.surf, [(p[0], p[1]) for p in poly], shade, *view)


@cache
def _grass() -> tuple[list[list[tuple[float, float]]], Corners]:
    """The squares of grass, in the simulator's order, and their corners."""
    side = import_module(SIMULATOR).GRASS_DIM
    squares = [
        [(side * x + side, side * y), (side * x, side * y), (side * x, side * y + side),
         (side * x + side, side * y + side)]
        for x in range(-20, 20, 2) for y in range(-20, 20, 2)
    ]  # fmt: skip
    return squares, np.array(squares)


def _road(simulator: Any) -> Corners:
    """Corners of the road's polygons, made anew where the track is another one."""
    known = simulator.__dict__.get("_road_corners")
    track = simulator.road_poly
    if known is None or known[0] is not track or len(known[1]) != len(track):
        corners = np.array([poly for poly, _ in track], np.float64).reshape(-1, 4, 2)
        simulator._road_corners = known = (track, corners)
    return known[1]


def _in_sight(
    corners: Corners, zoom: float, translation: tuple[float, float], angle: float
) -> list[int]:
    """Places of the polygons whose box meets the screen."""
    cos, sin, screen = math.cos(angle), math.sin(angle), import_module(SIMULATOR)
    x, y = corners[..., 0], corners[..., 1]
    across = (x * cos - y * sin) * zoom + translation[0]
    along = (x * sin + y * cos) * zoom + translation[1]
    seen = (across.max(1) >= -MARGIN) & (across.min(1) <= screen.WINDOW_W + MARGIN)
    seen &= (along.max(1) >= -MARGIN) & (along.min(1) <= screen.WINDOW_H + MARGIN)
    return np.flatnonzero(seen).tolist()
