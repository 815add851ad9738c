"""A policy over chunks as a plain `policy(obs) -> action` for the environment that was recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from worldsim.core import WorldError
from worldsim.data.columns import check_kind
from worldsim.data.dataset import DatasetSpec
from worldsim.data.resize import area_resize, crop_frames
from worldsim.models.vae import to_float
from worldsim.nn.dtype import narrow
from worldsim.world.diffusion import DiffusionWorld

from .actor_critic import AgentPolicy
from .training import load_agent


class Driver(Protocol):
    """Decides once a chunk; `AgentPolicy`, `RealPolicy`."""

    def forget(self) -> None:
        """Begin another episode."""
        ...

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        """The newest chunk's frames (c, H, W, 3) uint8 -> an action in the environment's range."""
        ...


class FramePolicy:
    """Any driver as `policy(obs) -> action`, called at every frame of the real environment.

    Sees the environment as the recording did: frames are cropped and resized, each decision holds
    for a chunk, and the warm-up's frames are sat out. `forget()` before another episode. Where
    pictures were recorded that the environment renders, it is handed those: `policy(env.render())`,
    or an environment in `gymnasium.wrappers.AddRenderObservation`.

    Args:
        driver: who decides.
        info: of the recording, `dataset.json`.
    """

    def __init__(self, driver: Driver, info: DatasetSpec) -> None:
        if info.environment is None:
            raise WorldError("info: expected a recorded environment, got video without one")
        self.driver, self.info, self.environment = driver, info, info.environment
        self.idle: Any = np.int64(0)
        if info.action.kind == "continuous":
            self.idle = np.clip(0, info.action.low, info.action.high).astype(np.float32)
        self.forget()

    def forget(self) -> None:
        """Begin another episode."""
        self.driver.forget()
        self.seen = 0
        self.frames: list[NDArray[np.uint8]] = []
        self.action: NDArray[Any] = self.idle

    def __call__(self, obs: NDArray[np.uint8]) -> NDArray[Any]:
        """The newest frame, as the environment gives it -> the action for the next one."""
        self.frames = [*self.frames, obs][-self.info.chunk :]
        acting = self.seen - self.environment.warmup
        self.seen += 1
        if acting >= 0 and acting % self.info.chunk == 0:
            frames = [self.frames[0]] * (self.info.chunk - len(self.frames)) + self.frames
            kept = np.stack([crop_frames(frame, self.environment.crop) for frame in frames])
            self.action = self.driver(area_resize(kept, self.info.frame_shape[:2]))
        return self.action


def agent_driver(path: Path, world: DiffusionWorld) -> AgentPolicy:
    """The agent saved at PATH, seeing through the encoder of `world` if it needs latents."""
    agent = load_agent(path, world.spec)
    if agent.config.sees == "pixels":
        return AgentPolicy(agent)

    def encode(frames: Tensor) -> Tensor:
        """As `encode_recording` does, which made the latents that agents learn from."""
        with narrow(frames.device):
            return world.vae.encode(to_float(frames)).float()

    return AgentPolicy(agent, encode)


def load_policy(path: Path | str, world: DiffusionWorld, info: DatasetSpec) -> FramePolicy:
    """A saved agent as a plain policy for the real environment.

        policy = load_policy("runs/agents/seed-0/dream/agent", worldsim.load("car-racing"),
                             worldsim.data.NativeDataset("data/car-racing").spec)
        obs, _ = env.reset(seed=5000)
        obs, *_ = env.step(policy(obs))

    Args:
        path: without suffix. world: that it was trained in. info: how the world was recorded.

    Raises WorldError where `info` is of another world.
    """
    check_kind(info, world.spec)
    return FramePolicy(agent_driver(Path(path), world), info)
