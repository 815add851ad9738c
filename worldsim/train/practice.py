"""The same agent without a world model: TorchRL's PPO in the real environment, for as many steps.

What dreams save is only known beside this: one learner (`worldsim.agents.imagination.Learner`), one
agent, the same observations, but every step is a real one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from worldsim.agents.actor_critic import ActorCritic, latents_seen, pixels_seen
from worldsim.agents.imagination import Learner
from worldsim.agents.real_env import RealEnv
from worldsim.core import WorldError
from worldsim.data.dataset import SPLITS, DatasetInfo
from worldsim.data.resize import area_resize, crop_frames
from worldsim.models.vae import to_float
from worldsim.world import DiffusionWorld

from .agent import AgentRecipe, save_agent
from .loop import FitConfig, learning_rate, step_generator

Frames = NDArray[np.uint8]


@dataclass
class Camera:
    """One real environment, seen and stepped chunk by chunk as a recording does.

    Attributes:
        info: how it is recorded. seeds: of its episodes, one after the other.
        max_frames: an episode is truncated here, at the latest.
    """

    info: DatasetInfo
    seeds: list[int]
    max_frames: int

    def __post_init__(self) -> None:
        more = {} if self.info.source == "observation" else {"render_mode": "rgb_array"}
        self.env: gymnasium.Env[Any, Any] = gymnasium.make(
            self.info.env_id, **{**more, **self.info.env_kwargs}
        )

    def reset(self) -> Frames:
        """The next episode's first chunk, standing still, (c, H, W, 3)."""
        obs, _ = self.env.reset(seed=self.seeds.pop(0))
        space = self.env.action_space
        idle: Any = 0
        if isinstance(space, gymnasium.spaces.Box):
            idle = np.clip(np.zeros(space.shape), space.low, space.high).astype(np.float32)
        for _ in range(self.info.warmup):
            obs, *_ = self.env.step(idle)
        self.played = 0
        return self._small([self._picture(obs)] * self.info.chunk)

    def step(self, action: Any, *, look: bool = True) -> tuple[Frames | None, float, bool, bool]:
        """An action for one chunk: frames (c, H, W, 3), reward, terminated, truncated.

        look: without, no picture is drawn, and frames are None.
        """
        frames, total, terminated, truncated = [], 0.0, False, False
        for _ in range(self.info.chunk):
            obs, reward, terminated, truncated, _ = self.env.step(action)
            frames += [self._picture(obs)] if look else []
            total += float(reward)
            if terminated or truncated:
                break
        frames += frames[-1:] * (self.info.chunk - len(frames))
        self.played += self.info.chunk
        over = self.played + self.info.chunk > self.max_frames
        return self._small(frames) if look else None, total, terminated, truncated or over

    def close(self) -> None:
        """Let the environment go."""
        self.env.close()

    def _picture(self, obs: Any) -> Frames:
        image = obs if self.info.source == "observation" else self.env.render()
        return crop_frames(np.asarray(image), self.info.crop)

    def _small(self, frames: Sequence[Frames]) -> Frames:
        return area_resize(np.stack(frames), self.info.frame_shape[:2])


def sight(world: DiffusionWorld, agent: ActorCritic) -> Callable[[Tensor], Tensor]:
    """What the agent sees of two chunks' frames (B, 2c, H, W, 3): as it would in a dream.

    An agent of latents sees through the world's encoder; no dynamics are used.
    """
    if agent.config.sees == "pixels":
        return pixels_seen

    def see(frames: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):  # as the recording's latents were made
            return latents_seen(world.vae.encode(to_float(frames)))

    return see


def practise(
    world: DiffusionWorld, info: DatasetInfo, recipe: AgentRecipe, run: Path, *, steps: int,
    max_frames: int = 1000,
) -> ActorCritic:  # fmt: skip
    """An agent from nothing but real practice, saved at RUN/real/agent.

    world: whose encoder it sees through. info: how the environment was recorded. recipe: as of an
    agent that dreams; `imagination.rows` environments play `imagination.horizon` steps a batch,
    from training seeds. steps: real env steps (chunks) to spend, in whole batches.
    Raises WorldError where `steps` do not make one batch.
    """
    how = recipe.imagination
    batch = how.rows * how.horizon
    if steps < batch:
        raise WorldError(f"steps: expected at least {batch} (one batch of episodes), got {steps}")
    torch.manual_seed(recipe.seed)
    agent = ActorCritic(world.spec, recipe.agent)
    first, stop = SPLITS["train"]
    seeds = [list(range(first + row, stop, how.rows)) for row in range(how.rows)]
    cameras = [Camera(info, mine, max_frames) for mine in seeds]
    rate = FitConfig(steps=steps // batch, lr=recipe.lr, warmup=5)
    adam = torch.optim.AdamW(agent.parameters(), lr=rate.lr, betas=(0.9, 0.999), weight_decay=0.0)
    env = RealEnv(world.spec, agent, how, cameras, sight(world, agent))
    learner = Learner(env, agent, how, adam)
    begun = time.perf_counter()
    for step in (bar := tqdm(range(rate.steps), desc="real")):
        for group in adam.param_groups:
            group["lr"] = learning_rate(rate, step)
        figures = learner.learn(step_generator(recipe.seed, step))
        bar.set_postfix({"real return": f"{figures['return']:.1f}"}, refresh=False)
    learner.close()
    for camera in cameras:
        camera.close()
    spent = {"real_steps": rate.steps * batch, "seconds": time.perf_counter() - begun}
    save_agent(agent, run / "real" / "agent", **spent)
    return agent
