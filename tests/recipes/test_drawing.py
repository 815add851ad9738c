"""CarRacing drawn where it is in sight: the simulator's own bytes."""

import gymnasium
import numpy as np
import pytest

from worldsim.recipes.car_racing.drawing import draw_in_sight
from worldsim.recipes.car_racing.sensors import SENSORS


def test_frames_are_the_simulators_own() -> None:
    """Whole frames, panel and score included, from the first second's zoom to a spin in the grass,
    on one track and then another; and what is rendered larger."""
    plain = gymnasium.make("CarRacing-v3", render_mode="rgb_array")
    quick = draw_in_sight(gymnasium.make("CarRacing-v3", render_mode="rgb_array"))
    rng = np.random.default_rng(0)
    for track in (3, 1001):
        frames = [env.reset(seed=track)[0] for env in (plain, quick)]
        assert np.array_equal(*frames)
        for step in range(56):
            action = np.array([rng.uniform(-1, 1), step > 12, 0], np.float32)
            frames = [env.step(action)[0] for env in (plain, quick)]
            if step % 4 == 0:
                assert np.array_equal(*frames), (track, step)
    larger = [np.asarray(env.render()) for env in (plain, quick)]
    assert larger[0].shape == (400, 600, 3) and np.array_equal(*larger)


def test_sensors_say_what_the_car_does() -> None:
    env = gymnasium.make("WorldSim/StateRacing-v0")
    seen, _ = env.reset(seed=4)
    assert env.observation_space.contains(seen) and set(seen) == {"picture", *SENSORS}
    for _ in range(60):
        seen, *_ = env.step(np.array([0, 1, 0], np.float32))
    x, y = env.unwrapped.car.hull.linearVelocity  # type: ignore[attr-defined]
    assert float(seen["speed"]) == pytest.approx(np.hypot(x, y), rel=1e-5) and seen["speed"] > 20
    assert abs(float(seen["sideways"])) < 1
    for _ in range(8):
        seen, *_ = env.step(np.array([1, 0, 0], np.float32))
    assert seen["wheel_angle"] < -0.1 and seen["yaw_rate"] < 0  # to the right
