"""Who flies while LunarLander is recorded."""

import gymnasium
import numpy as np
import pytest

from worldsim.recipes.lunar_lander import land


def test_the_script_lands():
    pytest.importorskip("Box2D")
    env = gymnasium.make("LunarLander-v3")
    earned = []
    for seed in range(3):
        obs, _ = env.reset(seed=seed)
        done, total = False, 0.0
        while not done:
            obs, reward, terminated, truncated, _ = env.step(land(obs))
            done, total = terminated or truncated, total + float(reward)
        earned.append(total)
    assert np.mean(earned) > 200
