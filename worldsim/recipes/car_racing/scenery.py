"""CarRacing in other sceneries: ground, light, weather and road colour, changed at any frame.

Physics, tracks and controls stay those of `CarRacing-v3`, and particles are a function of the frame
count, so the same seed and actions give the exact twin of an episode in every scenery.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from worldsim.errors import WorldError

Picture = NDArray[np.uint8]

GROUNDS = {  # the plain and the squares on it
    "meadow": ((102, 204, 102), (102, 230, 102)),
    "desert": ((222, 184, 120), (236, 204, 150)),
    "snow": ((236, 240, 246), (250, 252, 255)),
    "jungle": ((22, 84, 36), (12, 58, 26)),
}
ROADS = {
    "grey": (102, 102, 102),
    "black": (48, 48, 54),
    "red": (164, 84, 66),
    "pale": (168, 164, 152),
}
LIGHTS = ("day", "dusk", "night")
WEATHERS = ("clear", "rain", "fog", "snowfall")

DUSK = (0.95, 0.68, 0.55)
NIGHT = (0.14, 0.16, 0.26)
OVERCAST = {"rain": 0.78, "snowfall": 0.92}  # how much light is left under clouds
FOG = 205.0
FIELD = 7 / 8  # of a frame's height; the panel lies below and stays as it is
CAR = (0.75, 0.5)  # where the car stands, of height and width
SIDE = 96  # of the frames that distances are told in
STREAKS, FLAKES = 90, 110


@dataclass(frozen=True, kw_only=True)
class Scenery:
    """What CarRacing looks like.

    Attributes:
        ground: meadow, desert, snow or jungle. light: day, dusk or night, which has headlights.
        weather: clear, rain, fog or snowfall. road: grey, black, red or pale.
    Raises WorldError for another value.
    """

    ground: str = "meadow"
    light: str = "day"
    weather: str = "clear"
    road: str = "grey"

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                got = getattr(self, name)
                raise WorldError(f"{name}: expected one of {list(choices)}, got {got!r}")

    def but(self, changes: Mapping[str, str]) -> Scenery:
        """The same with other values; raises WorldError for a name that is none."""
        if unknown := changes.keys() - CHOICES.keys():
            raise WorldError(f"scenery: expected {list(CHOICES)}, got {sorted(unknown)}")
        return replace(self, **changes)


CHOICES: dict[str, tuple[str, ...]] = {
    "ground": tuple(GROUNDS), "light": LIGHTS, "weather": WEATHERS, "road": tuple(ROADS)
}  # fmt: skip
PLAIN = Scenery()


class SceneryRacing(gymnasium.Wrapper[Any, Any, Any, Any]):
    """CarRacing shown in a scenery.

    `env.change(weather="rain")` changes it from the next frame on. Frames of any size are shown so,
    observations and what is rendered.

    Args:
        env: a CarRacing.
        scenery: what it looks like after a reset; `reset(options={"scenery": ...})` gives another.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], scenery: Scenery = PLAIN) -> None:
        super().__init__(env)
        self.begin = self.scenery = scenery
        self.frame = 0  # since the reset

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Picture, dict[str, Any]]:
        """Begin an episode; `options["scenery"]` is a `Scenery` or a dict of what differs."""
        options = dict(options or {})
        given = options.pop("scenery", self.begin)
        self.scenery = given if isinstance(given, Scenery) else self.begin.but(given)
        self.frame = 0
        self._colour()  # before the track is built, which takes its colours
        observation, info = self.env.reset(seed=seed, options=options or None)
        return shown(observation, self.scenery, self.frame), info

    def change(self, **changes: str) -> None:
        """Another scenery from the next frame on."""
        self.scenery = self.scenery.but(changes)
        self._colour()
        simulator: Any = self.env.unwrapped
        for place, tile in enumerate(getattr(simulator, "road", None) or ()):
            fresh = 0 if tile.road_visited else 2.55 * (place % 3)  # as the simulator shades them
            tile.color[:] = simulator.road_color + fresh

    def step(self, action: Any) -> tuple[Picture, Any, bool, bool, dict[str, Any]]:
        """One frame."""
        observation, *rest = self.env.step(action)
        self.frame += 1
        return shown(observation, self.scenery, self.frame), *rest  # type: ignore[return-value]

    def render(self) -> Any:
        """What the simulator renders, in this scenery."""
        picture = self.env.render()
        if isinstance(picture, np.ndarray):
            return shown(picture, self.scenery, self.frame)
        return picture

    def _colour(self) -> None:
        simulator: Any = self.env.unwrapped
        plain, squares = GROUNDS[self.scenery.ground]
        simulator.bg_color, simulator.grass_color = np.array(plain), np.array(squares)
        simulator.road_color = np.array(ROADS[self.scenery.road], float)


