"""Who is compared by `benchmarks.transfer`: each policy in reality and in the dream."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldsim.agents.actor_critic import DreamPolicy
from worldsim.agents.deploy import RealPolicy, real_environment
from worldsim.agents.planners import CEM, CategoricalCEM, PlanningPolicy
from worldsim.agents.training import load_agent
from worldsim.collect.environment import RecordedEnv
from worldsim.collect.policies import CollectPolicy
from worldsim.core import ActionSpec, WorldState
from worldsim.recipes.car_racing.landmarks import ENVIRONMENTS
from worldsim.recipes.frame_policies import FramePolicy, frame_policies
from worldsim.recipes.registry import RECIPES
from worldsim.world.compiled import compiled
from worldsim.world.diffusion import DiffusionWorld
from worldsim.world.fixed_batch import FixedBatch

StatePolicy = Callable[[WorldState], Tensor]
"""State -> actions (B, *action), in the world's own range."""
Search = CEM | CategoricalCEM

RACING = CEM(
    horizon=24, candidates=20, elites=5, rounds=1, gamma=0.98,
    start=(0.0, 0.2, 0.0), home=0.3, spread=(0.3, 0.2, 0.2),
)  # fmt: skip
"""A second ahead, drawn back to a light gas."""
SEARCHES: dict[str, Search] = dict.fromkeys(ENVIRONMENTS, RACING)
"""By environment."""
EVERY, NUM_STEPS = 3, 3
"""Actions taken of each plan, and denoising steps of the dreams that it is made in."""
NOISES = (0.2, 0.4, 0.8)
SCALES = (0.2, 0.5)
STAGES = {
    "clone": "cloning", "dream": "dream", "clone-dream": "cloning, then dream",
    "real": "real practice",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One policy of the table, light enough to be sent to another process.

    Attributes:
        name: of the row.
        agent: path of a saved agent, or None.
        script: where there is no agent: "random", "constant" (idle hands), "plan", "frames:NAME"
            (of `worldsim.recipes.frame_policies`) or "recipe:NAME" (a policy of the world's recipe,
            which may read the simulator and so has no dreams).
        noise: how far every action is disturbed, which makes policies of other skill out of a good
            one: standard deviation in half ranges of a box, share of random choices.
        scale: factor on how far a box's actions are from idle hands, likewise.
    """

    name: str
    agent: str | None = None
    script: str = ""
    noise: float = 0.0
    scale: float = 1.0

    @property
    def spoilt(self) -> bool:
        """Whether it is there for the ranking only."""
        return self.noise > 0 or self.scale != 1

    @property
    def dreams(self) -> bool:
        """Whether it is dreamt; a planner's dreams would take as long again."""
        return self.script != "plan" and not self.script.startswith("recipe:")

    def spoil(
        self, spec: ActionSpec, actions: NDArray[Any], rng: np.random.Generator
    ) -> NDArray[Any]:
        """The actions `(B, *action)` after noise and scale, within their range."""
        if spec.is_discrete:
            others = draw_actions(spec, rng, len(actions))
            mask = rng.random(len(actions)) < self.noise
            return np.where(mask.reshape(-1, *[1] * (actions.ndim - 1)), others, actions)
        low, high = np.array(spec.low), np.array(spec.high)
        idle = np.clip(0, low, high)
        changed = idle + self.scale * (actions - idle)
        changed = changed + self.noise * (high - low) / 2 * rng.standard_normal(actions.shape)
        return np.clip(changed, low, high).astype(np.float32)


def draw_actions(spec: ActionSpec, rng: np.random.Generator, rows: int) -> NDArray[Any]:
    """Uniformly random actions (rows, *action)."""
    if spec.is_discrete:
        drawn = spec.least + rng.integers(spec.choices, size=(rows, len(spec.choices)))
        return drawn if spec.shape else drawn[:, 0]
    return rng.uniform(spec.low, spec.high, (rows, *spec.shape)).astype(np.float32)


def idle_actions(spec: ActionSpec, rows: int) -> NDArray[Any]:
    """What idle hands do, (rows, *action): 0 or what is nearest to it; the first choices."""
    if spec.is_discrete:
        return np.full((rows, *spec.shape), spec.least)
    return np.tile(np.clip(0, spec.low, spec.high).astype(np.float32), (rows, 1))


def default_search(world: DiffusionWorld) -> Search:
    """The search of the world's environment, or a plain one for its kind of action."""
    environment = world.config.environment
    known = SEARCHES.get(environment.id) if environment else None
    plain: Search = CEM(horizon=24, candidates=20, elites=5, rounds=1, gamma=0.98)
    if world.spec.action.is_discrete:
        plain = CategoricalCEM(horizon=16, candidates=24, elites=5, rounds=1, gamma=0.98)
    return known or plain


def planner(world: DiffusionWorld, search: Search | None = None) -> PlanningPolicy:
    """A search in compiled dreams, as many at once as a plan has candidates; no trust is asked."""
    search = search or default_search(world)
    dream = world.with_num_steps(NUM_STEPS).with_trust(None)
    dream = FixedBatch(compiled(dream), search.candidates + 4)
    return PlanningPolicy(dream, search, torch.Generator().manual_seed(0), every=EVERY)


def state_policy(who: Contestant, world: DiffusionWorld, seed: int = 1) -> StatePolicy:
    """The contestant over states, in the dream and in reality; not one of a recipe."""
    rng, spec = np.random.default_rng(seed), world.spec.action
    if who.agent is not None:
        policy: StatePolicy = DreamPolicy(world, load_agent(Path(who.agent), world.spec))
    elif who.script == "plan":
        policy = planner(world)
    elif who.script.startswith("frames:"):
        policy = _by_frames(_frame_policies(world)[who.script.partition(":")[2]](), world)
    elif who.script == "random":
        policy = lambda state: torch.from_numpy(draw_actions(spec, rng, len(state)))  # noqa: E731
    else:
        policy = lambda state: torch.from_numpy(idle_actions(spec, len(state)))  # noqa: E731
    if not who.spoilt:
        return policy
    return lambda state: torch.from_numpy(who.spoil(spec, policy(state).numpy(), rng))


def _by_frames(policy: FramePolicy, world: DiffusionWorld) -> StatePolicy:
    return lambda state: policy(world.decode(state)[:, -1])


def _frame_policies(world: DiffusionWorld) -> dict[str, Callable[[], FramePolicy]]:
    environment = world.config.environment
    return frame_policies(environment.id) if environment else {}


def recipe_policies(world: DiffusionWorld) -> dict[str, CollectPolicy]:
    """By name, who acts in the recipe that records the world's environment."""
    environment = world.config.environment
    recipes = [recipe() for recipe in RECIPES.values()]
    same = [r for r in recipes if environment and r.environment.id == environment.id]
    return {policy.name: policy for recipe in same[:1] for policy in recipe.policies}


ChunkPolicy = Callable[[NDArray[np.uint8]], Any]
"""The newest chunk's frames (c, H, W, 3) uint8 -> an action, in the environment's range."""


def chunk_policy(
    who: Contestant, world: DiffusionWorld, env: RecordedEnv, seed: int
) -> ChunkPolicy:
    """The contestant in a real environment; remembers, so one is made for each episode."""
    rng, spec = np.random.default_rng([seed, 1]), world.spec.action
    if who.script.startswith("recipe:"):
        acting = recipe_policies(world)[who.script.partition(":")[2]].make(env, rng)
        return lambda frames: env.to_native(acting(env.observed))
    if who.script.startswith("frames:"):
        by_frames = _frame_policies(world)[who.script.partition(":")[2]]()
        policy: ChunkPolicy = lambda frames: by_frames(torch.as_tensor(frames[-1:]))[0].numpy()  # noqa: E731
    elif who.script == "random":
        policy = lambda frames: draw_actions(spec, rng, 1)[0]  # noqa: E731
    elif who.script == "constant":
        policy = lambda frames: idle_actions(spec, 1)[0]  # noqa: E731
    else:
        agent = None if who.agent is None else load_agent(Path(who.agent), world.spec)
        real = RealPolicy(agent or planner(world), world, actions="native")
        told = world.spec.state is not None
        policy = lambda frames: real(frames, env.state if told else None)  # noqa: E731
    if not who.spoilt:
        return policy
    return lambda frames: who.spoil(spec, np.asarray(policy(frames))[None], rng)[0]


def drive(who: Contestant, world: DiffusionWorld, seed: int, trust_code: bool) -> dict[str, float]:
    """One real episode: its return, in the environment's own rewards, its seconds, and seconds a
    decision, of which there is one a chunk."""
    begun, total, thinking, decisions = time.perf_counter(), 0.0, 0.0, 0
    env = real_environment(world, actions="native", trust_code=trust_code)
    try:
        frames, _ = env.reset(seed=seed)
        policy, over = chunk_policy(who, world, env, seed), False
        while not over:
            asked = time.perf_counter()
            action = policy(frames)
            thinking, decisions = thinking + time.perf_counter() - asked, decisions + 1
            frames, reward, terminated, truncated, _ = env.step(action)
            total, over = total + float(reward), terminated or truncated
    finally:
        env.close()
    seconds = time.perf_counter() - begun
    return {"return": total, "seconds": seconds, "decision": thinking / decisions}


def contestants(world: DiffusionWorld, agents: tuple[Path, ...], plan: bool) -> list[Contestant]:
    """The rows of the table; the spoilt ones give the ranking policies of every skill.

    agents: folders of the agent and model-free commands; all stages in them take part.
    """
    rows = [
        Contestant(name=f"{name}, reads the simulator", script=f"recipe:{name}")
        for name in list(recipe_policies(world))[:1]
    ]
    rows += [Contestant(name=name, script=name) for name in ("random", "constant")]
    rows += [Contestant(name=name, script=f"frames:{name}") for name in _frame_policies(world)]
    for stage, title in STAGES.items():
        for folder in agents:
            path = folder / stage / "agent"
            if path.with_name("agent.json").exists():
                rows.append(Contestant(name=f"{title}, {folder.name}", agent=str(path)))
    for row in [row for row in rows if row.agent][:1]:
        title = row.name.rpartition(",")[0]
        rows += [Contestant(name=f"{title}, noise {n}", agent=row.agent, noise=n) for n in NOISES]
        if not world.spec.action.is_discrete:
            rows += [Contestant(name=f"{title}, x {s}", agent=row.agent, scale=s) for s in SCALES]
    return rows + ([Contestant(name="planner", script="plan")] if plan else [])
