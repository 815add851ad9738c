"""An agent from recordings and dreams: clone the drivers, or learn in the world's dream, or both.

The real environment is never stepped: the states that dreams begin in are the recording's.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from tqdm import tqdm

from worldsim import worlds
from worldsim.config import from_json, logged_number, read_json, read_json_lines, to_json
from worldsim.core import WorldError, WorldSpec, WorldState, row_keys
from worldsim.data.columns import check_kind, state_width
from worldsim.data.dataset import Dataset
from worldsim.data.indexed import file_hash
from worldsim.data.latents import LatentRecording, latent_cache
from worldsim.data.loader import load_recording
from worldsim.files import write_text
from worldsim.nn.dtype import default_float32
from worldsim.nn.generator import kept_generator
from worldsim.store.hub import is_address
from worldsim.store.provenance import MOST_LOG
from worldsim.store.tensors import check_kinds, load_tensors, save_tensors, verify_tensors
from worldsim.train.loop import FitConfig, Run, fit, learning_rate, step_generator
from worldsim.world.diffusion import DiffusionWorld

from .actor_critic import ActorCritic, AgentConfig
from .cloning import Recorded, cloning_loss, moments, returns_to_go
from .settings import ImaginationConfig

MOST_BYTES = 2**16  # of what is known of an agent
PAUSE = 120.0
"""Seconds without a line in the log after which a training counts as interrupted."""


@dataclass(frozen=True, kw_only=True)
class AgentTrainingConfig:
    """How an agent is trained.

    Attributes:
        begin: "nothing", so that all it can do is learnt in dreams, or "clone".
        agent: its sizes.
        cloning: how drivers are cloned.
        best: share of the recorded episodes that are cloned and dreamt on from, by return.
        imagination: the dreams.
        iterations: batches of dreams; 0 for a clone alone.
        lr: peak learning rate in dreams.
        average: decay of the averaged weights, which are what is kept, a batch of dreams.
        seed: of everything.
    """

    begin: Literal["nothing", "clone"] = "nothing"
    agent: AgentConfig = AgentConfig()
    cloning: FitConfig = FitConfig(steps=2500, batch=256, lr=1e-3, bf16=False, ema=0.995)
    best: float = 0.85
    imagination: ImaginationConfig = ImaginationConfig()
    iterations: int = 200
    lr: float = 5e-4
    average: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        if self.begin == "nothing" and self.imagination.anchor:
            raise WorldError(
                f"imagination.anchor: expected 0, as begin is 'nothing', got "
                f'{self.imagination.anchor}; an agent can stay near a clone: begin="clone"'
            )


@dataclass(frozen=True)
class Material:
    """What an agent learns from: recorded chunks, and their latents for dreams to begin in."""

    recorded: Recorded
    latents: LatentRecording

    def starts(
        self, world: DiffusionWorld, best: float = 1.0
    ) -> Callable[[int, torch.Generator], WorldState]:
        """Real states of the best episodes, drawn at random."""
        last = moments(self.recorded, best, seen=world.spec.context)
        window = torch.arange(1 - world.spec.context, 1)

        def draw(rows: int, generator: torch.Generator) -> WorldState:
            drawn = last[torch.randint(len(last), (rows,), generator=generator)]
            seeds = torch.randint(2**31, (rows,), generator=generator).tolist()
            at = drawn[:, None] + window
            states = self.recorded.states
            return world.from_latents(
                self.latents.latents[at], self.latents.actions[at], row_keys(seeds),
                known=self.latents.known[at],
                states=None if states is None or world.spec.state is None else states[at],
            )  # fmt: skip

        return draw


def prompted(
    world: DiffusionWorld, starts: Callable[[int, torch.Generator], WorldState],
    texts: tuple[str, ...],
) -> Callable[[int, torch.Generator], WorldState]:  # fmt: skip
    """The same states, each told one of the prompts from its first step on; as they are of none.

    Raises WorldError for what is no prompt, and in a world without words.
    """
    if not texts:
        return starts
    tokens = world.prompt(texts)

    def draw(rows: int, generator: torch.Generator) -> WorldState:
        state = starts(rows, generator)
        return state.prompted(tokens[torch.randint(len(tokens), (rows,), generator=generator)])

    return draw


def material(data: Dataset, world: DiffusionWorld, sees: str, cache: Path) -> Material:
    """Recordings of the training split; latents are computed once and kept in `cache`.

    Raises WorldError where they are not of the world's kind.
    """
    check_kind(data.spec, world.spec)
    cache.parent.mkdir(parents=True, exist_ok=True)
    data = data.split("train")
    latents = latent_cache(world.vae, data, cache)
    seen = latents.latents if sees == "latents" else load_recording(data).frames
    lengths = latents.windows.lengths
    states = latents.states.where(latents.states_known[:, None], torch.nan)
    told = states if state_width(data.spec, world.spec) else None
    recorded = Recorded(seen, latents.actions, latents.rewards, lengths, told)
    return Material(recorded, latents)


@default_float32()
@kept_generator()
def clone(
    spec: WorldSpec, stuff: Material, recipe: AgentTrainingConfig, run: Path, name: str = ""
) -> ActorCritic:
    """Clone the recorded drivers, in RUN/clone (resumes there). name: see `train_agent`."""
    torch.manual_seed(recipe.seed)
    agent = ActorCritic(spec, recipe.agent)
    imagination, data = recipe.imagination, stuff.recorded
    config = replace(recipe.cloning, seed=recipe.seed)
    ahead = returns_to_go(data, imagination.gamma, imagination.scale)
    loss = cloning_loss(data, moments(data, recipe.best), ahead, config.batch)
    settings = {"agent": to_json(recipe.agent), "best": recipe.best}
    done = fit(agent, loss, config, run / "clone", settings)
    assert isinstance(done, ActorCritic)
    seconds = logged_seconds(run / "clone" / "log.jsonl")
    save_agent(done, run / "clone" / "agent", world=name, spent=Spent(seconds=seconds))
    return done


@default_float32()
@kept_generator()
def dream(
    world: DiffusionWorld,
    agent: ActorCritic,
    stuff: Material,
    recipe: AgentTrainingConfig,
    folder: Path,
    name: str = "",
) -> ActorCritic:
    """Learn from dreams that begin in the recording, in `folder` (resumes there).

    Every batch of dreams is named by (seed, number) alone, so a training that was killed goes on
    as if it had not been. Returns the averaged agent; `agent` stays as it was.
    """
    # TorchRL: slow to import, and an extra
    from .imagination import DreamEnv, Learner

    home = copy.deepcopy(agent).requires_grad_(False)
    agent = copy.deepcopy(agent).requires_grad_(True)
    config = FitConfig(
        steps=recipe.iterations, lr=recipe.lr, weight_decay=0.0, seed=recipe.seed, warmup=5,
        betas=(0.9, 0.999), ema=recipe.average, bf16=False,
    )  # fmt: skip
    imagination = recipe.imagination
    settings = {"recipe": to_json(recipe), "passes": world.config.sampling.num_steps}
    run = Run(folder, agent, config, settings)
    adam = run.optimizer.parts[0]
    starts = prompted(world, stuff.starts(world, recipe.best), imagination.text)
    env = DreamEnv(world, agent, imagination, starts)
    learner = Learner(env, agent, imagination, adam, home)
    saved = time.monotonic()
    bar = tqdm(range(run.step, config.steps), initial=run.step, total=config.steps)
    bar.set_description(folder.name)
    for step in bar:
        generator = step_generator(recipe.seed, step)
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))  # TorchRL's draws
        for group in adam.param_groups:
            group["lr"] = learning_rate(config, step)
        figures = learner.learn(generator)
        _average(run)
        run.log(**figures)
        bar.set_postfix({"dream return": f"{figures['return']:.1f}"}, refresh=False)
        if time.monotonic() - saved > config.save_seconds or run.step == config.steps:
            run.save()
            saved = time.monotonic()
    learner.close()
    steps = run.step * imagination.steps
    spent = Spent(seconds=logged_seconds(run.logged), dream_steps=steps)
    assert isinstance(run.ema, ActorCritic)
    save_agent(run.ema, folder / "agent", world=name, spent=spent)
    return run.ema


def _average(run: Run) -> None:
    """Count the step, and move the averaged weights towards the newest."""
    run.step += 1
    decay = min(run.config.ema, (1 + run.step) / (10 + run.step))
    with torch.no_grad():
        for mean, value in zip(run.ema.parameters(), run.model.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)


def logged_seconds(log: Path) -> float:
    """Wall time of a training by its log, without the pauses between its resumptions."""
    told = (logged_number(line, "time") for line in read_json_lines(log, MOST_LOG))
    times = [time for time in told if time is not None]
    gaps = [later - time for time, later in zip(times, times[1:], strict=False)]
    return sum(gap for gap in gaps if gap < PAUSE)


@default_float32()
@kept_generator()
def train_agent(
    world: DiffusionWorld, data: Dataset, recipe: AgentTrainingConfig, run: Path, name: str = ""
) -> ActorCritic:
    """An agent by `recipe`, resumable.

    It lies in RUN/clone, RUN/dream or, where a clone went on in dreams, RUN/clone-dream. name: of
    the bundled world, or its folder, where `load_policy` finds it again. Raises WorldError, before
    anything is written, where `data` is of another world or a prompt is none that it understands.
    """
    if recipe.imagination.text:
        world.prompt(recipe.imagination.text)
    stuff = material(data, world, recipe.agent.sees, run.parent / "latents-train.safetensors")
    name = world_name(name) if name else ""  # found again wherever the process stands by then
    torch.manual_seed(recipe.seed)
    agent, folder = ActorCritic(world.spec, recipe.agent), run / "dream"
    if recipe.begin == "clone" or not recipe.iterations:
        agent, folder = clone(world.spec, stuff, recipe, run, name), run / "clone-dream"
    return dream(world, agent, stuff, recipe, folder, name) if recipe.iterations else agent


def world_name(world: str | Path) -> str:
    """What a saved agent calls its world: a name, bundled or of the hub, or an absolute folder."""
    named = str(world) in worlds.names() or is_address(world)
    return str(world) if named else str(Path(world).resolve())


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What the training of an agent took.

    Attributes:
        seconds: wall time.
        dream_steps: steps of the world that were dreamt.
        real_steps: chunks of the real environment that it played itself.
    """

    seconds: float = 0.0
    dream_steps: int = 0
    real_steps: int = 0


