"""Who is compared by `benchmarks.transfer`: each policy in reality and in the dream."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldsim.agents.actor_critic import DreamPolicy, RealPolicy
from worldsim.agents.deploy import Driver, FramePolicy, agent_driver
from worldsim.agents.planners import CEM, PlanningPolicy
from worldsim.agents.training import load_agent
from worldsim.core import WorldState
from worldsim.data import DatasetSpec
from worldsim.recipes.car_racing.drivers import pursue
from worldsim.recipes.car_racing.landmarks import steer_by_sight
from worldsim.world.compiled import compiled
from worldsim.world.diffusion import DiffusionWorld
from worldsim.world.fixed_batch import FixedBatch

Think = Callable[[WorldState], Tensor]
"""A policy in the dream: state -> actions (B, 3)."""

BLIND = ("expert", "random", "straight")
SEARCH = CEM(
    horizon=24, candidates=20, elites=5, rounds=1, gamma=0.98,
    start=(0.0, 0.2, 0.0), home=0.3, spread=(0.3, 0.2, 0.2),
)  # fmt: skip
"""A second ahead, some 500 dreamt steps a plan; drawn back to a light gas (docs/journal/log.md)."""
EVERY, PASSES = 3, 3
"""Actions taken of each plan, and passes of the dreams that it is made in."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One policy of the table, light enough to be sent to another process.

    Attributes:
        name: of the row.
        agent: path of a saved agent, or None.
        script: "expert" (reads the track from the simulator), "random", "straight", "sight" or
            "plan" where there is no agent.
        noise: standard deviation of noise added to every action, which makes drivers of other
            skill out of a good one.
        gas: factor on the gas, likewise.
    """

    name: str
    agent: str | None = None
    script: str = ""
    noise: float = 0.0
    gas: float = 1.0

    @property
    def spoilt(self) -> bool:
        """Whether it is there for the ranking only."""
        return self.noise > 0 or self.gas != 1

    def spoil(self, actions: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """The actions `(..., 3)` after noise and gas, within their range."""
        changed = actions * np.array([1, self.gas, 1])
        if self.noise:
            changed = changed + self.noise * rng.standard_normal(actions.shape)
        return np.clip(changed, [-1, 0, 0], [1, 1, 1]).astype(np.float32)


class Plain:
    """A driver that remembers nothing: frames -> an action."""

    def __init__(self, act: Callable[[NDArray[np.uint8]], NDArray[Any]]) -> None:
        self.act = act

    def forget(self) -> None:
        """Nothing to forget."""

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        """The newest chunk's frames (c, H, W, 3) uint8 -> an action (3,)."""
        return self.act(frames)


class Sight:
    """The driver by sight of `worldsim.evaluate`, with the wheel that it last turned."""

    def __init__(self) -> None:
        self.wheel: Tensor | None = None

    def forget(self) -> None:
        """Begin another episode."""
        self.wheel = None

    def act(self, frames: Tensor) -> Tensor:
        """Frames (B, H, W, 3) uint8 -> actions (B, 3)."""
        wheel = torch.zeros(len(frames)) if self.wheel is None else self.wheel
        actions = steer_by_sight(frames, wheel)
        self.wheel = actions[:, 0]
        return actions

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        """The newest chunk's frames -> an action (3,)."""
        return self.act(torch.from_numpy(frames[-1:]))[0].numpy()


def blind(script: str, rng: np.random.Generator, rows: int) -> NDArray[Any]:
    """Actions (rows, 3) of one that does not look: "random", or "straight" at little gas."""
    if script == "random":
        return rng.uniform([-1, 0, 0], [1, 1, 1], (rows, 3)).astype(np.float32)
    return np.tile(np.array([0, 0.1, 0], np.float32), (rows, 1))


def planner(world: DiffusionWorld) -> PlanningPolicy:
    """iCEM in compiled dreams, as many at once as a plan has candidates; it asks for no trust."""
    dream = world.with_num_steps(PASSES).with_trust(None)
    dream = FixedBatch(compiled(dream), SEARCH.candidates + 4)
    return PlanningPolicy(dream, SEARCH, torch.Generator().manual_seed(0), every=EVERY)


