"""Policies in the dream and on unseen real tracks: do both agree on who drives well?

    python -m benchmarks.transfer --world car-racing --agents runs/agents/seed-0

Every policy drives each test track for 1,000 frames (action repeat 2, the 50 frames of zoom
skipped) and dreams as many steps from the same track's first recorded chunks. Results go to a file
of JSON lines, one for each policy and track; typed again, the command goes on where it stood.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from worldsim.agents.actor_critic import AgentPolicy, DreamPolicy, RealPolicy
from worldsim.agents.planners import CEM, PlanningPolicy
from worldsim.checkpoint import load
from worldsim.core import WorldState, row_keys
from worldsim.data.behaviours import pursue
from worldsim.data.collect import car_racing
from worldsim.data.dataset import open_dataset
from worldsim.data.record import CollectConfig
from worldsim.data.resize import area_resize, crop_frames
from worldsim.fidelity.provenance import provenance
from worldsim.metrics import Interval, bootstrap, pearson, weighted_mean
from worldsim.models.vae import to_float
from worldsim.train.agent import load_agent
from worldsim.world import DiffusionWorld

TRACKS = range(5000, 5050)


class Driver(Protocol):
    """Drives the real environment by its frames."""

    def forget(self) -> None:
        """Begin another episode."""
        ...

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        """The newest chunk's frames -> an action."""
        ...


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One policy of the table, light enough to be sent to another process.

    Attributes:
        name: of the row.
        agent: path of a saved agent, or None.
        script: "expert", "random", "straight" or "plan" where there is no agent.
        noise: standard deviation of noise added to every action, which makes drivers of other
            skill out of a good one.
        gas: factor on the gas, likewise.
    """

    name: str
    agent: str | None = None
    script: str = ""
    noise: float = 0.0
    gas: float = 1.0

    def spoil(self, actions: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """The actions `(..., 3)` after noise and gas, within their range."""
        spoilt = actions + self.noise * rng.standard_normal(actions.shape)
        spoilt = spoilt * np.array([1, self.gas, 1])
        return np.clip(spoilt, [-1, 0, 0], [1, 1, 1]).astype(np.float32)


class Blind:
    """Acts without looking."""

    def __init__(self, script: str, seed: int) -> None:
        self.script, self.rng = script, np.random.default_rng(seed)

    def forget(self) -> None:
        """Nothing to forget."""

    def act(self, rows: int) -> NDArray[Any]:
        """Actions (rows, 3)."""
        if self.script == "random":
            return self.rng.uniform([-1, 0, 0], [1, 1, 1], (rows, 3)).astype(np.float32)
        return np.tile(np.array([0, 0.1, 0], np.float32), (rows, 1))

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        """One action (3,)."""
        return self.act(1)[0]


def planner(world: DiffusionWorld) -> PlanningPolicy:
    """iCEM looking half a second ahead in one-pass dreams."""
    search = CEM(horizon=12, candidates=32, elites=6, rounds=2, gamma=0.97)
    return PlanningPolicy(world.with_steps(1), search, torch.Generator().manual_seed(0))


def driver_of(who: Contestant, world: DiffusionWorld, env: Any, seed: int) -> Driver:
    """The contestant in the real environment."""
    if who.agent is not None:
        agent = load_agent(Path(who.agent), world.spec)
        latents = agent.config.sees == "latents"
        return AgentPolicy(agent, (lambda f: world.vae.encode(to_float(f))) if latents else None)
    if who.script == "plan":
        return RealPolicy(world, planner(world))
    driver = Blind(who.script, seed)
    if who.script == "expert":  # knows the track: an upper mark, not a competitor
        driver.act = lambda rows: pursue(env)[None]  # type: ignore[method-assign]
    return driver


def drive(who: Contestant, world: DiffusionWorld, seed: int, config: CollectConfig) -> float:
    """The return of one real episode."""
    env = gymnasium.make(config.env_id)
    try:
        driver, rng = driver_of(who, world, env, seed), np.random.default_rng([seed, 1])
        obs, _ = env.reset(seed=seed)
        frames = [obs] * config.chunk
        for _ in range(config.warmup):
            frames = [*frames[1:], env.step(np.zeros(3, np.float32))[0]]
        total, count = 0.0, 0
        while (count + 1) * config.chunk <= config.max_frames - config.warmup:
            seen = np.stack([crop_frames(f, config.crop) for f in frames])
            action = who.spoil(driver(area_resize(seen, config.size)), rng)
            frames, count = [], count + 1
            for _ in range(config.chunk):
                obs, reward, terminated, truncated, _ = env.step(action)
                frames.append(obs)
                total += float(reward)
                if terminated or truncated:
                    return total
        return total
    finally:
        env.close()


def dreams(who: Contestant, world: DiffusionWorld, starts: WorldState, steps: int) -> Tensor:
    """Dreamt returns `(B,)` of `steps` steps."""
    rng, blind = np.random.default_rng(1), Blind(who.script, 0)
    think: Callable[[WorldState], Tensor] = lambda s: torch.from_numpy(blind.act(len(s)))  # noqa: E731
    if who.agent is not None:
        think = DreamPolicy(world, load_agent(Path(who.agent), world.spec))
    elif who.script == "plan":
        think = planner(world)
    total, alive = torch.zeros(len(starts)), torch.ones(len(starts))
    state = starts
    for _ in tqdm(range(steps), desc=f"dream {who.name}", leave=False):
        action = torch.from_numpy(who.spoil(think(state).numpy(), rng))
        state, said = world.step(state, action)
        total += alive * said.reward
        alive = alive * said.cont
    return total


def track_starts(world: DiffusionWorld, data: Path, tracks: list[int]) -> WorldState:
    """States after the first recorded chunks of these tracks."""
    dataset, context, chunk = open_dataset(data), world.spec.context, world.spec.chunk
    found = [dataset.load(dataset.path("test", seed)) for seed in tracks]
    frames = torch.stack([torch.from_numpy(e.frames[: context * chunk]) for e in found])
    actions = torch.stack([torch.from_numpy(e.actions[:context]) for e in found])
    return world.encode(frames, actions, row_keys(tracks))


def _real_job(job: tuple[Contestant, str, int]) -> tuple[Contestant, int, float, float]:
    torch.set_num_threads(1)
    who, world, seed = job
    began = time.perf_counter()
    found = drive(who, load(world), seed, car_racing())
    return who, seed, found, time.perf_counter() - began


def contestants(agents: tuple[Path, ...], plan: bool) -> list[Contestant]:
    """The rows of the table; the spoilt ones give the ranking drivers of every skill."""
    rows = [Contestant(name=n, script=n) for n in ("expert", "random", "straight")]
    for folder in agents:
        for stage in ("clone", "dream"):
            if (path := folder / stage / "agent").with_suffix(".json").exists():
                rows.append(Contestant(name=f"{stage} {folder.name}", agent=str(path)))
    if agents and rows[3:]:
        path = rows[3].agent
        for noise in (0.3, 0.6, 1.0):
            rows.append(Contestant(name=f"clone, noise {noise}", agent=path, noise=noise))
        for gas in (0.3, 1.5):
            rows.append(Contestant(name=f"clone, gas x{gas}", agent=path, gas=gas))
    return rows + ([Contestant(name="planner", script="plan")] if plan else [])


def mmrv(dream: list[float], real: list[float]) -> float:
    """Mean maximum rank violation (Li et al. 2024, SIMPLER, 2405.05941, Eq. 1), in real returns:
    how much worse, at most, the one is that the dream puts before another; 0 if none is misplaced.
    """
    a, b = np.asarray(dream), np.asarray(real)
    wrong = (a[:, None] < a[None]) != (b[:, None] < b[None])
    return float((np.abs(b[:, None] - b[None]) * wrong).max(1).mean())


def read(path: Path) -> list[dict[str, Any]]:
    """Lines written so far; a torn last line is left out."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def interval(values: list[float]) -> Interval:
    """The mean and its 95% bootstrap interval over tracks."""
    x = torch.tensor(values)
    return bootstrap(lambda w: weighted_mean(x, w), torch.arange(len(x)))


