"""Single environments in a plain Python loop: what a vector environment must say, row by row."""

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from worldsim.envs import WorldSimEnv


class Oracle:
    """`WorldSimEnv`s side by side under one autoreset mode."""

    def __init__(self, mode: AutoresetMode, rows: int, **options: Any) -> None:
        self.mode = mode
        self.envs = [WorldSimEnv(**options) for _ in range(rows)]
        self.obs: list[Any] = [None] * rows
        self.over = [False] * rows

    def reset(self, seeds: list[int | None], mask: np.ndarray | None = None) -> np.ndarray:
        for i, env in enumerate(self.envs):
            if mask is None or mask[i]:
                self.obs[i], _ = env.reset(seed=seeds[i])
                self.over[i] = False
        return np.stack(self.obs)

    def step(self, actions: np.ndarray) -> tuple[list[np.ndarray], dict[int, tuple[Any, dict]]]:
        """Observations, rewards, terminated, truncated, steps; last observation and info by row."""
        results: list[Any] = []
        final: dict[int, tuple[Any, dict]] = {}
        for i, env in enumerate(self.envs):
            if self.mode is AutoresetMode.NEXT_STEP and self.over[i]:
                obs, info = env.reset()
                reward, terminated, truncated = 0.0, False, False
            else:
                obs, reward, terminated, truncated, info = env.step(actions[i])
            self.over[i] = terminated or truncated
            if self.over[i] and self.mode is AutoresetMode.SAME_STEP:
                final[i] = obs, info
                obs, info = env.reset()
            self.obs[i] = obs
            results.append((obs, reward, terminated, truncated, info["steps"]))
        return [np.stack(x) for x in zip(*results, strict=True)], final
