"""The loop closes: the agent acts in reality, the world learns from it, the agent learns on.

A world knows what it was shown, and an agent soon lives elsewhere. So its own episodes join the
recording, the dynamics are trained on over all of it (the VAE stays: what latents mean must not
change under the agent), and the agent dreams on in the better world (Dyna, Sutton 1991; in turns,
as SimPLe, 1903.00374).
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldsim.collect.api import collect
from worldsim.collect.environment import RecordedEnv
from worldsim.collect.policies import CollectPolicy, Policy, draw_action
from worldsim.core import EnvironmentSpec, WorldError
from worldsim.data.columns import check_kind, columns_of
from worldsim.data.dataset import Dataset
from worldsim.data.latents import latent_cache
from worldsim.data.native import DESCRIPTION, NativeDataset
from worldsim.files import atomic_path
from worldsim.metrics import Interval, bootstrap, weighted_mean
from worldsim.nn.generator import kept_generator
from worldsim.store.folder import load, save
from worldsim.train.distill import DistillationConfig, begun_by, train_student
from worldsim.train.loop import FitConfig
from worldsim.world.diffusion import DiffusionWorld

from .deploy import RealPolicy
from .training import AgentTrainingConfig, dream, load_agent, material


@dataclass(frozen=True, kw_only=True)
class DynaConfig:
    """One turn of the loop.

    Attributes:
        episodes: real ones that the agent plays.
        noise: on its actions: standard deviation in half ranges of a box, share of random
            choices. What it never tries the world never learns.
        world: how the world is trained on.
        agent: how the agent is; its `begin` is not looked at.
        num_steps: of denoising in the agent's dreams.
        judged: real episodes, equal for both, that the agent plays before and after without noise,
            to tell what the turn gained; 0 for none. Nobody trains on them.
    """

    episodes: int = 10
    noise: float = 0.1
    world: DistillationConfig = DistillationConfig(
        fit=FitConfig(steps=600, batch=16, lr=1e-4, ema=0.98, warmup=50)
    )
    agent: AgentTrainingConfig = AgentTrainingConfig(iterations=50)
    num_steps: int = 1
    judged: int = 5

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("judged", 0)):
            if getattr(self, name) < least:
                got = getattr(self, name)
                raise WorldError(f"{name}: expected at least {least}, got {got}")
        if not 0 <= self.noise <= 1:
            raise WorldError(f"noise: expected 0 to 1, got {self.noise}")


@dataclass(frozen=True)
class DynaResult:
    """What a turn gave.

    Attributes:
        world: the world trained on; its trust and card are gone, as they were another world's.
        returns: of the real episodes played, before the agent learned from them.
        real_steps: chunks of the training split that the world has now seen, these among them.
        before, after: real returns of the agent without noise, episode by episode.
    """

    world: DiffusionWorld
    returns: tuple[float, ...]
    real_steps: int
    before: tuple[float, ...] = ()
    after: tuple[float, ...] = ()

    @property
    def gain(self) -> Interval | None:
        """What the turn gained, a real episode, with its 95% interval; None where not judged."""
        if not self.before:
            return None
        gains = torch.tensor(self.after) - torch.tensor(self.before)
        return bootstrap(partial(weighted_mean, gains), torch.arange(len(gains)))


def improve(
    world: Path | str,
    agent: Path,
    folder: Path,
    run: Path,
    config: DynaConfig,
    *,
    trust_code: bool = False,
) -> DynaResult:
    """One turn of the loop, resumable: typed again it goes on where it stood.

    world: a world's folder or name. agent: a saved agent, path without suffix. folder: the
    dataset, which grows by `config.episodes` training episodes. run: of this turn; RUN/world is the
    new world's folder, RUN/agent the new agent. trust_code: import the module that the dataset's
    environment names. Raises WorldError, DatasetError or CollectError
    where they do not fit each other.
    """
    if not (folder / DESCRIPTION).is_file():
        raise WorldError(
            f"data: expected a folder of our own format, which episodes are added to, got "
            f"{folder}; "
            f"record one with worldsim collect, or worldsim import {folder} --folder data/NAME"
        )
    known, old = NativeDataset(folder), load(world)
    check_kind(known.spec, old.spec)
    load_agent(agent, old.spec)  # one of another world, or none, is told before anything is played
    if known.spec.environment is None:
        raise WorldError(f"data: expected episodes of an environment, got video in {folder}")
    name = _round_name(known, run)
    make = partial(make_agent, str(world), str(agent), config.noise)
    data = collect(
        known.spec.environment, out=folder, policy=CollectPolicy(name=name, make=make),
        episodes=config.episodes, val=0, test=0, prefix=name, trust_code=trust_code,
    )  # fmt: skip
    better = train_on(old, data, config.world, run)
    save(better, run / "world", overwrite=True)
    recipe = replace(config.agent, best=1.0)
    dreamt = better.with_num_steps(config.num_steps)
    stuff = material(data, dreamt, recipe.agent.sees, run / "latents-train.safetensors")
    learner, home = load_agent(agent, old.spec).train(), str((run / "world").resolve())
    dream(dreamt, learner, stuff, recipe, run / "agent", home)
    train = data.split("train")
    played = [train.episode(i) for i, x in enumerate(train.names) if x.startswith(f"{name}-")]
    returns = tuple(float(columns_of(e, old.spec.action).rewards.sum()) for e in played)
    judge = partial(judged, known.spec.environment, config.judged, trust_code)
    before, after = judge(old, agent), judge(better, run / "agent" / "agent")
    return DynaResult(better, returns, len(stuff.recorded.actions), before, after)


JUDGED_SEED = 2**30
"""Seeds from here up are played to judge an agent, and in no recording."""


def judged(
    environment: EnvironmentSpec,
    episodes: int,
    trust_code: bool,
    world: DiffusionWorld,
    agent: Path,
) -> tuple[float, ...]:
    """Real returns of a saved agent, without noise, in the same episodes for everybody."""
    if not episodes:
        return ()
    policy = RealPolicy(load_agent(agent, world.spec), world, actions="native")
    env, told = policy.environment(environment, trust_code=trust_code), world.spec.state is not None
    returns = []
    for seed in range(JUDGED_SEED, JUDGED_SEED + episodes):
        policy.reset()
        chunk, _ = env.reset(seed=seed)
        total, over = 0.0, False
        while not over:
            action = policy(chunk, env.state if told else None)
            chunk, reward, terminated, truncated, _ = env.step(action)
            total, over = total + reward, terminated or truncated
        returns.append(total)
    env.close()
    return tuple(returns)


def _round_name(data: Dataset, run: Path) -> str:
    """What this turn's episodes are called: "agent-3" in the third one that a dataset sees."""
    mark = run / "episodes"
    if mark.exists():
        return mark.read_text()
    pattern = re.compile(r"agent-\d+(?=-)")
    rounds = {found[0] for name in data.names if (found := pattern.match(name))}
    name = f"agent-{len(rounds) + 1}"
    run.mkdir(parents=True, exist_ok=True)
    with atomic_path(mark) as part:
        part.write_text(name)
    return name


