"""CarRacing in drawn sceneries, with captions of what is true of it: what `scenery` is trained on.

`gymnasium.make("WorldSim/SceneryRacing-v0")`; `info["text"]` holds several wordings of the present
second, which a recording keeps with the chunks they speak of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from .captions import EVENTS, HELD_OUT, caption, event
from .scenery import CHOICES, PLAIN, Picture, Scenery, SceneryRacing, draw, values_of

SPAN = 50  # frames that a caption speaks of
WORDINGS = 3
HELD_OUT_SEEDS = range(5025, 5050)  # the second half of the test split
CHANGED = (50, 100)  # frames from one change to the next: a span or more
LONGEST = 1000  # frames of an episode
NEAR, FAR = 2, 13  # tiles ahead that decide what lies ahead; a frame shows eleven of 3.5 units
BEND, HAIRPIN = 0.35, 1.9  # radians that the road turns between these
SLOW, FAST = 25.0, 55.0  # units a second


class CaptionedRacing(SceneryRacing):
    """A scenery drawn from the seed of each episode, changes every second or two, and captions.

    Changes come often: a network that is shown the past needs words only where something changes.

    Args:
        env: a CarRacing.
        scenery: one that holds instead, a dict of what differs from CarRacing's own.
        held_out: whether combinations that are kept from training are drawn; by default only for
            the seeds `HELD_OUT_SEEDS`.
        changes: whether scenery may change within an episode.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        scenery: Mapping[str, str] | None = None,
        *,
        held_out: bool | None = None,
        changes: bool = True,
    ) -> None:
        super().__init__(env, PLAIN if scenery is None else PLAIN.but(scenery))
        self.fixed, self.held_out, self.changes = scenery is not None, held_out, changes
        self.rng, self._kept = np.random.default_rng(0), bool(held_out)
        self.events: list[tuple[int, str, str]] = []
        self.text: list[str] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Picture, dict[str, Any]]:
        """Begin an episode; all that is drawn follows from `seed`."""
        if seed is not None:
            self.rng = np.random.default_rng([seed, 21])
            self._kept = self.held_out is True or (self.held_out is None and seed in HELD_OUT_SEEDS)
        options = dict(options or {})
        if not self.fixed:
            options.setdefault("scenery", self._drawn())
        observation, info = super().reset(seed=seed, options=options)
        self.events = self._events() if self.changes else []
        self.text = self._captions()
        return observation, {**info, "text": self.text}

    def step(self, action: Any) -> tuple[Picture, Any, bool, bool, dict[str, Any]]:
        """One frame; a change, where this is the frame for it."""
        if self.events and self.frame == self.events[0][0]:
            _, name, value = self.events.pop(0)
            self.change(**{name: value})
            self.text = [event(self.rng, name, value).text for _ in range(WORDINGS)]
        *outcome, info = super().step(action)
        if self.frame % SPAN == 0:
            self.text = self._captions()
        return *outcome, {**info, "text": self.text}  # type: ignore[return-value]

    def _drawn(self) -> Scenery:
        if not self._kept:
            return draw(self.rng, HELD_OUT)
        pair = HELD_OUT[int(self.rng.integers(len(HELD_OUT)))]
        return draw(self.rng).but(pair)

    def _events(self) -> list[tuple[int, str, str]]:
        """When which value changes to what; never to a combination that is kept for tests."""
        found: list[tuple[int, str, str]] = []
        now, frame = values_of(self.scenery), int(self.rng.integers(*CHANGED))
        while frame < LONGEST:
            name = str(self.rng.choice(list(EVENTS)))
            value = str(self.rng.choice(CHOICES[name]))
            after = {**now, name: value}
            known = any(all(after[k] == v for k, v in pair.items()) for pair in HELD_OUT)
            if value == now[name] or (known and not self._kept):
                continue
            found.append((frame - frame % SPAN + SPAN // 2, name, value))  # amid a span
            now, frame = after, frame + int(self.rng.integers(*CHANGED))
        return found

    def _captions(self) -> list[str]:
        truth = truth_of(self)
        return [caption(self.rng, truth).text for _ in range(WORDINGS)]


def truth_of(env: SceneryRacing) -> dict[str, str]:
    """What is true of an episode just now, by `captions.ATTRIBUTES`; unclear ones left out."""
    simulator: Any = env.unwrapped
    hull = simulator.car.hull
    speed = float(np.hypot(*hull.linearVelocity))
    truth = values_of(env.scenery)
    if (ahead := lies_ahead(simulator)) is not None:
        truth["ahead"] = ahead
    truth["speed"] = "slow" if speed < SLOW else "fast" if speed > FAST else "steady"
    on_road = any(wheel.tiles for wheel in simulator.car.wheels)
    truth["behaviour"] = "standing" if speed < 1.5 else "on" if on_road else "off"
    if truth["behaviour"] == "standing":
        del truth["speed"]
    return truth


def lies_ahead(simulator: Any) -> str | None:
    """straight, left, right or hairpin; None for a car that is far from the road or turned round.

    simulator: a `CarRacing` in the middle of an episode.
    """
    track, hull = np.asarray(simulator.track), simulator.car.hull  # tiles: alpha, beta, x, y
    distance = np.hypot(*(track[:, 2:] - np.array(hull.position)).T)
    nearest = int(np.argmin(distance))
    tiles = np.roll(track, -nearest, axis=0)
    heading = (tiles[0, 1] - hull.angle + np.pi) % (2 * np.pi) - np.pi
    if distance[nearest] > 12 or abs(heading) > 1.0:
        return None
    turns = np.diff(np.unwrap(tiles[NEAR : FAR + 1, 1]))
    turn = float(turns.sum())
    if abs(turn) > HAIRPIN:
        return "hairpin"
    if abs(turn) < BEND and np.abs(np.cumsum(turns)).max() < BEND:
        return "straight"
    return "left" if turn > 0 else "right"


def make(**keywords: Any) -> CaptionedRacing:
    """`CarRacing-v3` in drawn sceneries with captions; see `CaptionedRacing`."""
    own = {k: keywords.pop(k) for k in ("scenery", "held_out", "changes") if k in keywords}
    return CaptionedRacing(gymnasium.make("CarRacing-v3", **keywords), **own)
