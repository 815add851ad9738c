"""Pendulums side by side show and pay what a recording of each would hold."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.pendulum import SEEDS, Crowd, blind, play, table
from tests.worlds import tiny_world
from worldsim.core import ActionSpec
from worldsim.data.pendulum import pendulum, pendulum_mix
from worldsim.data.record import describe, record


def test_a_crowd_sees_and_earns_what_was_recorded(tmp_path: Path):
    config = replace(pendulum(tmp_path), max_frames=12)
    episodes = [record(config, pendulum_mix()[:1], seed) for seed in (5000, 5001)]
    crowd = Crowd.begin([5000, 5001], describe(config), context=4)
    for t in range(6):
        rewards = crowd.step(np.stack([e.actions[t] for e in episodes]))
        for n, episode in enumerate(episodes):
            assert np.array_equal(crowd.frames[-1][n], episode.frames[2 * t : 2 * t + 2])
            assert rewards[n] == pytest.approx(episode.rewards[t], rel=1e-5)
    torque = ActionSpec(kind="continuous", low=(-2.0,), high=(2.0,))
    state = crowd.state(tiny_world(size=(32, 32), action=torque, context=4))
    assert state.filled.tolist() == [4, 4]
    assert torch.equal(state.actions[1], torch.from_numpy(episodes[1].actions[2:6]))


def test_chance_earns_little_and_the_table_says_so(tmp_path: Path):
    found = play(blind(), describe(pendulum(tmp_path)), 4, sees=False, name="random")
    assert len(found["returns"]) == len(SEEDS) and -1700 < found["value"] < -900
    row = found | {"steps": 0, "dreamt": 0, "seconds": 0}
    assert f"| random | {found['value']:.0f} [" in table({"random": row})