def driver_of(who: Contestant, world: DiffusionWorld, env: Any, seed: int) -> Driver:
    """The contestant at the wheel of a real environment."""
    rng = np.random.default_rng([seed, 1])
    if who.agent is not None:
        found: Driver = agent_driver(Path(who.agent), world)
    elif who.script == "plan":
        found = RealPolicy(world, planner(world))
    elif who.script == "sight":
        found = Sight()
    elif who.script == "expert":
        found = Plain(lambda _: pursue(env))
    else:
        found = Plain(lambda _: blind(who.script, rng, 1)[0])
    if not who.spoilt:
        return found
    return Plain(lambda frames: who.spoil(found(frames), rng))


class Timed:
    """A driver, and how long it took to decide."""

    def __init__(self, driver: Driver) -> None:
        self.driver, self.seconds, self.decisions = driver, 0.0, 0

    def forget(self) -> None:
        """Begin another episode."""
        self.driver.forget()

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        """The newest chunk's frames -> an action (3,)."""
        begun = time.perf_counter()
        action = self.driver(frames)
        self.seconds += time.perf_counter() - begun
        self.decisions += 1
        return action


def drive(
    who: Contestant, world: DiffusionWorld, info: DatasetSpec, seed: int
) -> tuple[float, float]:
    """The return of one real episode of at most 1,000 frames: the environment's own rewards; and
    seconds a decision, of which there is one a chunk."""
    assert info.environment is not None
    env = gymnasium.make(info.environment.id, **info.environment.kwargs)
    try:
        timed = Timed(driver_of(who, world, env, seed))
        policy = FramePolicy(timed, info)
        obs, _ = env.reset(seed=seed)
        if who.script in BLIND:  # pictures are most of the time, and nobody looks at them
            still = np.asarray(obs)
            env.unwrapped._render = lambda mode: still  # type: ignore[attr-defined]
        total, over = 0.0, False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(policy(obs))
            total, over = total + float(reward), terminated or truncated
        return total, timed.seconds / timed.decisions
    finally:
        env.close()


def thinker(who: Contestant, world: DiffusionWorld) -> Think:
    """The contestant in the dream."""
    rng = np.random.default_rng(1)
    if who.agent is not None:
        found: Think = DreamPolicy(world, load_agent(Path(who.agent), world.spec))
    elif who.script == "plan":
        found = planner(world)
    elif who.script == "sight":
        sight = Sight()
        found = lambda state: sight.act(world.decode(state)[:, -1])  # noqa: E731
    else:
        found = lambda state: torch.from_numpy(blind(who.script, rng, len(state)))  # noqa: E731
    return lambda state: torch.from_numpy(who.spoil(found(state).numpy(), rng))


def contestants(agents: tuple[Path, ...], plan: bool) -> list[Contestant]:
    """The rows of the table; the spoilt ones give the ranking drivers of every skill.

    agents: folders of the agent and practise commands; all stages in them take part.
    """
    scripts = {"expert": "scripted driver", "random": "random", "straight": "straight on"}
    rows = [Contestant(name=name, script=script) for script, name in scripts.items()]
    rows.append(Contestant(name="by sight", script="sight"))
    stages = {
        "clone": "cloning", "dream": "dream", "clone-dream": "cloning, then dream",
        "real": "real practice",
    }  # fmt: skip
    for stage, title in stages.items():
        for folder in agents:
            path = folder / stage / "agent"
            if path.with_suffix(".json").exists():
                rows.append(Contestant(name=f"{title}, {folder.name}", agent=str(path)))
    clones = [row for row in rows if row.name.startswith("cloning, seed")]
    for row in clones[:1]:
        for noise in (0.2, 0.4, 0.8):
            name = f"cloning, noise {noise}"
            rows.append(Contestant(name=name, agent=row.agent, noise=noise))
        for gas in (0.2, 0.5):
            rows.append(Contestant(name=f"cloning, gas x {gas}", agent=row.agent, gas=gas))
    return rows + ([Contestant(name="planner (iCEM)", script="plan")] if plan else [])
