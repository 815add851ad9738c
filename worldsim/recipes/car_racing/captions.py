"""Captions of CarRacing from what is true of it: many wordings, some of them kept for tests.

A caption says some of the attributes below; what it leaves out may be anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

Words = Mapping[str, tuple[str, ...]]
Wording = Literal["train", "paraphrase", "unseen"]

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "ground": ("meadow", "desert", "snow", "jungle"),
    "light": ("day", "dusk", "night"),
    "weather": ("clear", "rain", "fog", "snowfall"),
    "road": ("grey", "black", "red", "pale"),
    "ahead": ("straight", "left", "right", "hairpin"),
    "speed": ("slow", "steady", "fast"),
    "behaviour": ("on", "off", "standing"),
}
"""What a caption may say, and the values of each."""

HELD_OUT = (
    {"ground": "desert", "light": "night", "weather": "rain"},
    {"ground": "jungle", "weather": "snowfall"},
    {"ground": "snow", "light": "dusk", "weather": "fog"},
)
"""Combinations that are in no recording for training: tests of putting known words together."""

TRAIN: dict[str, Words] = {
    "ground": {
        "meadow": ("green meadows", "grassland", "a meadow", "grassy fields", "green countryside"),
        "desert": ("the desert", "a sandy desert", "dry sand", "a hot sandy plain", "yellow sand"),
        "snow": ("snowy land", "white snow fields", "a frozen landscape", "a winter landscape",
                 "land under deep snow"),
        "jungle": ("the jungle", "a thick jungle", "a dark green forest", "a tropical forest",
                   "dense trees"),
    },
    "light": {
        "day": ("by day", "in daylight", "at noon", "during the day", "in bright light"),
        "dusk": ("at dusk", "in the evening", "at sunset", "in orange evening light",
                 "as the sun goes down"),
        "night": ("at night", "in the dark", "after dark", "with headlights on", "in the black of "
                  "night"),
    },
    "weather": {
        "clear": ("in clear weather", "under a clear sky", "on a dry day", "in dry weather",
                  "without a cloud"),
        "rain": ("in the rain", "in heavy rain", "while it rains", "in wet weather",
                 "as rain pours down"),
        "fog": ("in fog", "in thick fog", "through dense fog", "while fog hides the view",
                "in foggy weather"),
        "snowfall": ("in falling snow", "while it is snowing", "as snow falls", "in a snowstorm",
                     "with snowflakes in the air"),
    },
    "road": {
        "grey": ("a grey road", "grey asphalt", "an ordinary grey track"),
        "black": ("a black road", "black asphalt", "fresh black tarmac"),
        "red": ("a red road", "a red clay road", "a track of red earth"),
        "pale": ("a pale road", "a light concrete road", "a whitish track"),
    },
    "ahead": {
        "straight": ("the road goes straight on", "a straight road lies ahead",
                     "it runs straight ahead", "there is no bend in sight"),
        "left": ("the road bends to the left", "a left bend comes up", "there is a left turn ahead",
                 "it curves left"),
        "right": ("the road bends to the right", "a right bend comes up",
                  "there is a right turn ahead", "it curves right"),
        "hairpin": ("a hairpin comes up", "there is a hairpin bend ahead",
                    "the road turns back on itself", "a very sharp hairpin lies ahead"),
    },
    "speed": {
        "slow": ("slowly", "at low speed", "at a crawl"),
        "steady": ("at a steady speed", "at medium speed", "at a moderate pace"),
        "fast": ("fast", "at high speed", "at full speed"),
    },
    "behaviour": {
        "on": ("keeps to the road", "follows the road", "stays on the track"),
        "off": ("has left the road", "drives off the road", "is beside the track"),
        "standing": ("stands still", "has stopped", "does not move"),
    },
}  # fmt: skip
"""Phrases of training captions."""

PARAPHRASE: dict[str, Words] = {
    "ground": {
        "meadow": ("grassy fields of green", "a green landscape of meadows"),
        "desert": ("a plain of hot yellow sand", "dry sandy land"),
        "snow": ("fields white under snow", "a land that is frozen and white"),
        "jungle": ("a forest of dense tropical trees", "thick dark green trees"),
    },
    "light": {
        "day": ("while it is bright day", "in the bright noon light"),
        "dusk": ("as evening comes and the sun goes down", "in the light of a sunset"),
        "night": ("when it is dark", "on a black night"),
    },
    "weather": {
        "clear": ("while the sky is clear and dry", "with a clear dry sky"),
        "rain": ("with rain that pours down", "on a wet day of heavy rain"),
        "fog": ("while fog hides all the view", "on a day of thick fog"),
        "snowfall": ("with snow falling", "with falling snowflakes"),
    },
    "road": {
        "grey": ("a track of grey asphalt",), "black": ("a track of black tarmac",),
        "red": ("an earth road that is red",), "pale": ("a track of pale concrete",),
    },
    "ahead": {
        "straight": ("straight on without a bend",),
        "left": ("a bend ahead that goes left",),
        "right": ("a bend ahead that goes right",),
        "hairpin": ("a bend ahead as sharp as a hairpin",),
    },
    "speed": {
        "slow": ("at a low pace",), "steady": ("at a medium pace",),
        "fast": ("at a very fast pace",),
    },
    "behaviour": {
        "on": ("stays on the road",), "off": ("is off the track",),
        "standing": ("does not move at all",),
    },
}  # fmt: skip
"""Known words put in ways that no training caption has."""

UNSEEN: dict[str, Words] = {
    "ground": {
        "meadow": ("a prairie", "lawns and pastures"),
        "desert": ("the dunes", "the Sahara"),
        "snow": ("an arctic waste", "ice and frost"),
        "jungle": ("a rainforest", "the Amazon woods"),
    },
    "light": {
        "day": ("at midday", "in the morning sunshine"),
        "dusk": ("at twilight", "at nightfall"),
        "night": ("at midnight", "under the stars"),
    },
    "weather": {
        "clear": ("under cloudless blue skies", "in fine weather"),
        "rain": ("in a downpour", "in a thunderstorm"),
        "fog": ("in mist", "in haze"),
        "snowfall": ("in a blizzard", "during snow flurries"),
    },
    "road": {
        "grey": ("a silver street",), "black": ("an ebony street",),
        "red": ("a crimson street",), "pale": ("an ivory street",),
    },
    "speed": {
        "slow": ("leisurely", "sluggishly"), "fast": ("quickly", "rapidly"),
    },
    "behaviour": {"standing": ("is parked", "is motionless")},
}  # fmt: skip
"""Words that are in no training caption."""

PHRASES: dict[str, dict[str, Words]] = {
    "train": TRAIN, "paraphrase": PARAPHRASE, "unseen": UNSEEN
}  # fmt: skip

EVENTS: dict[str, Words] = {
    "weather": {
        "clear": ("the weather clears up", "the sky clears"),
        "rain": ("it begins to rain", "rain sets in"),
        "fog": ("fog comes up", "it becomes foggy"),
        "snowfall": ("it begins to snow", "snow starts to fall"),
    },
    "light": {
        "day": ("the day breaks", "it gets light"),
        "dusk": ("evening comes", "the sun begins to set"),
        "night": ("night falls", "it gets dark"),
    },
}
"""How a change in mid-episode is told."""

CARS = ("a red car", "a racing car", "the car")


class Caption(NamedTuple):
    """A caption and which attributes it speaks of."""

    text: str
    says: frozenset[str]


def caption(
    rng: np.random.Generator,
    truth: Mapping[str, str],
    *,
    says: frozenset[str] | None = None,
    wording: Wording = "train",
) -> Caption:
    """One of the many captions of what is true.

    truth: a value for some or all of `ATTRIBUTES`. says: which of them are said; by default one to
    three, or most of them in a third of the captions. wording: whose phrases; attributes that it
    has no phrase for are left out.
    """
    phrases = PHRASES[wording]
    possible = [k for k in ATTRIBUTES if k in truth and truth[k] in phrases.get(k, {})]
    if says is None:
        most = len(possible)
        count = int(rng.integers(1, 4)) if rng.random() < 0.67 else int(rng.integers(4, 8))
        says = frozenset(rng.choice(possible, min(count, most), replace=False).tolist())
    words = {k: _one(rng, phrases[k][truth[k]]) for k in possible if k in says}
    return Caption(_sentence(rng, words), frozenset(words))


def values_in(text: str) -> dict[str, str]:
    """What a training caption says, by `ATTRIBUTES`; the longest phrase of each counts."""
    found: dict[str, str] = {}
    for name, part in TRAIN.items():
        phrases = [(p, value) for value, words in part.items() for p in words if p in text]
        if phrases:
            found[name] = max(phrases, key=lambda pair: len(pair[0]))[1]
    return found


def event(rng: np.random.Generator, changed: str, value: str) -> Caption:
    """How it is told that an attribute has just changed to `value`."""
    return Caption(_one(rng, EVENTS[changed][value]), frozenset([changed]))


def _one(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _sentence(rng: np.random.Generator, words: Mapping[str, str]) -> str:
    """Phrases in one of several orders; a sentence where there is something to drive on or in."""
    road, ground = words.get("road", ""), words.get("ground", "")
    where = [f"on {road}" if road else "", f"through {ground}" if ground else ""]
    around = [words[k] for k in ("light", "weather") if k in words]
    if rng.random() < 0.5:
        around.reverse()
    scene = " ".join([*filter(None, where), *around])
    ahead, speed, behaviour = (words.get(k, "") for k in ("ahead", "speed", "behaviour"))
    if not speed and not behaviour and (rng.random() < 0.5 or not scene):
        scene = " ".join(filter(None, [road, f"in {ground}" if ground else "", *around]))
        return ", ".join(filter(None, [scene, ahead] if rng.random() < 0.7 else [ahead, scene]))
    car = _one(rng, CARS)
    moves = behaviour if behaviour and not speed else f"drives {speed}".strip()
    act = f"{car} {moves}" + (f" and {behaviour}" if behaviour and speed else "")
    whole = f"{act} {scene}".strip()
    parts = [whole, ahead] if rng.random() < 0.7 else [ahead, whole]
    return ", ".join(filter(None, parts))
