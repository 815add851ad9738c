"""What people keep: an agent, a film, a folder of recordings; written to be killed while at it."""

from __future__ import annotations

import sys
from functools import cache
from hashlib import sha256
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import torch

import tests.collect.fakes  # noqa: F401  (registers the environment that is recorded)
from tests.reliability.nightly.writers import Acknowledge, Writer
from tests.world_folders import tiny_world
from worldsim.agents.actor_critic import ActorCritic, AgentConfig
from worldsim.agents.training import Spent, load_agent, read_agent, save_agent
from worldsim.collect.api import collect
from worldsim.data.decode import FilmFrames, probe
from worldsim.data.native import NativeWriter
from worldsim.play.film import save_film

EPISODES = 40  # of the folder of recordings


class Agent:
    """An agent saved over itself, of another size every time; its version is all of its weights."""

    def __init__(self) -> None:
        self.spec = tiny_world().spec

    def write(self, folder: Path, acknowledge: Acknowledge) -> None:
        """Save the next version, and the next."""
        path = folder / "agent"
        version = self.read(folder) if path.with_name("agent.json").exists() else -1
        agents = [ActorCritic(self.spec, AgentConfig(width=4, hidden=h)) for h in (8, 16)]
        while True:
            version += 1
            agent = agents[version % 2]
            with torch.no_grad():
                for x in agent.state_dict().values():
                    x.fill_(version)
            save_agent(agent, path, spent=Spent(dream_steps=version))
            acknowledge(version)

    def read(self, folder: Path) -> int:
        """The version of the weights, if all that is told of them is of it, too."""
        agent = load_agent(folder / "agent", self.spec)
        values = {float(x) for value in agent.state_dict().values() for x in value.flatten()}
        told = read_agent(folder / "agent").spent.dream_steps
        if values != {float(told)}:
            raise ValueError(f"weights {sorted(values)[:3]} of an agent of {told} steps")
        return told

    def over(self, folder: Path, version: int) -> bool:
        """It never ends."""
        return False


class Film:
    """A film saved over itself; its version is in the grey of its first frames."""

    BASE, STEP = 20, 12

    def write(self, folder: Path, acknowledge: Acknowledge) -> None:
        """Save the next version, and the next."""
        path = folder / "film.mp4"
        version = self.read(folder) if path.exists() else -1
        while True:
            version += 1
            save_film(path, self._pictures(version), 10)
            acknowledge(version)

    def _pictures(self, version: int) -> list[np.ndarray]:
        digits = [version // self.BASE**i % self.BASE for i in range(3)]
        return [np.full((16, 16, 3), self.STEP * d, np.uint8) for d in digits] + [
            np.full((16, 16, 3), 128, np.uint8)
        ] * 5

    def read(self, folder: Path) -> int:
        """The version, if the film is whole."""
        film = probe(folder / "film.mp4")
        frames = FilmFrames(film)[:]
        if len(frames) != 8:
            raise ValueError(f"{len(frames)} frames of 8")
        digits = [round(float(f.mean()) / self.STEP) for f in frames[:3]]
        return sum(d * self.BASE**i for i, d in enumerate(digits))

    def over(self, folder: Path, version: int) -> bool:
        """It never ends."""
        return False


class Folder:
    """`worldsim.collect` of many short episodes; its version is how many are whole."""

    def write(self, folder: Path, acknowledge: Acknowledge) -> None:
        """Go on recording to the end."""
        done = self.read(folder) if (folder / "data").exists() else 0
        write = NativeWriter.write

        def told(self: NativeWriter, *given: object) -> Path:
            nonlocal done
            path = write(self, *given)  # type: ignore[arg-type]
            done += 1
            acknowledge(done)
            return path

        with patch.object(NativeWriter, "write", told):
            _record(folder)

    def read(self, folder: Path) -> int:
        """How many episodes there are, each of the bytes of a recording nobody killed."""
        whole, there = recorded(), files_of(folder / "data")
        for name, digest in there.items():
            if whole.get(name) != digest:
                raise ValueError(f"{name} is another than that of a recording nobody killed")
        return len([name for name in there if name.endswith(".npz")])

    def over(self, folder: Path, version: int) -> bool:
        """Whether all episodes are there; raises if the folder is another than nobody's killed."""
        if version < len(recorded()) - 1:
            return False
        if files_of(folder / "data") != recorded():
            raise RuntimeError("another folder than that of a recording nobody killed")
        return True


def _record(folder: Path) -> None:
    with patch.object(sys, "stderr", StringIO()):
        collect("Shows-v0", out=folder / "data", episodes=EPISODES, val=2, test=2, chunk=1,
                size=(16, 16), workers=1)  # fmt: skip


def files_of(folder: Path) -> dict[str, str]:
    """The hash of every file but those that may be deleted."""
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".tmp")
    }


@cache
def recorded() -> dict[str, str]:
    """The files of a recording that nobody kills."""
    with TemporaryDirectory() as name:
        _record(Path(name))
        return files_of(Path(name) / "data")


KEPT: dict[str, Writer] = {"agent": Agent(), "film": Film(), "recording": Folder()}
