"""Sceneries of CarRacing: twins, changes in mid-episode, captions that are true."""

import gymnasium
import numpy as np
import pytest

import worldsim  # noqa: F401  # registers the environment
from worldsim.core import WorldError
from worldsim.recipes.car_racing import captioned
from worldsim.recipes.car_racing.captions import (
    ATTRIBUTES,
    EVENTS,
    HELD_OUT,
    PARAPHRASE,
    TRAIN,
    UNSEEN,
    caption,
)
from worldsim.recipes.car_racing.scenery import CHOICES, Scenery, draw, shown, values_of
from worldsim.recipes.registry import RECIPES

pytest.importorskip("Box2D")
ID = "WorldSim/SceneryRacing-v0"


def play(scenery: dict[str, str], frames: int, change: tuple[int, dict[str, str]] | None = None):
    env = gymnasium.make(ID, scenery=scenery, changes=False)
    seen = [env.reset(seed=4)[0]]
    for t in range(frames):
        if change is not None and t == change[0]:
            env.get_wrapper_attr("change")(**change[1])
        seen.append(env.step(np.array([0.1 * np.sin(t), 0.3, 0], np.float32))[0])
    state = env.unwrapped.car.hull  # type: ignore[attr-defined]
    place = (*state.position, state.angle)
    env.close()
    return np.stack(seen), place


def test_an_episode_has_an_exact_twin_in_another_scenery() -> None:
    night = {"ground": "snow", "light": "night", "weather": "rain", "road": "red"}
    plain, there = play({}, 6)
    twin, place = play(night, 6)
    again, _ = play(night, 6)
    turned, _ = play({}, 6, (3, night))
    assert place == there  # the same physics
    assert np.array_equal(twin, again) and not np.array_equal(plain, twin)
    assert np.array_equal(plain[:, 84:], twin[:, 84:])  # the panel is spared
    assert np.array_equal(turned[:4], plain[:4]) and np.array_equal(turned[4:], twin[4:])


def test_every_value_is_seen_and_plain_day_is_the_simulators_own() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    assert shown(picture, Scenery(ground="snow"), 3) is picture
    looks = {
        shown(picture, Scenery(light=light, weather=weather), 3).tobytes()
        for light in CHOICES["light"] for weather in CHOICES["weather"]
    }  # fmt: skip
    assert len(looks) == 12
    assert shown(np.zeros((400, 600, 3), np.uint8), Scenery(weather="snowfall"), 1).any()
    with pytest.raises(WorldError, match=r"light: expected one of \['day', 'dusk', 'night'\]"):
        Scenery(light="noon")


def test_held_out_combinations_and_words_stay_out() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        values = values_of(draw(rng, HELD_OUT))
        assert not any(all(values[k] == v for k, v in pair.items()) for pair in HELD_OUT)
    known = {w for part in TRAIN.values() for p in part.values() for x in p for w in x.split()}
    for part in UNSEEN.values():
        for phrases in part.values():
            assert all(set(p.split()) - known - {"an", "under"} for p in phrases), phrases
    glue = {
        "when",
        "was",
        "that",
        "of",
        "with",
        "is",
        "an",
        "as",
        "not",
        "very",
        "without",
        "and",
        "all",
    }
    for part in PARAPHRASE.values():
        for phrases in part.values():
            assert all(set(p.split()) <= known | glue for p in phrases), phrases


@pytest.mark.parametrize("wording", ["train", "paraphrase", "unseen"])
def test_a_caption_says_what_it_claims_to_and_nothing_else(wording: str) -> None:
    from worldsim.recipes.car_racing.captions import PHRASES

    rng = np.random.default_rng(1)
    for _ in range(200):
        truth = {k: str(rng.choice(v)) for k, v in ATTRIBUTES.items()}
        text, says = caption(rng, truth, wording=wording)  # type: ignore[arg-type]
        for name in ATTRIBUTES:
            own = PHRASES[wording].get(name, {}).get(truth[name], ())
            assert (name in says) == any(p in text for p in own), (text, name)


def test_drives_change_every_second_or_two_and_never_into_what_is_held_out() -> None:
    env = captioned.make()
    for seed in range(12):
        env.reset(seed=seed)
        now, frames = values_of(env.scenery), [frame for frame, *_ in env.events]
        gaps = np.diff([0, *frames])
        assert len(frames) >= 9 and gaps.min() >= 50 and gaps.max() <= 100
        assert all(frame % captioned.SPAN == captioned.SPAN // 2 for frame in frames)
        for _, name, value in env.events:
            assert value != now[name]
            now[name] = value
            assert not any(all(now[k] == v for k, v in kept.items()) for kept in HELD_OUT)
    env.close()


def test_a_recording_keeps_captions_with_the_chunks_they_speak_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(captioned, "CHANGED", (100, 101))
    recipe = RECIPES["scenery"]().seen(max_frames=100)
    episode = recipe.record(7)
    change = (125 - recipe.environment.warmup) // episode.chunk
    spans = sorted({(one.first, one.stop) for one in episode.captions})
    assert not episode.text and spans[-1] == (50 - 1, 50) and (change, 50 - 1) in spans
    told = {one.text for one in episode.captions if one.first == change}
    assert told <= {x for part in EVENTS.values() for words in part.values() for x in words}
