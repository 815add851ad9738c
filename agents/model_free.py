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

from worldsim.collect.recorder import describe
from worldsim.collect.source import named_source
from worldsim.core import EnvironmentSpec, WorldError
from worldsim.data.columns import check_kind
from worldsim.models.vae import to_float
from worldsim.nn.dtype import narrow
from worldsim.train.loop import FitConfig, learning_rate, step_generator
from worldsim.world.diffusion import DiffusionWorld

from .actor_critic import ActorCritic, latents_seen, pixels_seen
from .imagination import Learner
from .real_env import RealEnv
from .training import AgentTrainingConfig, save_agent


def sight(world: DiffusionWorld, agent: ActorCritic) -> Callable[[Tensor], Tensor]:
    """What the agent sees of two chunks' frames (B, 2c, H, W, 3): as it would in a dream.

    An agent of latents sees through the world's encoder; no dynamics are used.
    """
    if agent.config.sees == "pixels":
        return pixels_seen

    def see(frames: Tensor) -> Tensor:
        with narrow(frames.device):  # as the recording's latents were made
            return latents_seen(world.vae.encode(to_float(frames)))

    return see


def practise(
    world: DiffusionWorld,
    environment: EnvironmentSpec,
    recipe: AgentTrainingConfig,
    run: Path,
    *,
    steps: int,
    seeds: range = range(1000),
) -> ActorCritic:
    """An agent from nothing but real practice, saved at RUN/real/agent. Does not resume.

    world: whose encoder it sees through. environment: as it was recorded. recipe: as of an
    agent that dreams; `imagination.rows` environments play `imagination.horizon` steps a batch.
    steps: real env steps (chunks) to spend, in whole batches. seeds: of the episodes.
    Raises WorldError where `steps` do not make one batch, or the environment is another world's.
    """
    source = named_source(environment)
    check_kind(describe(source, environment.id), world.spec)
    how = recipe.imagination
    batch = how.rows * how.horizon
    if steps < batch:
        raise WorldError(f"steps: expected at least {batch} (one batch of episodes), got {steps}")
    torch.manual_seed(recipe.seed)
    agent = ActorCritic(world.spec, recipe.agent)
    rows = range(how.rows)
    envs, turns = [source.open() for _ in rows], [cycle(seeds[row :: how.rows]) for row in rows]
    rate = FitConfig(steps=steps // batch, lr=recipe.lr, warmup=5)
    adam = torch.optim.AdamW(agent.parameters(), lr=rate.lr, betas=(0.9, 0.999), weight_decay=0.0)
    env = RealEnv(world.spec, agent, how, envs, turns, sight(world, agent))
    learner = Learner(env, agent, how, adam)
    begun = time.perf_counter()
    for step in (bar := tqdm(range(rate.steps), desc="real")):
        for group in adam.param_groups:
            group["lr"] = learning_rate(rate, step)
        figures = learner.learn(step_generator(recipe.seed, step))
        bar.set_postfix({"real return": f"{figures['return']:.1f}"}, refresh=False)
    learner.close()
    for real in envs:
        real.close()
    spent = {"real_steps": rate.steps * batch, "seconds": time.perf_counter() - begun}
    save_agent(agent, run / "real" / "agent", **spent)
    return agent
