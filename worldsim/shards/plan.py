"""What a data set made of shards is to hold, and which shards are whose."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from worldsim.config import ConfigError, from_json, parse_json, to_json
from worldsim.data.dataset import DatasetError, unfit
from worldsim.files import clear_leftovers, read_bytes, write_text

KIND = ("worldsim-shards", 1)
PLAN = "plan.json"
MAX_PLAN = 2**16  # bytes
MOST_SHARDS = 10**6
MOST_EPISODES = 10**5  # of a shard
Sink = Literal["native", "lerobot", "webdataset"]
PACKAGES = ("torch", "numpy", "av", "pyarrow", "worldsim")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that a shard's bytes follow from, beside its number.

    Attributes:
        source: name of the world or the data set.
        fingerprint: SHA-256 of it.
        episodes, shards: how many; shard s holds the episodes s * episodes // shards up to
            (s + 1) * episodes // shards.
        sink: format of the data set.
        policy, policy_fingerprint: who acts in dreams; "" for recordings.
        seed, time_limit, num_steps, rows, device, compile, trust_threshold: how dreams are dreamt.
        packages: versions of what computes and encodes, which others may do differently.
    """

    source: str
    fingerprint: str
    episodes: int
    shards: int
    sink: Sink
    policy: str = ""
    policy_fingerprint: str = ""
    seed: int = 0
    time_limit: int = 0
    num_steps: int | None = None
    rows: int = 0
    device: str = ""
    compile: bool = False
    trust_threshold: float | None = None
    packages: tuple[str, ...]

    def __post_init__(self) -> None:
        for name, value in (("episodes", self.episodes), ("shards", self.shards)):
            if type(value) is not int or value < 1:
                raise unfit("export", name, "a whole number from 1 up", value, "choose another")
        if self.shards > min(self.episodes, MOST_SHARDS):
            expected = f"at most one an episode, {self.episodes}, and {MOST_SHARDS}"
            raise unfit("export", "shards", expected, self.shards, "choose fewer")
        if self.episodes > MOST_EPISODES * self.shards:
            expected = f"one for {MOST_EPISODES} episodes at most"
            raise unfit("export", "shards", expected, self.shards, "choose more")

    def numbers(self, shard: int) -> range:
        """Numbers of the episodes of a shard."""
        if not 0 <= shard < self.shards:
            raise unfit("export", "shard", f"0 to {self.shards - 1}", shard, "choose another")
        return range(*(x * self.episodes // self.shards for x in (shard, shard + 1)))


def installed() -> tuple[str, ...]:
    """Versions of the packages that bytes depend on; those that are not installed are left out."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue
    return tuple(found)


def keep_plan(folder: Path, plan: Plan) -> None:
    """Write the plan where there is none yet; DatasetError where the folder holds another one."""
    path = folder / PLAN
    if not path.exists():
        names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        strays = [name for name in names if not name.startswith(f".{PLAN}.")]
        if strays and not path.exists():  # else another process has begun it meanwhile
            raise unfit(folder, "folder", "a new or an empty one", "files in it", "choose another")
        folder.mkdir(parents=True, exist_ok=True)
        clear_leftovers(path)
        write_text(path, json.dumps(_told(plan), indent=1) + "\n")
    there = read_plan(folder)
    for name in (field.name for field in fields(Plan)):
        begun, now = getattr(there, name), getattr(plan, name)
        if begun != now:
            expected, remedy = f"{begun!r}, as it was begun with", "go on with that, or elsewhere"
            raise unfit(path, name, expected, f"{now!r}", remedy)


def read_plan(folder: Path) -> Plan:
    """The plan of a data set that was begun; DatasetError where there is none."""
    path = folder / PLAN
    try:
        raw = parse_json(read_bytes(path, MAX_PLAN), PLAN)
        if not isinstance(raw, dict) or (raw.pop("format", 0), raw.pop("version", 0)) != KIND:
            raise ConfigError(f"another than {KIND}")
        return from_json(Plan, raw, "plan")
    except (OSError, ConfigError) as error:
        got = getattr(error, "strerror", None) or str(error)
        raise DatasetError(f"{path}: expected the plan of shards, got {got}") from error


def _told(plan: Plan) -> dict[str, object]:
    return {"format": KIND[0], "version": KIND[1], **to_json(plan, "plan")}


def own_shards(shards: int, environment: Mapping[str, str]) -> range:
    """The shards of this process: all of them, or its share among those of `torchrun` and Slurm.

    torchrun sets RANK and WORLD_SIZE; a Slurm array SLURM_ARRAY_TASK_ID, _MIN and _COUNT (an array
    with gaps is none of ours). Under both, every task of the array is split among its ranks.
    """
    rank, ranks = (int(environment.get(n, d)) for n, d in (("RANK", 0), ("WORLD_SIZE", 1)))
    task, tasks = 0, 1
    if "SLURM_ARRAY_TASK_ID" in environment:
        least = int(environment.get("SLURM_ARRAY_TASK_MIN", 0))
        task = int(environment["SLURM_ARRAY_TASK_ID"]) - least
        tasks = int(environment.get("SLURM_ARRAY_TASK_COUNT", 1))
    if not (0 <= rank < ranks and 0 <= task < tasks):
        got = f"rank {rank} of {ranks}, array task {task} of {tasks}"
        remedy = "use an array without gaps, or say --shard"
        raise unfit("export", "environment", "a rank and a task below their number", got, remedy)
    return range(task * ranks + rank, shards, tasks * ranks)