def make_agent(
    world: str, agent: str, noise: float, env: RecordedEnv, rng: np.random.Generator
) -> Policy:
    """A saved agent, which sees chunks; for `noise` see `DynaConfig`."""
    loaded = load(world)
    spec, told = loaded.spec.action, loaded.spec.state is not None
    real = RealPolicy(load_agent(Path(agent), loaded.spec), loaded, actions="native")

    def policy(obs: Any) -> Any:
        action = real(env.frames, env.state if told else None)
        if spec.is_discrete:
            return draw_action(spec, rng) if rng.random() < noise else action
        half = (np.array(spec.high) - np.array(spec.low)) / 2
        return (action + noise * half * rng.standard_normal(spec.shape)).astype(np.float32)

    return policy


@kept_generator()
def train_on(
    world: DiffusionWorld, data: Dataset, training: DistillationConfig, run: Path
) -> DiffusionWorld:
    """The world with its dynamics trained on over all of `data`, in RUN/student."""
    latents = latent_cache(world.vae, data.split("train"), run / "latents-train.safetensors")
    model = copy.deepcopy(world.dynamics).requires_grad_(True).train()
    torch.manual_seed(training.fit.seed)
    training = begun_by(training, world.config.sampling)
    student = train_student(latents, model, world.spec.context, training, run / "student")
    model = world.latent_actions
    return DiffusionWorld(world.config, world.vae, student, world.starts, latent_actions=model)
