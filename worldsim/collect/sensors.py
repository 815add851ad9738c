"""Named numbers of a simulator beside its picture: a state vector for any environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from .errors import CollectError

PICTURE = "picture"
"""Where the environment's own observation is found."""


class SensorObservation(gymnasium.ObservationWrapper[dict[str, Any], Any, Any]):
    """Observations as a dict: the environment's own as "picture", and a number for each sensor.

        def sensors(env):
            return env.unwrapped.car.speed, env.unwrapped.car.turn

        env = SensorObservation(env, ("speed", "turn"), sensors)
        worldsim.collect(env, image="picture", out="data/cars")

    A recording then has a state vector of these names, and a world that is trained on it knows it.

    Args:
        env: an environment; where its observations are dicts, sensors join them.
        names: of the numbers.
        read: environment -> that many numbers, in units of your own; asked after every frame.

    Raises CollectError where names are taken, or `read` gives another number of values.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        names: Sequence[str],
        read: Callable[[gymnasium.Env[Any, Any]], Sequence[float]],
    ) -> None:
        super().__init__(env)
        own = env.observation_space
        parts = dict(own.items()) if isinstance(own, spaces.Dict) else {PICTURE: own}
        taken = [name for name in names if name in parts]
        if taken or len(set(names)) < len(names) or not names:
            raise CollectError(f"names: expected new ones beside {list(parts)}, got {list(names)}")
        self.names, self.read = tuple(names), read
        sensors = {name: spaces.Box(-np.inf, np.inf, (), np.float32) for name in names}
        self.observation_space = spaces.Dict({**parts, **sensors})

    def observation(self, observation: Any) -> dict[str, Any]:
        """The environment's observation and what its sensors say now."""
        own = isinstance(self.env.observation_space, spaces.Dict)
        values = [np.float32(value) for value in self.read(self.env)]
        if len(values) != len(self.names):
            raise CollectError(f"read: expected {len(self.names)} numbers, got {len(values)}")
        told = dict(zip(self.names, (np.asarray(v) for v in values), strict=True))
        return {**(observation if own else {PICTURE: observation}), **told}
