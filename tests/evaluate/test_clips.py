"""Clips hold what led into each chunk, of any dataset, and know where real episodes end."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.measured_data import SPEC, stored, stripes
from tests.train.films import Films
from tests.worlds import tiny_world, with_doubts
from worldsim.core import ActionSpec, WorldError
from worldsim.data import DatasetSpec, Episode
from worldsim.data.dataset import Caption
from worldsim.evaluate import horizon
from worldsim.evaluate.calibrate import clips_of, watch
from worldsim.evaluate.clips import (
    Clips,
    Recorded,
    cut_clips,
    ending_starts,
    even_clips,
    even_starts,
    horizon_for,
)
from worldsim.models.text import TextConfig, tokens_of
from worldsim.world.diffusion import DiffusionWorld

ACTION = SPEC.action


def recorded(seed: int, chunks: int, terminated: bool = False, most: int = 1000) -> Recorded:
    return Recorded.of(stripes(seed, chunks, terminated), ACTION, most)


def test_starts_are_the_middles_of_equal_parts():
    assert even_starts(22, 3, 8, 4) == [3, 7, 10, 14]
    assert even_starts(11, 3, 8, 4) == [3] and even_starts(10, 3, 8, 4) == []


def test_a_clip_holds_what_led_into_each_chunk():
    clip = cut_clips(recorded(5000, 20), 7, [5], 3, 4)
    assert clip is not None
    frames = torch.from_numpy(np.asarray(stripes(5000, 20).frames))
    assert torch.equal(clip.context[0], frames[4:10])
    assert torch.equal(clip.frames[0].flatten(0, 1), frames[10:18])
    assert clip.context_actions[0, :, 0].tolist() == pytest.approx([0.02, 0.03, 0.04])
    assert clip.actions[0, :, 0].tolist() == pytest.approx([0.05, 0.06, 0.07, 0.08])
    assert clip.rewards[0].tolist() == pytest.approx([3, -0.2, -0.2, -0.2])
    assert bool(clip.valid.all()) and not clip.ends.any() and clip.episode.tolist() == [7]


def test_a_clip_knows_where_its_episode_ended():
    episode = recorded(5001, 20, terminated=True)
    starts = ending_starts(episode, 3, (1, 4))
    assert starts == [19, 16] and ending_starts(recorded(5001, 20), 3, (1, 4)) == []
    clip = cut_clips(episode, 0, starts, 3, 6)
    assert clip is not None
    assert clip.ends.int().tolist() == [[1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]]
    assert clip.valid.sum(1).tolist() == [1, 4]
    assert not recorded(5001, 20, terminated=True, most=12).terminated


def test_every_long_enough_episode_gives_as_many_clips(tmp_path: Path):
    data = stored(tmp_path, SPEC, train=[stripes(0, 20), stripes(1, 5), stripes(2, 20)])
    clips = even_clips(data.split("train"), context=3, horizon=4, starts=2)
    assert clips.episode.tolist() == [0, 0, 2, 2]
    assert clips.start.tolist() == [3, 16, 3, 16]


def test_what_an_episode_lacks_is_not_invented():
    film = Episode(name="film", frames=stripes(0, 9).frames, chunk=2, fps=12.5)
    none = Recorded.of(film, ActionSpec(kind="none"))
    assert none.rewards.isnan().all() and not none.known.any() and none.actions.shape == (9,)
    clip = cut_clips(none, 0, [3], 3, 4)
    assert clip is not None and clip.valid.all()  # there are no actions that could be unknown
    known = np.ones(20, bool)
    known[6] = False
    half = cut_clips(Recorded.of(replace(stripes(0, 20), known=known), ACTION), 0, [4], 3, 5)
    assert half is not None and half.valid.tolist() == [[True, True, False, False, False]]


def test_intervals_are_over_episodes_unless_there_are_hardly_any():
    def clips(places: list[int]) -> Clips:
        parts = [cut_clips(recorded(i, 20), i, [3, 9], 3, 4) for i in places]
        return Clips.cat([c for c in parts if c is not None])

    assert clips([0, 1, 2]).cluster.tolist() == [0, 0, 1, 1, 2, 2]
    assert clips([0, 1]).cluster.tolist() == [0, 1, 2, 3]


def test_a_horizon_fits_half_of_the_episodes():
    assert horizon_for([20, 30, 100], 4, 60) == 26
    assert horizon_for([100, 100, 5], 4, 60) == 60 and horizon_for([9], 4, 60) == 5
    with pytest.raises(WorldError, match=r"episodes of 5 chunks or more .* got \[4, 4\]"):
        horizon_for([4, 4], 4, 60)


def test_a_step_is_told_what_is_said_of_its_chunk():
    """Of the narrowest caption that speaks of it; silence is zeros, and no world without words
    reads any."""
    words = TextConfig(kind="words", length=8)
    said = (Caption(first=2, stop=9, text="a red car"), Caption(first=6, stop=8, text="it rains"))
    episode = replace(stripes(0, 12), captions=said)
    clip = cut_clips(Recorded.of(episode, ACTION, encoder=words), 0, [5], 3, 6)
    assert clip is not None and clip.prompts is not None
    red, rain = tokens_of(["a red car", "it rains"], words)
    silent = torch.zeros(8, dtype=torch.int64)
    assert torch.equal(clip.prompts[0], torch.stack([red, rain, rain, red, silent, silent]))
    assert clip.upto(2).text.shape == (1, 2, 8)
    mute = cut_clips(recorded(0, 12), 0, [5], 3, 6)
    assert mute is not None and mute.prompts is None


def captioned(world: DiffusionWorld, text: str) -> Films:
    """An episode of ten chunks of noise, of whose last four something is said."""
    shape, action = world.spec.frame_shape, world.spec.action
    frames = np.random.default_rng(0).integers(0, 256, (20, *shape), np.uint8)
    said = (Caption(first=6, stop=10, text=text),) if text else ()
    episode = Episode(
        name="a", frames=frames, chunk=2, fps=12.5, actions=np.zeros((10, 3), np.float32),
        captions=said,
    )  # fmt: skip
    spec = DatasetSpec(
        name="noise", frame_shape=shape, fps=12.5, chunk=2, action=action, has_rewards=False,
        has_text=True,
    )  # fmt: skip
    return Films(spec, {"val": [episode]})


@pytest.mark.parametrize("measure", ["card", "trust"])
def test_dreams_of_clips_follow_what_is_said_of_them(measure: str):
    """As they are measured, and as trust is fitted to them."""
    world = with_doubts(tiny_world(text=True))
    errors = []
    for text in ("", "night", "day"):
        clips = clips_of(captioned(world, text).split("val"), world, 1, 1, 6)
        assert int(clips.start) == 3
        if measure == "card":
            errors.append(horizon.dream(world, clips, clips.actions, 4, lambda done: None).mse)
        else:
            errors.append(watch(world, clips, 4, lambda done: None).mse)
    silent, night, day = errors
    assert torch.equal(silent[:, :3], night[:, :3]) and torch.equal(night[:, :3], day[:, :3])
    assert len({float(x[0, -1]) for x in errors}) == 3
