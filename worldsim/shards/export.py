"""`worldsim export` of shards: which are missing, making them, and ending the data set."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from worldsim.data.dataset import Dataset, DatasetSpec, unfit
from worldsim.data.episode import check_episode
from worldsim.envs.source import find_world
from worldsim.envs.trust import TrustPolicy
from worldsim.store.folder import folder_of
from worldsim.store.manifest import read_manifest
from worldsim.world.fixed_batch import FixedBatch

from . import manifest
from .manifest import ShardEntry, Whole
from .plan import Plan, Sink, installed, keep_plan, own_shards
from .policies import fingerprint, policy_of
from .sinks import Native, ShardSink, WebDataset
from .source import Dreams, Recordings, Source

ROWS = 8
"""Episodes dreamt together; places of a row in groups of 8 were measured to be equal to the bit."""


@dataclass(frozen=True)
class Export:
    """A data set in the making: `make` any shards, in any process, then `finish`.

    Attributes:
        source: what gives the episodes.
        folder: of the data set.
        plan: what its bytes follow from.
    """

    source: Source
    folder: Path
    plan: Plan

    def __post_init__(self) -> None:
        keep_plan(self.folder, self.plan)

    @property
    def sink(self) -> ShardSink:
        """The writer of the plan's format."""
        return _sink(self.plan.sink)(self.folder, self.source.spec)

    def made(self, shard: int, *, contents: bool = False) -> ShardEntry | None:
        """A shard's manifest, if all of its files are there; `contents` compares hashes, too."""
        entry = manifest.read_shard(self.folder, shard)
        if entry is None or any(manifest.differing(self.folder, entry.files, contents=contents)):
            return None
        return entry

    def make(self, shard: int) -> ShardEntry:
        """Make a shard, whatever is there of it."""
        numbers, spec, entries = self.plan.numbers(shard), self.source.spec, []

        def episodes() -> Iterable:
            for episode in self.source.episodes(numbers):
                entries.append(manifest.entry_of(episode))
                yield check_episode(episode, spec)

        paths = self.sink.write(shard, iter(episodes()))
        files = manifest.hashed(self.folder, paths)
        entry = ShardEntry(shard=shard, files=files, episodes=tuple(entries))
        manifest.write(manifest.shard_path(self.folder, shard), entry)
        return entry

    def make_missing(self, shards: Iterable[int], *, contents: bool = False) -> None:
        """Make those of `shards` that are not there."""
        for shard in tqdm(list(shards), desc="shards", file=sys.stderr):
            if self.made(shard, contents=contents) is None:
                self.make(shard)

    def finish(self) -> Path | None:
        """Describe the whole once all shards are made; None while some are missing.

        Whoever makes the last shard does so. Two that end together write the same bytes.
        """
        shards = []
        for number in range(self.plan.shards):
            if (entry := manifest.read_shard(self.folder, number)) is None:
                return None
            shards.append(entry)
        files = manifest.hashed(self.folder, self.sink.finish(shards))
        rows = [episode for shard in shards for episode in shard.episodes]
        whole = Whole(
            source=self.plan.source, fingerprint=self.plan.fingerprint, episodes=len(rows),
            chunks=sum(row.chunks for row in rows), files=files,
        )  # fmt: skip
        manifest.write(self.folder / manifest.MANIFEST, whole)
        return self.folder / manifest.MANIFEST


def _sink(name: Sink) -> Callable[[Path, DatasetSpec], ShardSink]:
    if name == "lerobot":
        from worldsim.data.parquet import pyarrow_parquet

        from .lerobot import LeRobot

        pyarrow_parquet()  # an extra: refused before anything is made
        return LeRobot
    return {"native": Native, "webdataset": WebDataset}[name]


def of_world(
    world: str, folder: Path | str, *, episodes: int, shards: int = 1, sink: Sink = "native",
    policy: str = "random", seed: int = 0, time_limit: int | None = None,
    num_steps: int | None = None, rows: int = ROWS, device: str = "cpu", compile: bool = False,
    trust_threshold: float | None = None,
) -> Export:  # fmt: skip
    """The export of dreams; see `worldsim export --help` for what the settings mean.

    world: a bundled name, a world folder or "hf://ORG/NAME".
    Raises WorldError or DatasetError, before anything is dreamt, for what does not fit.
    """
    if not 0 <= seed < 2**63:
        raise unfit("export", "seed", "a whole number from 0 up", seed, "choose another")
    place = folder_of(world)
    loaded = find_world(str(place), device, num_steps, compile, None, rows)
    assert isinstance(loaded, FixedBatch)
    limit = loaded.spec.time_limit if time_limit is None else time_limit
    if limit < 1:
        raise unfit("export", "time_limit", "at least 1 step", limit, "choose another")
    mode, threshold = "report" if trust_threshold is None else "truncate", trust_threshold or 0.5
    acting = "none" if loaded.spec.action.kind == "none" else policy
    source = Dreams(
        loaded, policy_of(acting, loaded), seed, limit,
        TrustPolicy.towards(loaded, mode, threshold, 0.0), acting,
    )  # fmt: skip
    plan = Plan(
        source=loaded.spec.name, fingerprint=read_manifest(place).sha256, episodes=episodes,
        shards=shards, sink=sink, policy=acting, policy_fingerprint=fingerprint(acting), seed=seed,
        time_limit=limit, num_steps=num_steps, rows=rows, device=torch.device(device).type,
        compile=compile, trust_threshold=trust_threshold, packages=installed(),
    )  # fmt: skip
    return Export(source, Path(folder).absolute(), plan)


def of_recordings(
    data: Dataset, folder: Path | str, *, shards: int = 1, sink: Sink = "webdataset"
) -> Export:
    """The export of all episodes of a data set."""
    plan = Plan(
        source=data.spec.name, fingerprint=data.fingerprint(), episodes=len(data), shards=shards,
        sink=sink, packages=installed(),
    )  # fmt: skip
    return Export(Recordings(data), Path(folder).absolute(), plan)


def run(export: Export, *, shard: int | None = None, verify: bool = False) -> Path | None:
    """Make `shard`, or this process's share of all, and finish if that was the last; see
    `own_shards`. The manifest's path, None while others have shards to make.

    verify: also compare the hashes of what is there, and make again what differs.
    On a CPU one thread computes: sums in other orders would be other bytes.
    """
    if export.plan.device in ("", "cpu"):
        torch.set_num_threads(1)
    own = own_shards(export.plan.shards, os.environ) if shard is None else [shard]
    export.make_missing(own, contents=verify)
    return export.finish()