def summary(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The table and the ranking from all lines."""
    rows: dict[str, Any] = {}
    for name in dict.fromkeys(line["policy"] for line in lines):
        mine = [line for line in lines if line["policy"] == name]
        real = [x["return"] for x in mine if x["where"] == "real"]
        dream = [x["return"] for x in mine if x["where"] == "dream"]
        row: dict[str, Any] = {"tracks": len(real), "seconds": sum(x["seconds"] for x in mine)}
        if real:
            row["real"] = interval(real)._asdict()
        if dream:
            row["dream"] = interval(dream)._asdict()
        if real and dream:
            row["gap"] = row["dream"]["value"] - row["real"]["value"]
        rows[name] = row
    both = [r for r in rows.values() if "gap" in r]
    result: dict[str, Any] = {"policies": rows, "ranked": len(both)}
    if len(both) >= 2:
        dream, real = ([r[k]["value"] for r in both] for k in ("dream", "real"))
        ones = torch.ones(1, len(both))
        result["pearson"] = pearson(torch.tensor(dream), torch.tensor(real), ones).item()
        result["mmrv"] = mmrv(dream, real)
    return result


def table(found: dict[str, Any]) -> str:
    """The summary for people."""

    def cell(row: dict[str, Any], key: str) -> str:
        x = row.get(key)
        return f"{x['value']:6.0f} [{x['low']:5.0f}, {x['high']:5.0f}]" if x else " " * 22

    lines = [f"{'policy':22} {'real [95%]':22} {'dream [95%]':22} tracks"]
    for name, row in found["policies"].items():
        lines.append(f"{name:22} {cell(row, 'real')} {cell(row, 'dream')} {row['tracks']:4}")
    if "pearson" in found:
        lines.append(f"dream against reality, {found['ranked']} policies: "
                     f"Pearson {found['pearson']:.2f}, MMRV {found['mmrv']:.0f}")  # fmt: skip
    return "\n".join(lines)


def main(
    world: str = "car-racing",
    agents: tuple[Path, ...] = (),
    data: Path = Path("data/car-racing"),
    tracks: int = len(TRACKS),
    dream_tracks: int = 16,
    steps: int = 475,
    plan: bool = False,
    workers: int = 2,
    out: Path = Path("runs/transfer/car-racing.jsonl"),
) -> None:
    """Score policies in the dream and on real tracks.

    Args:
        world: a bundled world's name or a folder.
        agents: folders of trained agents (from the agent command).
        data: recordings whose test split starts the dreams.
        tracks: real tracks, seeds from 5,000 up.
        dream_tracks: of those, how many are dreamt from.
        steps: of a dream; a real episode has 475.
        plan: add the planner, which is slow.
        workers: processes for the real environment.
        out: the lines; the summary goes beside them as .json.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = contestants(agents, plan)
    done = {(x["policy"], x["track"], x["where"]) for x in read(out)}
    with open(out, "a") as file:

        def note(policy: str, track: int, where: str, found: float, seconds: float) -> None:
            line = {"policy": policy, "track": track, "where": where, "return": found}
            file.write(json.dumps(line | {"seconds": seconds}) + "\n")
            file.flush()

        jobs = [
            (who, world, seed)
            for seed in TRACKS[:tracks]
            for who in rows
            if (who.name, seed, "real") not in done
        ]
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            for who, seed, found, took in tqdm(pool.map(_real_job, jobs), total=len(jobs)):
                note(who.name, seed, "real", found, took)
        loaded, chosen = load(world), list(TRACKS[:dream_tracks])
        starts = track_starts(loaded, data, chosen)
        for who in rows:
            if who.script == "expert" or (who.name, chosen[-1], "dream") in done:
                continue  # the expert looks at the track itself, which a dream does not have
            began = time.perf_counter()
            returns = dreams(who, loaded, starts, steps).tolist()
            took = (time.perf_counter() - began) / len(chosen)
            for seed, found in zip(chosen, returns, strict=True):
                note(who.name, seed, "dream", found, took)
    found = summary(read(out))
    print(table(found))
    text = json.dumps({**found, "provenance": provenance()}, indent=1)
    out.with_suffix(".json").write_text(text + "\n")


if __name__ == "__main__":
    tyro.cli(main)
