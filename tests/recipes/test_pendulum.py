"""The quick world's recording: its drivers, its pictures."""

from collections import Counter
from dataclasses import replace

import gymnasium
import numpy as np

from worldsim.collect.recorder import record
from worldsim.recipes.pendulum import pendulum, swing_up, wander


def played(act, seed: int) -> float:
    """The return of an episode at an action repeat of 2, without pictures."""
    env, total = gymnasium.make("Pendulum-v1"), 0.0
    env.reset(seed=seed)
    for _ in range(100):
        torque = act(env)
        total += sum(float(env.step(torque)[1]) for _ in range(2))
    return total


def test_the_script_swings_up_and_chance_does_not():
    script = [played(swing_up, seed) for seed in range(20)]
    rng = np.random.default_rng(0)
    chance = [played(lambda env: wander(env, rng)(None), seed) for seed in range(20)]
    assert np.mean(script) > -200 and min(script) > -450
    assert np.mean(chance) < -900


def test_the_mix_has_skill_and_none():
    counts = Counter(job.policy for job in pendulum().jobs() if job.split == "train")
    assert abs(counts["wander"] - 56) <= 2 and len(counts) == 4


def test_frames_show_the_whole_swing():
    recipe = pendulum()
    recipe = replace(recipe, environment=replace(recipe.environment, max_frames=60))
    episode = record(recipe.source, recipe.policies[0], seed=4)
    frames = np.asarray(episode.frames)
    assert frames.shape == (60, 32, 32, 3) and np.shape(episode.actions) == (30, 1)
    dark = frames.min(-1) < 160  # the rod is red on white
    assert dark.any((1, 2)).all()
    assert not dark[:, [0, -1]].any() and not dark[:, :, [0, -1]].any()  # and nothing is cut off
    assert (frames[1:] != frames[:-1]).any((1, 2, 3)).mean() > 0.9
