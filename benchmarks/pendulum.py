"""The quick world's proof: who swings the real pendulum up, having practised in the dream only?

    python -m benchmarks.pendulum --world worlds/pendulum --agents runs/pendulum-agents/seed-0

Every policy plays the same 50 real episodes, which no training saw, from pixels at an action repeat
of 2; all at once, so that planning is one large batch of dreams a decision.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from worldsim.agents.actor_critic import DreamPolicy
from worldsim.agents.planners import CEM, PlanningPolicy
from worldsim.agents.training import load_agent, read_agent
from worldsim.collect.environment import RecordedEnv, make_environment
from worldsim.core import EnvironmentSpec, WorldError, WorldModel, WorldState
from worldsim.data import Dataset, NativeDataset
from worldsim.evaluate.report import write_card
from worldsim.flags import refuse_repeated
from worldsim.metrics import bootstrap, weighted_mean
from worldsim.recipes.pendulum import TORQUE, swing_up
from worldsim.store.folder import load
from worldsim.store.provenance import provenance
from worldsim.world.compiled import compiled
from worldsim.world.diffusion import DiffusionWorld
from worldsim.world.fixed_batch import FixedBatch

from . import RESULTS
from .page import put

SEEDS = range(5000, 5050)
SEARCH = CEM(horizon=15, candidates=32, elites=6, rounds=2, gamma=0.98, spread=0.7)
"""One and a half seconds ahead: from hanging, a swing and what it earns."""
GROUP = 256  # rows of one compiled step

Act = Callable[["Crowd"], NDArray[np.float32]]
"""All pendulums -> their torques (B, 1)."""


@dataclass
class Crowd:
    """Real pendulums side by side, with what a camera saw of them last.

    Attributes:
        cameras: they, as recorded. frames: chunks (B, c, H, W, 3), oldest first; actions: (B, 1)
        into each, the first unknown. context: chunks kept.
    """

    cameras: list[RecordedEnv]
    context: int
    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    actions: list[Tensor] = field(default_factory=list)
    known: list[bool] = field(default_factory=list)

    @staticmethod
    def begin(
        seeds: Sequence[int], spec: EnvironmentSpec, context: int, trust_code: bool = False
    ) -> Crowd:
        """One pendulum a seed, standing still for the first chunk that is seen."""
        make = partial(make_environment, spec, observation="chunk", actions="native")
        cameras = [make(trust_code=trust_code) for _ in seeds]
        pairs = zip(cameras, seeds, strict=True)
        crowd = Crowd(cameras, context, [np.stack([c.reset(seed=s)[0] for c, s in pairs])])
        crowd.actions.append(torch.zeros(len(seeds), 1))
        crowd.known.append(False)
        return crowd

    def step(self, torques: NDArray[np.float32]) -> NDArray[np.float64]:
        """One chunk for everybody; rewards (B,)."""
        pairs = zip(self.cameras, torques, strict=True)
        chunks, rewards, *_ = zip(*(camera.step(action) for camera, action in pairs), strict=True)
        self.frames = [*self.frames, np.stack(chunks)][-self.context :]
        self.actions = [*self.actions, torch.from_numpy(torques)][-self.context :]
        self.known = [*self.known, True][-self.context :]
        return np.array(rewards)

    def state(self, world: DiffusionWorld) -> WorldState:
        """What the world makes of what was seen."""
        clip = torch.from_numpy(np.concatenate(self.frames, 1))
        known = torch.tensor(self.known).expand(len(clip), -1)
        return world.encode(clip, torch.stack(self.actions, 1), known=known)


def play(
    act: Act, spec: EnvironmentSpec, context: int, *, name: str, trust_code: bool = False,
    seeds: Sequence[int] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Returns of an episode of 200 frames each of `seeds`, the test's by default, their mean and
    interval, and seconds a decision."""
    seeds = SEEDS if seeds is None else seeds
    crowd = Crowd.begin(seeds, spec, context, trust_code)
    total, thinking = np.zeros(len(seeds)), 0.0
    steps = 200 // spec.chunk
    for _ in tqdm(range(steps), desc=name):
        begun = time.perf_counter()
        torques = act(crowd)
        thinking += time.perf_counter() - begun
        total += crowd.step(torques)
    for camera in crowd.cameras:
        camera.close()
    values = torch.from_numpy(total).float()
    found = bootstrap(lambda w: weighted_mean(values, w), torch.arange(len(values)))
    return {"returns": total.tolist(), **found._asdict(), "decision": thinking / steps / len(seeds)}


