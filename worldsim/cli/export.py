"""Recordings and dreams written out, in our format or those of others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from worldsim.data.dataset import unfit
from worldsim.data.export import export as write
from worldsim.data.open import open_dataset
from worldsim.shards.export import ROWS, Export, of_recordings, of_world, run

Out = Annotated[Path, tyro.conf.arg(aliases=["--folder"])]


def export(
    source: tyro.conf.Positional[str],
    out: Out,
    format: Literal["native", "lerobot", "video", "webdataset"] | None = None,
    camera: str | None = None,
    episodes: int | None = None,
    shards: int | None = None,
    shard: int | None = None,
    verify: bool = False,
    policy: str = "random",
    seed: int = 0,
    time_limit: int | None = None,
    num_steps: int | None = None,
    trust_threshold: float | None = None,
    rows: int = ROWS,
    device: str = "cpu",
    compile: bool = False,
) -> None:
    """Write recordings out in a format of others, or dream episodes into a data set.

    With --episodes SOURCE is a world, and its dreams are written. They, and recordings with
    --shards, are made shard by shard: by this process, or by all that torchrun or a Slurm array
    has started, each of which takes its share. Killed, it goes on where it stood when the same
    command is typed again; the bytes are the same whoever makes a shard.

    Args:
        source: recordings, as `worldsim.open` takes them; or a world: a bundled name, a folder,
            hf://ORG/NAME.
        out: where to; new, empty, or begun by the same command.
        format: LeRobot v3.0 (the default for recordings), our own (the default for dreams),
            WebDataset, or a folder of films with tables.
        camera: which of several in recordings, or "tile" for all side by side.
        episodes: how many to dream.
        shards: how many parts the data set has, 1 by default.
        shard: make this one alone.
        verify: compare the hashes of what is there, too, and make again what differs.
        policy: who acts in dreams: random, none, a saved agent's path, or module:function.
        seed: of all dreams.
        time_limit: steps of a dream, at most; the world's own by default.
        num_steps: denoising steps, the world's own by default.
        trust_threshold: end dreams where trust falls below it.
        rows: dreams stepped together.
        device: that dreams.
        compile: compile the world first.
    """
    if episodes is not None:
        if format == "video" or camera is not None:
            name, got = ("camera", camera) if camera is not None else ("format", format)
            raise unfit(source, name, "none that is for recordings alone", got, "leave it out")
        made = of_world(
            source, out, episodes=episodes, shards=shards or 1, sink=format or "native",
            policy=policy, seed=seed, time_limit=time_limit, num_steps=num_steps, rows=rows,
            device=device, compile=compile, trust_threshold=trust_threshold,
        )  # fmt: skip
        return _run(made, shard, verify)
    data = open_dataset(source, camera=camera)
    if shards is None and format != "webdataset":
        write(data, out, format or "lerobot")
        return print(f"{len(data)} episodes in {out}")
    if format == "video":
        raise unfit(source, "shards", "none for films", shards, "leave it out")
    _run(of_recordings(data, out, shards=shards or 1, sink=format or "lerobot"), shard, verify)


def _run(export: Export, shard: int | None, verify: bool) -> None:
    if run(export, shard=shard, verify=verify) is None:
        print(f"{export.folder}: some shards are still to be made")
    else:
        print(f"{export.plan.episodes} episodes in {export.folder}; see shards.json")
