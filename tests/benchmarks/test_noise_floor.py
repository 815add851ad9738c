"""Twins: the real environment on a road of its own beyond what was in sight."""

import math

import numpy as np
import pytest
import torch

pytest.importorskip("Box2D")

from benchmarks import noise_floor
from benchmarks.noise_floor import (
    Job,
    at_start,
    bends,
    donor_tracks,
    error_by_step,
    graft,
    in_sight,
    kerbed,
    likely,
    play,
    twins_of,
)
from worldsim.recipes.car_racing.settings import car_racing

HORIZON = 36  # instead of the card's 60 steps


@pytest.fixture(scope="module")
def job() -> Job:
    recipe = car_racing().seen(max_frames=132)
    episode, config = recipe.record(5001), recipe.environment
    assert config.crop is not None
    return Job(episode, [30], donor_tracks(range(1100, 1102)), 1, config.warmup, config.crop)


@pytest.fixture(autouse=True)
def shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise_floor, "HORIZON", HORIZON)


def test_a_graft_goes_on_where_the_road_ends():
    angle = np.linspace(0, 2 * math.pi, 101)[:-1]
    circle = np.stack([angle, 60 * np.cos(angle), 60 * np.sin(angle)], 1)
    moved = circle.copy()
    moved[:, 0] += 0.7
    turn = np.array([[math.cos(0.7), math.sin(0.7)], [-math.sin(0.7), math.cos(0.7)]])
    moved[:, 1:] = circle[:, 1:] @ turn + [5, -3]
    grafted = graft(circle[:20], moved, 19)
    assert np.allclose(grafted[:80, 1:], circle[:80, 1:])
    assert np.allclose(bends(grafted[:, 0]), bends(circle[:2, 0])[0])


def test_kerbs_are_where_four_bends_follow_each_other():
    heading = np.cumsum([0, 0, 0, 0, 0.2, 0.2, 0.2, 0.2, 0, 0, 0.2, -0.2, 0.2, -0.2, 0.0])
    assert np.flatnonzero(kerbed(heading)).tolist() == [4, 5, 6, 7]


def test_likely_tiles_bend_as_the_road_did(job: Job):
    donor = job.donors[0]
    windows = np.lib.stride_tricks.sliding_window_view(abs(bends(donor[:, 0])), 8).sum(1)
    bendy = int(windows.argmax()) + 8  # the last of the eight most bent tiles
    assert likely(donor[bendy - 9 : bendy + 1], job.donors)[0] == (0, bendy)


@pytest.mark.nightly
def test_the_track_itself_replays_and_twins_begin_alike_and_then_differ(job: Job):
    (errors,) = twins_of(job)  # raises if the replay differs
    assert errors.shape == (1, HORIZON)
    assert errors[:, 0].max() < 1e-3  # what was in sight is still there
    a, b = (torch.from_numpy(play(job, 30, draw)) for draw in (0, 1))
    real = torch.from_numpy(np.asarray(job.episode.frames[60 : 60 + 2 * HORIZON]))
    assert torch.equal(error_by_step(a, real), errors[0])  # the same twin again
    assert error_by_step(a, b)[-10:].max() > 5e-4  # each goes its own way


def test_an_episode_that_does_not_replay_is_refused(job: Job):
    frames = job.episode.frames.copy()
    frames[100] += 1
    other = Job(**{**vars(job), "episode": job.episode.__class__(
        **{**vars(job.episode), "frames": frames})})  # fmt: skip
    with pytest.raises(ValueError, match="episode 5001 does not replay"):
        twins_of(other)


def test_tiles_in_sight_stay(job: Job):
    env = at_start(job, 30)
    own, *_ = in_sight(env)
    assert env.sees(own.tiles)[-1] and not env.sees(own.tiles)[0]
