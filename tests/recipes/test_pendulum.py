"""The quick world's recording: its drivers, its pictures."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np

from worldsim.collect.policies import choose
from worldsim.collect.recorder import record
from worldsim.recipes.pendulum import pendulum, pendulum_mix, swing_up, wander


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
    mix = pendulum_mix()
    counts = Counter(choose(mix, seed).name for seed in range(160))
    assert abs(counts["wander"] - 56) <= 2 and len(counts) == 4


def test_frames_show_the_whole_swing(tmp_path: Path):
    config = replace(pendulum(tmp_path), max_frames=60)
    episode = record(config, pendulum_mix()[:1], seed=4)
    assert episode.frames.shape == (60, 32, 32, 3) and episode.actions.shape == (30, 1)
    dark = episode.frames.min(-1) < 160  # the rod is red on white
    assert dark.any((1, 2)).all()
    assert not dark[:, [0, -1]].any() and not dark[:, :, [0, -1]].any()  # and nothing is cut off
    assert (episode.frames[1:] != episode.frames[:-1]).any((1, 2, 3)).mean() > 0.9