def blind() -> Act:
    """Uniformly random torques."""
    rng = np.random.default_rng(0)
    return lambda crowd: rng.uniform(-TORQUE, TORQUE, (len(crowd.cameras), 1)).astype(np.float32)


def thoughtful(world: DiffusionWorld, think: Callable[[WorldState], Tensor]) -> Act:
    """A policy over states."""
    return lambda crowd: think(crowd.state(world)).numpy()


@dataclass(frozen=True)
class Row:
    """A policy of the table. steps: real ones recorded or practised; dreamt: ones learned from."""

    name: str
    act: Act
    steps: int = 0
    dreamt: int = 0
    seconds: float = 0.0


def rows(
    world: DiffusionWorld, agents: Sequence[Path], recorded: int, search: CEM, dream: WorldModel
) -> list[Row]:
    """The script and chance, the agents, and the planner, which thinks in `dream`."""

    def skilled(crowd: Crowd) -> NDArray[np.float32]:
        return np.stack([swing_up(camera.env) for camera in crowd.cameras])

    made = [Row("swing-up script, reads the state", skilled)]
    made.append(Row("random", blind()))
    stages = {
        "clone": "cloned",
        "dream": "learned in the dream",
        "clone-dream": "cloned, then dream",
        "agent": "after a turn of improve",
        "real": "practised for real, no world",
    }
    for stage, title in stages.items():
        for folder in agents:
            path = folder / stage / "agent"
            if path.with_suffix(".json").exists():
                spent = read_agent(path).spent
                act = thoughtful(world, DreamPolicy(world, load_agent(path, world.spec)))
                steps = spent.real_steps or recorded
                made.append(Row(f"{title}, {folder.name}", act, steps=steps,
                                dreamt=spent.dream_steps,
                                seconds=spent.seconds))  # fmt: skip
    planner = PlanningPolicy(dream, search, torch.Generator().manual_seed(0))
    what = f"planned: iCEM, {search.horizon} steps, {search.candidates} x {search.rounds}"
    return [*made, Row(what, thoughtful(world, planner), steps=recorded)]


def steps_of(data: Dataset) -> int:
    """Real env steps that the world was made from."""
    return sum(data.split("train").lengths)


def table(found: dict[str, Any]) -> str:
    """The report, in Markdown."""
    head = ("policy", "return", "real steps", "steps dreamt", "training, s",
            "ms a decision")  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, row in found.items():
        cells = (name, f"{row['value']:.0f} [{row['low']:.0f}, {row['high']:.0f}]",
                 f"{row['steps']:,}", f"{row['dreamt']:,}", f"{row['seconds']:.0f}",
                 f"{1000 * row['decision']:.1f}")  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(
    world: str = "pendulum",
    agents: tuple[Path, ...] = (),
    data: Path = Path("data/pendulum"),
    search: CEM = SEARCH,
    out: Path = RESULTS / "pendulum.json",
    page: Path | None = None,
    compile: bool = True,
    trust_code: bool = False,
) -> None:
    """Score policies on 50 real pendulums.

    Args:
        world: a bundled world's name or a folder.
        agents: folders of trained agents (from the agent command).
        data: what the world was trained on.
        search: the planner's numbers.
        out: the JSON file.
        page: whose table is replaced by this one, such as docs/reference/worlds/pendulum.md.
        compile: plan in compiled steps; making them takes a minute, once.
        trust_code: import the module that the data's environment names.
    """
    loaded, recorded = load(world), NativeDataset(data)
    if (environment := recorded.spec.environment) is None:
        raise WorldError(f"data: expected episodes of an environment, got video in {data}")
    dream = FixedBatch(compiled(loaded) if compile else loaded, GROUP)
    found: dict[str, Any] = {}
    for row in rows(loaded, agents, steps_of(recorded), search, dream):
        played = play(
            row.act, environment, loaded.spec.context, name=row.name, trust_code=trust_code
        )
        found[row.name] = played | {
            "steps": row.steps, "dreamt": row.dreamt, "seconds": row.seconds,
        }  # fmt: skip
    print(table(found))
    write_card({"format": "worldsim-pendulum", "policies": found, "provenance": provenance()}, out)
    if page:
        put(page, table(found))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, args=refuse_repeated(sys.argv[1:]))
