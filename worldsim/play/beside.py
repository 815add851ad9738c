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

    def begin(
        self, seed: int, noop: Any, chunks: int, *, told: bool = False
    ) -> dict[str, NDArray[Any]]:
        """Begin an episode: `chunks` chunks of idle hands, as the dream's `reset` takes them.

        Returns "frames" (chunks * c, H, W, 3), and "states" (chunks, D) where they are `told` and
        the environment has them.
        """
        past = [self.env.reset(seed=seed)]
        for _ in range(chunks - 1):
            frames, _, terminated, truncated, info = self.env.step(noop)
            if terminated or truncated:
                past = [self.env.reset(seed=seed)]
                break
            past.append((frames, info))
        self.step, self.total, self.over, self.frames = 0, 0.0, False, past[-1][0]
        seen: dict[str, NDArray[Any]] = {"frames": np.concatenate([frames for frames, _ in past])}
        told = told and all("state" in info for _, info in past)
        return seen | ({"states": np.stack([info["state"] for _, info in past])} if told else {})

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
