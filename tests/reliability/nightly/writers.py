"""The three that write what must not be lost: a training, a world that is saved, an episode.

Each writes version after version to one place and can say which version lies there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from tests.world_folders import CARD, tiny_world
from worldsim.data import Episode
from worldsim.data.native import load_episode, save_episode
from worldsim.store.folder import load, save
from worldsim.train import loop
from worldsim.train.loop import FitConfig, Losses, Run

STEPS = 200
Acknowledge = Callable[[int], None]


class Writer(Protocol):
    """Writes versions 0, 1, 2... of something into a folder."""

    def write(self, folder: Path, acknowledge: Acknowledge) -> None:
        """Go on from what is there, for good; tell of every version that is safe."""
        ...

    def read(self, folder: Path) -> int:
        """The version that is there; raises if there is none, or not a whole one."""
        ...

    def over(self, folder: Path, version: int) -> bool:
        """Whether it is finished; raises if it ended otherwise than one that nobody killed."""
        ...


# --- a training ---


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 1))


def _losses(net: nn.Module, ema: nn.Module, step: int, g: torch.Generator) -> Losses:
    x = torch.randn(8, 3, generator=g)
    return {"fit": ((net(x) - x.sum(-1, keepdim=True)) ** 2).mean()}


CONFIG = FitConfig(steps=STEPS, warmup=5, bf16=False, save_seconds=0.0)


class Training:
    """A training that saves after every step; its version is the step of its checkpoint."""

    def write(self, folder: Path, acknowledge: Acknowledge) -> None:
        """Train to the end."""

        class Told(Run):
            def save(self, *, wait: bool = True) -> None:
                super().save(wait=wait)
                acknowledge(self.step)

        before, loop.Run = loop.Run, Told  # type: ignore[misc]
        try:
            loop.fit(_model(), _losses, CONFIG, folder)
        finally:
            loop.Run = before  # type: ignore[misc]

    def read(self, folder: Path) -> int:
        """The step, if every byte of the checkpoint is that of a training nobody killed."""
        step = Run(folder, _model(), CONFIG).step
        if sha256((folder / "checkpoint").read_bytes()).digest() != undisturbed()[0][step]:
            raise ValueError(f"step {step} is another than that of a training nobody killed")
        return step

    def over(self, folder: Path, version: int) -> bool:
        """Whether all steps are done, with the log of a training nobody killed."""
        if version == STEPS and log_of(folder) != undisturbed()[1]:
            raise RuntimeError("the log is another than that of a training nobody killed")
        return version == STEPS


@cache
def undisturbed() -> tuple[dict[int, bytes], list[dict[str, float]]]:
    """A training that nobody kills: the hash of its checkpoint at every step, and its log."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder, hashes = Path(name), {}

        def note(step: int) -> None:
            hashes[step] = sha256((folder / "checkpoint").read_bytes()).digest()

        Training().write(folder, note)
        return hashes, log_of(folder)


def log_of(folder: Path) -> list[dict[str, float]]:
    """The lines of a log, without the time of day."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("time", "seconds")} for line in lines]


# --- a world ---


class World:
    """A world saved over itself; its version is in its name and in its weights."""

    def write(self, folder: Path, acknowledge: Acknowledge) -> None:
        """Save the next version, and the next."""
        version = self.read(folder) if folder.joinpath("w").exists() else -1
        world = tiny_world()
        while True:
            version += 1
            world.vae.mean.fill_(version)
            world.config = replace(
                world.config, spec=replace(world.config.spec, name=f"w{version}")
            )
            save(world, folder / "w", card=CARD, overwrite=True)
            acknowledge(version)

    def read(self, folder: Path) -> int:
        """The version in the name, if it is that of the weights."""
        world = load(folder / "w")
        version = int(world.spec.name[1:])
        if not bool((world.vae.mean == version).all()):
            raise ValueError(f"the weights of {world.spec.name} are {world.vae.mean}")
        return version

    def over(self, folder: Path, version: int) -> bool:
        """It never ends."""
        return False


# --- an episode ---


class Recording:
    """An episode recorded over itself; its version is its seed, and in every array."""

    def write(self, folder: Path, acknowledge: Acknowledge) -> None:
        """Save the next version, and the next."""
        path = folder / "episode_000000.npz"
        version = self.read(folder) if path.exists() else -1
        while True:
            version += 1
            save_episode(path, _episode(version))
            acknowledge(version)

    def read(self, folder: Path) -> int:
        """The seed, if all arrays are of that version."""
        found = load_episode(folder / "episode_000000.npz")
        expected = _episode(found.seed or 0)
        for name in ("frames", "actions", "rewards"):
            if not np.array_equal(getattr(found, name)[:], getattr(expected, name)):
                raise ValueError(f"{name} are not those of version {found.seed}")
        assert found.seed is not None
        return found.seed

    def over(self, folder: Path, version: int) -> bool:
        """It never ends."""
        return False


def _episode(version: int) -> Episode:
    g = np.random.default_rng(version)
    return Episode(
        name="episode_000000",
        chunk=2,
        fps=20.0,
        frames=g.integers(0, 256, (20, 16, 16, 3), np.uint8),
        actions=np.full((10, 2), version, np.float32),
        rewards=np.full(10, version, np.float32),
        terminated=False,
        truncated=True,
        seed=version,
        policy="still",
    )


WRITERS: dict[str, Writer] = {"training": Training(), "world": World(), "episode": Recording()}
