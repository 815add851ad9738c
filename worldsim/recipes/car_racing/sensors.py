"""What CarRacing's car feels, as numbers: its panel's gauges and the speed of a slide.

`gymnasium.make("WorldSim/StateRacing-v0")`; observations are dicts of "picture" and `SENSORS`.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium

from worldsim.collect.sensors import SensorObservation

SENSORS = ("speed", "sideways", "yaw_rate", "wheel_angle", "spin_front", "spin_rear")
"""Units a second, of the car and of its slide to the right; radians a second; radians of the front
wheels, negative to the right; radians a second that front and rear wheels turn."""


def read(env: gymnasium.Env[Any, Any]) -> tuple[float, ...]:
    """The sensors of a CarRacing now."""
    simulator: Any = env.unwrapped
    car = simulator.car
    x, y = car.hull.linearVelocity
    right = (math.cos(car.hull.angle), math.sin(car.hull.angle))
    spin = [wheel.omega for wheel in car.wheels]
    return (
        math.hypot(x, y),
        x * right[0] + y * right[1],
        car.hull.angularVelocity,
        car.wheels[0].joint.angle,
        (spin[0] + spin[1]) / 2,
        (spin[2] + spin[3]) / 2,
    )


def make(**keywords: Any) -> SensorObservation:
    """`CarRacing-v3` with its sensors beside the picture."""
    return SensorObservation(gymnasium.make("CarRacing-v3", **keywords), SENSORS, read)
