"""The same agent without a world model: TorchRL's PPO in the real environment, for as many steps.

What dreams save is only known beside this: one learner (`worldsim.agents.imagination.Learner`), one
agent, the same observations, but every step is a real one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from worldsim.core import EnvironmentSpec, WorldError
from worldsim.nn.dtype import default_float32
from worldsim.nn.generator import kept_generator
from worldsim.train.loop import FitConfig, learning_rate, step_generator
from worldsim.world.diffusion import DiffusionWorld

from .actor_critic import ActorCritic, latents_seen, pixels_seen
from .deploy import encode_chunks, real_environment
from .imagination import Learner
from .real_env import RealEnv
from .training import AgentTrainingConfig, Spent, save_agent, world_name


@default_float32()
@kept_generator()
def train_model_free(
    world: DiffusionWorld,
    environment: EnvironmentSpec | None,
    config: AgentTrainingConfig,
    run: Path,
    *,
    steps: int,
    seeds: range = range(1000),
    name: str = "",
    trust_code: bool = False,
) -> ActorCritic:
    """An agent from nothing but real practice, saved at RUN/real/agent. Does not resume.

    world: whose encoder it sees through; no dynamics are used. environment: as of
    `real_environment`, None for the world's own. config: as of an agent that dreams;
    `imagination.rows` environments take `imagination.horizon` decisions a batch. steps: real env
    steps (chunks) to spend, in whole batches. seeds: of the episodes, round and round. name: as of
    `train_agent`.
    Raises WorldError where `steps` do not make one batch, or the environment is another world's.
    """
    imagination = config.imagination
    batch = imagination.steps
    if steps < batch:
        raise WorldError(
            f"steps: expected at least {batch} (one batch of episodes), got {steps}; give more "
            "steps, or fewer rows or a shorter horizon in recipe.imagination"
        )
    if config.agent.state:
        raise WorldError(
            "agent.state: expected False, as practice in reality shows frames alone, got True"
        )
    rows = range(imagination.rows)
    envs = [real_environment(world, environment, actions="native", trust_code=trust_code)
            for _ in rows]  # fmt: skip
    torch.manual_seed(config.seed)
    agent, begun = ActorCritic(world.spec, config.agent), time.perf_counter()
    try:
        turns = [cycle(seeds[row % len(seeds) :: imagination.rows]) for row in rows]
        env = RealEnv(world.spec, agent, imagination, envs, turns, sight(world, agent))
        _practise(env, agent, config, steps // batch)
    finally:
        for real in envs:
            real.close()
    spent = Spent(real_steps=steps // batch * batch, seconds=time.perf_counter() - begun)
    name = world_name(name) if name else ""
    save_agent(agent, run / "real" / "agent", world=name, spent=spent)
    return agent


def _practise(env: RealEnv, agent: ActorCritic, config: AgentTrainingConfig, batches: int) -> None:
    rate = FitConfig(steps=batches, lr=config.lr, warmup=5)
    adam = torch.optim.AdamW(agent.parameters(), lr=rate.lr, betas=(0.9, 0.999), weight_decay=0.0)
    learner = Learner(env, agent, config.imagination, adam)
    for step in (bar := tqdm(range(batches), desc="real")):
        for group in adam.param_groups:
            group["lr"] = learning_rate(rate, step)
        figures = learner.learn(step_generator(config.seed, step))
        bar.set_postfix({"real return": f"{figures['return']:.1f}"}, refresh=False)
    learner.close()


def sight(world: DiffusionWorld, agent: ActorCritic) -> Callable[[Tensor], Tensor]:
    """What the agent sees of two chunks' frames (B, 2c, H, W, 3): as it would in a dream."""
    if agent.config.sees == "pixels":
        return pixels_seen
    return lambda frames: latents_seen(encode_chunks(world, frames))
