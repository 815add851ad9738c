"""An agent from recordings and dreams: clone the drivers, then improve in the world's dream.

The real environment is never stepped: clips that dreams start from are the recording's.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from worldsim.agents.actor_critic import ActorCritic, AgentConfig
from worldsim.agents.cloning import Recorded, cloning_loss, moments, returns_to_go
from worldsim.agents.settings import Imagination
from worldsim.core import WorldError, WorldSpec, WorldState, row_keys
from worldsim.data.clips import load_recording
from worldsim.data.dataset import Dataset
from worldsim.data.latents import LatentRecording, latent_cache
from worldsim.diffusion.denoiser import fill_cache
from worldsim.world import LATENT_BOUND, DiffusionWorld

from .loop import FitConfig, Run, fit, step_generator


@dataclass(frozen=True, kw_only=True)
class AgentRecipe:
    """How an agent is trained.

    Attributes:
        agent: its sizes.
        cloning: the first stage.
        best: share of the recorded episodes that are cloned, by return.
        imagination: the second stage, its dreams.
        iterations: batches of dreams; 0 for a clone alone.
        lr: of the second stage.
        seed: of everything.
    """

    agent: AgentConfig = AgentConfig()
    cloning: FitConfig = FitConfig(steps=3000, batch=256, lr=1e-3, bf16=False, ema=0.995)
    best: float = 0.85
    imagination: Imagination = Imagination()
    iterations: int = 100
    lr: float = 1e-4
    seed: int = 0


@dataclass(frozen=True)
class Material:
    """What an agent learns from: recorded chunks, and their latents for dreams to start from."""

    recorded: Recorded
    latents: LatentRecording

    def starts(self, world: DiffusionWorld) -> Callable[[int, torch.Generator], WorldState]:
        """Real states of the recording, drawn at random."""

        def draw(rows: int, generator: torch.Generator) -> WorldState:
            window = self.latents.windows.sample(rows, world.spec.context, generator)
            seeds = torch.randint(2**31, (rows,), generator=generator).tolist()
            return state_of(
                world, self.latents.latents[window], self.latents.actions[window], seeds
            )

        return draw


@torch.no_grad()
def state_of(
    world: DiffusionWorld, latents: Tensor, actions: Tensor, seeds: list[int]
) -> WorldState:
    """The state after a whole context of latents: `world.encode` without its encoder.

    latents: (B, K, h, w, C) of any float type. actions: (B, K, *action).
    """
    latents = latents.to(world.device).float().clamp(-LATENT_BOUND, LATENT_BOUND)
    filled = torch.full((len(latents),), latents.shape[1], device=world.device)
    actions = actions.to(world.device)
    return WorldState(
        latents=latents,
        actions=actions,
        filled=filled,
        age=torch.zeros_like(filled),
        key=row_keys(seeds).to(world.device),
        cache=fill_cache(world.dynamics.dit, latents, actions, filled),
    )


def material(data: Dataset, world: DiffusionWorld, sees: str, cache: Path) -> Material:
    """Recordings of the training split; latents are computed once and kept in `cache`."""
    paths = data.episodes("train")
    latents = latent_cache(world.vae, paths, data.info.chunk, cache)
    seen = latents.latents if sees == "latents" else load_recording(paths, data.info.chunk).frames
    lengths = latents.windows.lengths
    recorded = Recorded(seen, latents.actions, latents.rewards, lengths)
    return Material(recorded, latents)


def clone(spec: WorldSpec, stuff: Material, recipe: AgentRecipe, run: Path) -> ActorCritic:
    """First stage, in RUN/clone (resumes there)."""
    torch.manual_seed(recipe.seed)
    agent = ActorCritic(spec, recipe.agent)
    how, data, config = (
        recipe.imagination,
        stuff.recorded,
        replace(recipe.cloning, seed=recipe.seed),
    )
    ahead = returns_to_go(data, how.gamma, how.scale)
    loss = cloning_loss(data, moments(data, recipe.best), ahead, config.batch)
    done = fit(agent, loss, config, run / "clone")
    assert isinstance(done, ActorCritic)
    save_agent(done, run / "clone" / "agent")
    return done


def improve(
    world: DiffusionWorld, agent: ActorCritic, stuff: Material, recipe: AgentRecipe, run: Path
) -> ActorCritic:
    """Second stage, in RUN/dream (resumes there): learn from dreams that start in the recording."""
    from worldsim.agents.imagination import Learner  # TorchRL: slow to import, and an extra

    home = copy.deepcopy(agent).requires_grad_(False)
    agent = copy.deepcopy(agent).requires_grad_(True)
    config = FitConfig(steps=recipe.iterations, lr=recipe.lr, weight_decay=0.0, seed=recipe.seed)
    state = Run(run / "dream", agent, config)
    learner = Learner(world, agent, recipe.imagination, state.optimizer, home)
    starts, saved = stuff.starts(world), time.monotonic()
    bar = tqdm(range(state.step, config.steps), initial=state.step, total=config.steps)
    bar.set_description("dreaming")
    for step in bar:
        generator = step_generator(recipe.seed, step)
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))  # TorchRL's draws
        figures = learner.learn(starts(recipe.imagination.rows, generator), generator)
        state.step += 1
        state.log(**figures)
        bar.set_postfix(reward=f"{figures['reward']:.2f}", refresh=False)
        if time.monotonic() - saved > config.save_seconds or state.step == config.steps:
            state.save()
            save_agent(agent, run / "dream" / "agent")
            saved = time.monotonic()
    save_agent(agent, run / "dream" / "agent")
    return agent


def train_agent(
    world: DiffusionWorld, data: Dataset, recipe: AgentRecipe, run: Path
) -> ActorCritic:
    """Both stages, resumable; needs `worldsim[rl]`."""
    run.mkdir(parents=True, exist_ok=True)
    stuff = material(data, world, recipe.agent.sees, run / "latents-train.safetensors")
    agent = clone(world.spec, stuff, recipe, run)
    return improve(world, agent, stuff, recipe, run) if recipe.iterations else agent


def save_agent(agent: ActorCritic, path: Path) -> None:
    """Write PATH.safetensors and PATH.json."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in agent.state_dict().items()}, f"{path}.safetensors")
    Path(f"{path}.json").write_text(json.dumps(asdict(agent.config), indent=1) + "\n")


def load_agent(path: Path, spec: WorldSpec) -> ActorCritic:
    """An agent saved at PATH (without suffix), for the world that it was trained in."""
    try:
        agent = ActorCritic(spec, AgentConfig(**json.loads(Path(f"{path}.json").read_text())))
        agent.load_state_dict(load_file(f"{path}.safetensors"))
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise WorldError(
            f"agent: expected one saved for {spec.name} at {path}, got {error}; "
            "train it with the agent command"
        ) from error
    return agent.eval()
