"""Policies in the dream and in the real environment: do both agree on who is good?

    python -m benchmarks.transfer --world car-racing --agents runs/agents/seed-0 runs/agents/seed-1

Works for any world that names its environment. Every policy plays whole real episodes that no
training saw, and dreams on from the first chunks of the same episodes, in which nobody acts. A
return is the sum of rewards, the environment's own or the world's. Results go to a file of JSON
lines, one for each policy, episode and place; typed again, the command goes on where it stood.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import tyro
from tqdm import tqdm

from worldsim.agents.deploy import real_environment
from worldsim.benchmarks.transfer_policies import (
    Contestant,
    contestants,
    drive,
    idle_actions,
    state_policy,
)
from worldsim.benchmarks.transfer_table import read, summary, table, write_table
from worldsim.core import WorldError, WorldState, row_keys
from worldsim.flags import refuse_repeated
from worldsim.store.folder import load
from worldsim.store.provenance import provenance
from worldsim.world.compiled import compiled
from worldsim.world.diffusion import DiffusionWorld

Note = Callable[[Contestant, int, str, dict[str, float]], None]
"""(policy, episode, "real" or "dream", figures: return, seconds and decision) -> written down."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """How much is played.

    Attributes:
        first: the environment's seed of the first episode; nothing may have been trained on it.
        tracks: real episodes, of consecutive seeds, for everybody but those below.
        spoilt_tracks: of those, how many the policies play that are there for the ranking only.
        plan_tracks: of those, how many the planner plays; 0 leaves it out.
        dream_tracks: of those, how many are dreamt on from.
        steps: of a dream; as many as a real episode may have if None.
        num_steps: denoising steps of those dreams; as the world ships with if None. A planner has
            its own.
        workers: processes for the real environment.
        trust_code: import what the world's environment names; only if you trust who made it.
    """

    first: int = 5000
    tracks: int = 50
    spoilt_tracks: int = 50
    plan_tracks: int = 0
    dream_tracks: int = 16
    steps: int | None = None
    num_steps: int | None = None
    workers: int = 1
    trust_code: bool = False

    def real(self, who: Contestant) -> range:
        """The real episodes of a policy."""
        most = self.spoilt_tracks if who.spoilt else self.tracks
        return range(self.first, self.first + (self.plan_tracks if who.script == "plan" else most))

    def dreamt(self, who: Contestant) -> range:
        """The episodes that its dreams begin in."""
        return range(self.first, self.first + (self.dream_tracks if who.dreams else 0))


@torch.no_grad()
def dream_returns(
    who: Contestant, world: DiffusionWorld, starts: WorldState, steps: int
) -> list[float]:
    """Dreamt returns of `steps` steps from each start, weighed by the odds of going on."""
    total, alive = torch.zeros(len(starts)), torch.ones(len(starts))
    state, policy = starts, state_policy(who, world)
    for _ in tqdm(range(steps), desc=f"dream, {who.name}", leave=False):
        state, prediction = world.step(state, policy(state))
        total += alive * prediction.reward
        alive = alive * prediction.continue_prob
    return total.tolist()


def real_starts(world: DiffusionWorld, seeds: list[int], trust_code: bool) -> WorldState:
    """States after the first chunks of these real episodes, in which nobody acts."""
    env = real_environment(world, actions="native", trust_code=trust_code)
    idle, clips, felt = idle_actions(world.spec.action, 1)[0], [], []
    for seed in seeds:
        chunks, states = [env.reset(seed=seed)[0]], [env.state]
        for _ in range(world.spec.context - 1):
            chunks.append(env.step(idle)[0])
            states.append(env.state)
        clips.append(torch.stack([torch.as_tensor(c) for c in chunks]).flatten(0, 1))
        felt.append(torch.as_tensor(np.stack(states)))
    env.close()
    actions = torch.as_tensor(idle).expand(len(seeds), world.spec.context, *idle.shape)
    known = torch.arange(world.spec.context).expand(len(seeds), -1) > 0
    states = None if world.spec.state is None else torch.stack(felt)
    return world.encode(torch.stack(clips), actions, row_keys(seeds), known=known, states=states)


Job = tuple[Contestant, str, int, bool]


def _real_job(job: Job) -> tuple[Contestant, int, dict[str, float]]:
    torch.set_num_threads(1)
    who, name, seed, trust_code = job
    return who, seed, drive(who, load(name), seed, trust_code)


def _results(jobs: list[Job], workers: int) -> Iterator[tuple[Contestant, int, dict[str, float]]]:
    if workers == 1:
        yield from map(_real_job, jobs)
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        yield from pool.map(_real_job, jobs)


def drive_all(
    rows: list[Contestant], done: set[tuple[str, int, str]], world: str, scope: Scope, note: Note
) -> None:
    """What is still to be played in reality, seed by seed, so that all rows grow together."""
    most = max(scope.tracks, scope.spoilt_tracks, scope.plan_tracks)
    jobs = [
        (who, world, seed, scope.trust_code)
        for seed in range(scope.first, scope.first + most)
        for who in rows
        if seed in scope.real(who) and (who.name, seed, "real") not in done
    ]
    for who, seed, figures in tqdm(_results(jobs, scope.workers), "real", len(jobs)):
        note(who, seed, "real", figures)


def dream_all(
    rows: list[Contestant], done: set[tuple[str, int, str]], world: str, scope: Scope, note: Note
) -> None:
    """What is still to be dreamt, all episodes of a policy at once."""
    shipped = load(world)
    dream = compiled(shipped.with_num_steps(scope.num_steps) if scope.num_steps else shipped)
    for who in rows:
        seeds = [seed for seed in scope.dreamt(who) if (who.name, seed, "dream") not in done]
        if not seeds:
            continue
        begun = time.perf_counter()
        starts = real_starts(dream, seeds, scope.trust_code)
        values = dream_returns(who, dream, starts, scope.steps or episode_steps(shipped))
        took = (time.perf_counter() - begun) / len(seeds)
        for seed, value in zip(seeds, values, strict=True):
            note(who, seed, "dream", {"return": value, "seconds": took})


def episode_steps(world: DiffusionWorld) -> int:
    """Steps that a real episode may have."""
    environment = world.config.environment
    limit = environment.max_frames // environment.chunk if environment else world.spec.time_limit
    return max(1, limit)


def main(
    world: str = "car-racing",
    agents: tuple[Path, ...] = (),
    scope: Scope = Scope(),  # noqa: B008
    recorded: int = 0,
    out: Path = Path("runs/transfer/car-racing.jsonl"),
    result: Path | None = None,
    page: Path | None = None,
) -> None:
    """Score policies in the dream and in the real environment.

    Args:
        world: a bundled world's name or a folder.
        agents: folders of trained agents (from the agent command).
        scope: how much is played.
        recorded: real steps that the world was recorded from, for the table.
        out: the lines; the summary goes beside them as .json.
        result: where else the summary goes, such as benchmarks/results/transfer-car-racing.json.
        page: whose table is replaced by this one, such as docs/explanation/agents.md.

    Raises WorldError where the world names no environment.
    """
    if out.suffix == ".json":
        raise WorldError(f"out: expected another suffix, as the summary takes .json, got {out}")
    loaded = load(world)
    real_environment(loaded, trust_code=scope.trust_code).close()
    out.parent.mkdir(parents=True, exist_ok=True)
    rows, lines = contestants(loaded, agents, scope.plan_tracks > 0), read(out)
    done = {(x["policy"], x["track"], x["where"]) for x in lines}
    with open(out, "a") as file:

        def note(who: Contestant, track: int, where: str, figures: dict[str, float]) -> None:
            line = {"policy": who.name, "track": track, "where": where, **figures}
            file.write(json.dumps(line) + "\n")
            file.flush()

        dream_all(rows, done, world, scope, note)
        drive_all(rows, done, world, scope, note)
    figures = summary(rows, read(out), recorded) | {"command": " ".join(sys.argv[1:])}
    print(table(figures))
    text = json.dumps({**figures, "provenance": provenance()}, indent=1) + "\n"
    for path in (out.with_suffix(".json"), *([result] if result else [])):
        path.write_text(text)
    if page:
        write_table(page, figures)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, args=refuse_repeated(sys.argv[1:]))
