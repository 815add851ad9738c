"""The real environment beside the dream, under the same actions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Beside:
    """A real environment that goes on as long as the player does; it cannot be rewound.

    env: shows a chunk of frames (c, H, W, 3) uint8 as observation and takes the world's own
        actions, as `worldsim.collect.make_environment(..., observation="chunk",
        actions="native")` makes it.

    Attributes:
        step: steps since the dream began beside it; None before a reset and once it was left.
        total: its return since then.
        over: whether its episode has ended.
    """

    def __init__(self, env: Any) -> None:
        self.env = env
        self.step: int | None = None
        self.total, self.over = 0.0, False
        self.frames: NDArray[np.uint8] | None = None

    def begin(self, seed: int, noop: Any, chunks: int) -> NDArray[np.uint8]:
        """Begin an episode: `chunks` chunks of idle hands, (chunks * c, H, W, 3), for the dream."""
        frames, _ = self.env.reset(seed=seed)
        clip = [frames]
        for _ in range(chunks - 1):
            frames, _, terminated, truncated, _ = self.env.step(noop)
            clip.append(frames)
            if terminated or truncated:
                frames, _ = self.env.reset(seed=seed)
                clip = [frames]
                break
        self.step, self.total, self.over, self.frames = 0, 0.0, False, frames
        return np.concatenate(clip)

    def go_on(self, step: int, action: Any) -> NDArray[np.uint8] | None:
        """The frames after `action`, which made the dream's step `step`; None once it was left."""
        if self.step is None or step != self.step + 1:
            self.step = None  # the player went back: reality does not
            return None
        if not self.over:
            self.frames, reward, terminated, truncated, _ = self.env.step(action)
            self.total += float(reward)
            self.over = bool(terminated or truncated)
        self.step = step
        return self.frames
