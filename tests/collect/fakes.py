"""Small environments for tests: every kind of action and observation, in a few pixels."""

from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

SIDE = 24
TOP, BOTTOM = slice(0, 12), slice(12, 24)  # rows that show the step; the newest action

ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(4, start=-1),
    "box": spaces.Box(-2, 6, (2, 2), np.float64),
    "whole": spaces.Box(0, 100, (1,), np.int64),
    "multi_discrete": spaces.MultiDiscrete([3, 5]),
    "multi_binary": spaces.MultiBinary(3),
    "wide": spaces.Box(-500.7, 500.7, (1,), np.float64),
    "unbounded": spaces.Box(-np.inf, np.inf, (1,), np.float32),
}


class Shows(gymnasium.Env[Any, Any]):
    """Rows 0-11 show the number of steps, rows 12-23 100 + the sum of the action.

    The first reset draws a shift of the lower rows from the seed. It reuses its frame buffer.
    Observations are the picture, a vector, or a dict of both; the reward is the number of steps.
    """

    metadata = {"render_fps": 20, "render_modes": ["rgb_array"]}

    def __init__(
        self,
        action: str = "discrete",
        observation: Literal["picture", "vector", "dict", "grey"] = "picture",
        length: int = 7,
        render_mode: str | None = None,
    ) -> None:
        self.render_mode, self.length, self.kind = render_mode, length, observation
        self.action_space = ACTIONS[action]
        shape = (SIDE, SIDE) if observation == "grey" else (SIDE, SIDE, 3)
        self.buffer = np.zeros(shape, np.uint8)
        picture = spaces.Box(0, 255, shape, np.uint8)
        vector = spaces.Box(-1e6, 1e6, (2,), np.float64)
        both = spaces.Dict({"camera": picture, "joints": vector, "lit": spaces.Discrete(2),
                            "map": spaces.Box(0, 9, (3, 3), np.uint8),
                            "mission": spaces.Text(50)})  # fmt: skip
        self.observation_space = {"vector": vector, "dict": both}.get(observation, picture)
        self.count, self.taken = 0, []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.buffer[:], self.count = 0, 0
        self.buffer[BOTTOM] = self.np_random.integers(20)
        self.taken = []
        return self.seen(), {}

    def step(self, action: Any):
        assert self.action_space.contains(action), action
        self.taken.append(np.array(action))
        self.count += 1
        self.buffer[TOP] = self.count
        self.buffer[BOTTOM] = int(100 + np.sum(action)) % 256
        return self.seen(), float(self.count), self.count == self.length, False, {"n": self.count}

    def seen(self) -> Any:
        vector = np.array([self.count, -self.count], np.float64)
        if self.kind == "dict":
            return {"camera": self.buffer, "joints": vector, "lit": self.count % 2,
                    "map": np.zeros((3, 3), np.uint8), "mission": "count"}  # fmt: skip
        return vector if self.kind == "vector" else self.buffer

    def render(self) -> Any:
        return self.buffer if self.render_mode == "rgb_array" else None


def make(**keywords: Any) -> Shows:
    """For "tests.collect.fakes:make"."""
    return Shows(**keywords)


def brighter(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """For "tests.collect.fakes:brighter": every pixel one more."""
    return gymnasium.wrappers.TransformObservation(env, lambda x: x + 1, env.observation_space)


gymnasium.register("Shows-v0", Shows, disable_env_checker=True, max_episode_steps=50)