def shown(picture: Picture, scenery: Scenery, frame: int) -> Picture:
    """A frame (H, W, 3) under the scenery's weather and light, a new array; the panel is spared."""
    if scenery.light == "day" and scenery.weather == "clear":
        return picture
    rows, columns = round(picture.shape[0] * FIELD), picture.shape[1]
    field = picture[:rows].astype(np.float32)
    if scenery.weather == "fog":
        clear, glow = _fog(rows, columns)
        field = field * clear + glow
    field *= _light(rows, columns, scenery.light, scenery.weather)
    if scenery.weather == "rain":
        _draw(field, _streaks(frame, rows, columns), 0.45, scenery.light)
    elif scenery.weather == "snowfall":
        _draw(field, _flakes(frame, rows, columns), 0.9, scenery.light)
    result = picture.copy()
    result[:rows] = np.minimum(field, 255).astype(np.uint8)
    return result


def _distances(rows: int, columns: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """How far each pixel lies ahead of the car and to its right, in pixels of a 96x96 frame."""
    scale = SIDE / columns
    y = (CAR[0] * rows / FIELD - np.arange(rows)) * scale
    x = (np.arange(columns) - CAR[1] * columns) * scale
    return np.meshgrid(y, x, indexing="ij")


@lru_cache(maxsize=8)
def _fog(rows: int, columns: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How much of each pixel is seen, and the grey that is added."""
    ahead, right = _distances(rows, columns)
    thick = np.clip((np.hypot(ahead, right) - 10) / 45, 0, 0.96)[..., None]
    return (1 - thick).astype(np.float32), (FOG * thick).astype(np.float32)


@lru_cache(maxsize=32)
def _light(rows: int, columns: int, light: str, weather: str) -> NDArray[np.float32]:
    """What each pixel is multiplied by; at night a cone of light lies before the car."""
    clouds = OVERCAST.get(weather, 1.0)
    if light != "night":
        tint = DUSK if light == "dusk" else (1.0, 1.0, 1.0)
        return np.full((rows, columns, 3), tint, np.float32) * np.float32(clouds)
    ahead, right = _distances(rows, columns)
    far, angle = np.hypot(ahead, right), np.abs(np.arctan2(right, np.maximum(ahead, 1e-3)))
    cone = np.clip((0.62 - angle) / 0.25, 0, 1) * np.clip((58 - far) / 40, 0, 1) * (ahead > 2)
    near = np.clip((9 - far) / 6, 0, 1)  # what the lamps leave of the car itself
    bright = np.maximum(cone, 0.6 * near)[..., None]
    lamp = np.array((0.98, 0.95, 0.82))
    return (np.array(NIGHT) * clouds * (1 - bright) + lamp * bright).astype(np.float32)


@lru_cache(maxsize=2)
def _particles(count: int) -> NDArray[np.float64]:
    """Places and speeds (4, count) of rain or snow, from 0 to 1."""
    return np.random.default_rng(count).random((4, count))


def _streaks(frame: int, rows: int, columns: int) -> tuple[Any, Any]:
    y, x, speed, _ = _particles(STREAKS)
    scale = columns / SIDE
    head = y * rows + frame * (5 + 4 * speed) * scale
    length = max(3, round(6 * scale))
    along = np.arange(length)[:, None]
    ys = (head + along).astype(int) % rows
    xs = (x * columns + frame * 1.3 * scale + along / 3).astype(int) % columns
    return ys.ravel(), xs.ravel()


def _flakes(frame: int, rows: int, columns: int) -> tuple[Any, Any]:
    y, x, speed, phase = _particles(FLAKES)
    scale = columns / SIDE
    size = max(1, round(1.5 * scale))
    down = y * rows + frame * (0.8 + speed) * scale
    side = x * columns + 3 * scale * np.sin(0.07 * frame + 6.3 * phase)
    square = np.arange(size)
    ys = (down.astype(int)[:, None, None] + square[:, None] + 0 * square) % rows
    xs = (side.astype(int)[:, None, None] + square + 0 * square[:, None]) % columns
    return ys.ravel(), xs.ravel()


def _draw(field: NDArray[np.float32], where: tuple[Any, Any], much: float, light: str) -> None:
    bright = {"day": (225.0, 230, 238), "dusk": (225.0, 190, 175), "night": (96.0, 100, 118)}
    field[where] += much * (np.array(bright[light], np.float32) - field[where])


def draw(rng: np.random.Generator, without: Sequence[Mapping[str, str]] = ()) -> Scenery:
    """A scenery, every value as likely; none that agrees with one of `without` in all it names."""
    while True:
        values = {name: str(rng.choice(choices)) for name, choices in CHOICES.items()}
        if not any(all(values[k] == v for k, v in pair.items()) for pair in without):
            return Scenery(**values)


def values_of(scenery: Scenery) -> dict[str, str]:
    """The scenery as a dict."""
    return {field.name: getattr(scenery, field.name) for field in fields(scenery)}
