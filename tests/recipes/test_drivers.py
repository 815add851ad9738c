"""The drivers of CarRacing, and what their recordings show."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from worldsim.collect.recorder import record
from worldsim.data.dataset import Episode
from worldsim.recipes.car_racing import drivers
from worldsim.recipes.car_racing.settings import car_racing
from worldsim.recipes.recipe import Recipe


def test_the_recipe_keeps_its_seeds_and_shares():
    recipe = car_racing()
    jobs = recipe.jobs()
    counts = Counter(job.policy for job in jobs if job.split == "train")
    assert Counter(job.split for job in jobs) == {"train": 300, "val": 50, "test": 50}
    assert counts["smooth-throttle"] == 100 and abs(counts["weave"] - 60) <= 2
    assert [recipe.policy(seed).name for seed in (299, 300, 359, 360, 479)] == [
        "smooth-throttle", "unskilled", "unskilled", "distracted", "distracted"
    ]  # fmt: skip
    assert (jobs[7].name, jobs[7].seed) == ("episode_000007", 7)
    assert len(recipe.jobs(episodes=480)) == 580


def test_the_unskilled_are_each_wrong_in_their_own_way(monkeypatch: pytest.MonkeyPatch):
    looks, asked = [], []
    monkeypatch.setattr(
        drivers, "pursue", lambda env: looks.append(1) or np.array([0.5, 0.5, 0.2], np.float32)
    )
    drives = []
    for seed in range(60):
        looks.clear()
        policy = drivers.unskilled(None, np.random.default_rng(seed))  # type: ignore[arg-type]
        drives.append(np.stack([policy(None) for _ in range(600)]))
        asked.append(len(looks) / 600)
    calm = np.array([len(np.unique(drive, axis=0)) < 100 for drive in drives])
    assert 0.2 < calm.mean() < 0.6  # four of ten have no noise
    assert min(asked) < 0.6 and max(asked) > 0.95  # some are open-loop half of the time
    wheel, gas = (np.array([drive[:, i].mean() for drive in drives]) for i in (0, 1))
    assert wheel.min() < 0.1 and wheel.max() > 0.7 and gas.min() < 0.15 and gas.max() > 0.5


def test_the_distracted_see_the_road_now_and_then_only(monkeypatch: pytest.MonkeyPatch):
    road = iter(range(10**6))  # what the road asks for: another wheel each time it is looked at
    monkeypatch.setattr(
        drivers, "pursue", lambda env: np.array([next(road) * 1e-5, 0.5, 0.0], np.float32)
    )
    drives, looks = [], []
    for seed in range(40):
        first = next(road)
        policy = drivers.distracted(None, np.random.default_rng(seed))  # type: ignore[arg-type]
        drives.append(np.stack([policy(None) for _ in range(475)]))
        looks.append((next(road) - first) / 475)
    assert 0.2 < np.mean(looks) < 0.6 and max(looks) < 0.8
    actions = np.concatenate(drives)
    both = (actions[:, 1] > 0.2) & (actions[:, 2] > 0.1)
    assert 0.1 < both.mean() < 0.5  # a foot on each pedal
    again = [len(np.unique(drive[:, 0])) / len(drive) for drive in drives]
    assert min(again) < 0.7  # the wheel is held
    turned = [
        drive[i : i + 12, 0]
        for drive in drives
        for i in range(400)
        if np.isin(drive[i : i + 12, 0], drive[:i, 0]).all()
    ]
    assert any((np.diff(wheel) > 0).all() for wheel in turned)  # or turned as it was before


def test_a_smooth_throttle_is_held_and_light(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(drivers, "pursue", lambda env: np.array([0.3, 1.0, 1.0], np.float32))
    policy = drivers.smooth_throttle(None, np.random.default_rng(0))  # type: ignore[arg-type]
    actions = np.stack([policy(None) for _ in range(3000)])
    assert (actions[:, 0] == np.float32(0.3)).all()  # the wheel is the expert's, the foot is not
    held = np.diff(np.flatnonzero((actions[1:, 1:] != actions[:-1, 1:]).any(1)))
    assert held.min() >= 15 and held.max() <= 100
    gas, brake = actions[:, 1], actions[:, 2]
    assert gas.max() <= 0.4 and ((gas > 0) & (gas < 0.15)).mean() > 0.3
    for kind in (gas == 0, (gas > 0) & (brake == 0), (gas > 0) & (brake > 0), brake > 0.2):
        assert kind.mean() > 0.02


def driven(recipe: Recipe, seed: int, frames: int = 1000) -> Episode:
    """The expert's episode."""
    cut = replace(recipe, environment=replace(recipe.environment, max_frames=frames))
    return record(cut.source, recipe.policies[0], seed=seed)


def test_car_racing_is_recorded_as_described():
    pytest.importorskip("Box2D")
    episode, again = driven(car_racing(), 3, 40), driven(car_racing(), 3, 40)
    frames = np.asarray(episode.frames)
    assert frames.shape == (40, 56, 64, 3) and episode.rewards is not None
    np.testing.assert_array_equal(frames, again.frames)
    np.testing.assert_array_equal(episode.actions, again.actions)
    assert episode.rewards.sum() > 10  # the expert drives: each new tile of the road pays about 3
    assert frames[:, -3:].mean() > 60  # the black bar with the score is gone
    car = frames[:, 44:52, 29:35].astype(int)
    assert (car[..., 0] - car[..., 1]).max() > 80  # red, at the bottom centre


def test_the_expert_finishes_a_track_with_hairpins(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("Box2D")
    from gymnasium.envs.box2d.car_racing import CarRacing

    # drawing is most of the cost, and this driver does not look
    monkeypatch.setattr(CarRacing, "_render", lambda *args: np.zeros((96, 96, 3), np.uint8))
    episode = driven(car_racing(), 6)
    assert episode.terminated and episode.rewards is not None
    assert episode.rewards.sum() > 880