@dataclass(frozen=True, kw_only=True)
class AgentFile:
    """What is known of a saved agent beside its weights.

    Attributes:
        agent: its sizes.
        world: the name or absolute folder of the world that it was trained in, "" if unknown.
        spent: what its training took.
        weights: SHA-256 of the file of weights that it was written beside, "" if unknown.
    """

    agent: AgentConfig
    world: str = ""
    spent: Spent = Spent()
    weights: str = ""


def save_agent(agent: ActorCritic, path: Path, *, world: str = "", spent: Spent = Spent()) -> None:
    """Write PATH.safetensors, which holds all there is to know, and PATH.json, for people.

    A kill at any moment leaves the old agent or the new one; the first is whole with its JSON.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    about = AgentFile(agent=agent.config, world=world, spent=spent)
    weights = Path(f"{path}.safetensors")
    save_tensors(weights, agent.state_dict(), to_json(about))
    about = replace(about, weights=file_hash(weights))
    write_text(path.with_name(f"{path.name}.json"), json.dumps(to_json(about), indent=1) + "\n")


def read_agent(path: Path) -> AgentFile:
    """What is known of the agent at PATH, without suffix.

    Its weights know it, too, and theirs counts where a save was killed between the two files.
    Raises WorldError where either is damaged, or the JSON says other than the weights it names.
    """
    weights = Path(f"{path}.safetensors")
    try:
        raw = read_json(f"{path}.json", MOST_BYTES)
        told = from_json(AgentFile, {"weights": ""} | raw if isinstance(raw, dict) else raw)
        own = verify_tensors(weights)
        if own is None:  # of an earlier worldsim
            return told
        known = from_json(AgentFile, own, str(weights))
        if told.weights == file_hash(weights) and replace(told, weights="") != known:
            raise WorldError(f"other settings in {path}.json than in the weights beside it")
        return known
    except (OSError, ValueError) as error:
        raise WorldError(
            f"agent: expected one saved at {path}, got {error}; train it with worldsim agent"
        ) from error


@default_float32()
def load_agent(path: Path, spec: WorldSpec) -> ActorCritic:
    """An agent saved at PATH (without suffix), for the world that it was trained in."""
    config = read_agent(path).agent
    try:
        with torch.device("meta"):  # takes no memory before the file's shapes are seen to fit
            agent = ActorCritic(spec, config)
        weights = Path(f"{path}.safetensors")
        tensors, _ = load_tensors(weights, finite=True)
        check_kinds(weights, agent, tensors)
        agent.load_state_dict(tensors, assign=True)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise WorldError(
            f"agent: expected one saved for {spec.name} at {path}, got {error}; "
            "train it with worldsim agent"
        ) from error
    return agent.eval()
