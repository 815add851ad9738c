"""A2: saved at any moment, restored here and in another process, the future repeats."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.reliability.exact.streams import Digest, actions, world
from worldsim.core import WorldState
from worldsim.envs import (
    EnvState,
    TorchRLState,
    VectorEnvState,
    WorldSimEnv,
    WorldSimTorchRL,
    WorldSimVectorEnv,
)
from worldsim.store.snapshot import dump, load_state, parse, save_state

ROWS = 3
KINDS = ("gym", "SAME_STEP", "NEXT_STEP", "DISABLED", "torchrl", "state")
SOON = 10


class Player:
    """One environment of a kind, driven by numbered actions through ends of all sorts."""

    def __init__(self, kind: str, name: str, observation: str) -> None:
        self.kind, made = kind, world(name)
        if kind in ("gym", "state"):
            self.env: Any = WorldSimEnv(made, observation=observation)  # type: ignore[arg-type]
        elif kind == "torchrl":
            self.env = WorldSimTorchRL(made, (ROWS,), observation=observation)  # type: ignore[arg-type]
        else:
            self.env = WorldSimVectorEnv(
                ROWS, made, observation=observation, autoreset_mode=kind  # type: ignore[arg-type]
            )  # fmt: skip
        self.world = self.env.core.world
        self.td: Any = None
        self.state: Any = None

    def reset(self, seed: int) -> None:
        if self.kind == "torchrl":
            self.env.set_seed(seed)
            self.td = self.env.reset()
        else:
            self.env.reset(seed=seed)
        if self.kind == "state":
            self.state = self.env.get_state().episode.state

    def step(self, action: np.ndarray, told: Digest) -> None:
        many = np.stack([action] * ROWS)
        if self.kind == "state":
            self.state, said = self.world.step(self.state, torch.as_tensor(action)[None])
            told.add(self.state.latents, self.state.cache, said.reward, said.continue_prob)
        elif self.kind == "gym":
            *results, info = self.env.step(action)
            told.add(*results, info["steps"])
            if results[2] or results[3]:
                told.add(self.env.reset()[0])
        elif self.kind == "torchrl":
            after = self.env.step(self.td.set("action", torch.as_tensor(many)))["next"]
            told.add(
                after[self.env._seen_key], *(after[k] for k in ("reward", "done", "truncated"))
            )
            if bool(after["done"].any()):
                after = self.env.reset(after.exclude("reward").set("_reset", after["done"]))
                told.add(after[self.env._seen_key])
            self.td = after.select("world", self.env._seen_key)
        else:
            *results, info = self.env.step(many)
            told.add(*results, info["steps"], info["continue_prob"], info.get("_final_obs", 0))
            over = results[2] | results[3]
            if self.kind == "DISABLED" and over.any():
                told.add(self.env.reset(options={"reset_mask": over})[0])

    def save(self) -> Any:
        if self.kind == "state":
            return self.state
        return self.env.get_state(self.td) if self.kind == "torchrl" else self.env.get_state()

    def restore(self, saved: Any) -> None:
        if self.kind == "state":
            self.state = saved
        else:
            told = self.env.set_state(saved)
            self.td = told if self.kind == "torchrl" else None

    def future(self, seed: int, steps: int) -> list[str]:
        """Digests of the next few steps, and of all."""
        told, early = Digest(), ""
        for t, action in enumerate(actions(self.world, steps, seed)):
            if t == min(SOON, steps):
                early = str(told)
            self.step(action, told)
        return [early, str(told)]

    @property
    def saves(self) -> type:
        if self.kind == "gym":
            return EnvState
        if self.kind == "state":
            return WorldState
        return TorchRLState if self.kind == "torchrl" else VectorEnvState


def cases(points: int, name: str) -> Iterator[tuple[int, str, str]]:
    for i in range(points):
        yield i, KINDS[i % len(KINDS)], ("latent", "frame")[i // len(KINDS) % 2]


def run(points: int, name: str, folder: Path, steps: int = 200) -> Iterator[list[str]]:
    """For every point what differs, [] where nothing does; in the end another process judges."""
    players: dict[Any, tuple[Player, Player]] = {}
    expected: dict[int, list[str]] = {}
    found: dict[int, list[str]] = {}
    for i, kind, observation in cases(points, name):
        if (kind, observation) not in players:
            players[kind, observation] = tuple(Player(kind, name, observation) for _ in range(2))  # type: ignore[assignment]
        here, other = players[kind, observation]
        here.reset(seed=i)
        here.future(i, int(np.random.default_rng(i).integers(1, 16)))  # to somewhere
        saved, made_of = here.save(), here.world
        data = dump(saved, made_of)
        again = parse(data, here.saves, made_of)
        expected[i] = here.future(i + 1, steps)
        wrong = [] if dump(again, made_of) == data else ["bytes of the snapshot"]
        player = (here, other)[i % 2]
        player.restore((saved, again)[i // 2 % 2])
        if player.future(i + 1, SOON + 1)[0] != expected[i][0]:
            wrong.append(("same", "another")[i % 2] + " environment")
        save_state(folder / f"{i}.safetensors", again, made_of)
        found[i] = wrong
        yield []
    told = elsewhere(points, name, folder, steps)
    for i, wrong in found.items():
        yield wrong + ([] if told[str(i)] == expected[i] else ["another process"])


def elsewhere(points: int, name: str, folder: Path, steps: int) -> dict[str, list[str]]:
    code = "import sys; from tests.reliability.exact.restore import answer; answer(*sys.argv[1:])"
    given = [str(points), name, str(folder), str(steps)]
    done = subprocess.run(
        [sys.executable, "-W", "error::worldsim.SnapshotWarning", "-c", code, *given],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def answer(points: str, name: str, folder: str, steps: str) -> None:
    """In the other process: restore every point and print its future."""
    torch.set_num_threads(1)
    told, players = {}, {}
    for i, kind, observation in cases(int(points), name):
        if (kind, observation) not in players:
            players[kind, observation] = Player(kind, name, observation)
        player = players[kind, observation]
        path = Path(folder) / f"{i}.safetensors"
        player.restore(load_state(path, player.saves, player.world, strict=True))
        told[i] = player.future(i + 1, int(steps))
    print(json.dumps(told))
