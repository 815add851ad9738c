"""Every file that worldsim reads: a good one, what reads it, and how its bytes are changed."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from tests.data.films import noise, write
from tests.data.test_lerobot import write_v2, write_v3
from tests.reliability.nightly import bad_data
from tests.reliability.nightly.changes import (
    Change,
    bytes_changed,
    header_changed,
    json_changed,
    lines_changed,
    resealed,
    zip_changed,
)
from tests.reliability.nightly.fuzz_more import MAKERS
from tests.reliability.nightly.fuzz_target import Target, plain, whole
from tests.world_folders import forge, fresh
from tests.worlds import tiny_world
from worldsim.agents.actor_critic import ActorCritic, AgentConfig
from worldsim.agents.training import load_agent, save_agent
from worldsim.config import from_json, parse_json, read_json, read_json_lines
from worldsim.core import WorldState, row_keys
from worldsim.data import NativeDataset
from worldsim.data.open import open_dataset
from worldsim.data.tables import read_tables
from worldsim.evaluate.describe import describe
from worldsim.models.dynamics import Dynamics
from worldsim.models.latent_actions import LatentActionConfig, LatentActionModel
from worldsim.store.folder import load, save
from worldsim.store.manifest import CARD, CONFIG, LATENT_ACTIONS, MANIFEST, STARTS, TRUST
from worldsim.store.snapshot import load_state, save_state
from worldsim.store.tensors import load_tensors, save_tensors
from worldsim.world.diffusion import DiffusionWorld, WorldConfig
from worldsim.world.uncertainty import Trust

LEARNED = (TRUST, LATENT_ACTIONS)  # beside the networks, which are read in one way
CODECS = {"mp4": ("libx264", "yuv420p"), "mkv": ("ffv1", "bgr0"), "avi": ("mpeg4", "yuv420p"),
          "gif": ("gif", "rgb8")}  # fmt: skip
A_CARD = {
    "lines": [{"figure": "x", "value": 1.0, "unit": "dB", "goal": 0, "most": False, "above": False,
               "interval": [0, 2], "passed": True, "note": ""}],
    "figures": {},
}  # fmt: skip
CSV = b"action_0,action_1,reward,text\n" + b"0.5,-1,0.25,left\n" * 6


def targets(root: Path) -> dict[str, Target]:
    """A good file of every kind, below `root`."""
    makers = (_worlds, _states, _agents, _recordings, _films, _minari, _lerobot, _tables, _logs)
    found: dict[str, Target] = {}
    for make in (*makers, *MAKERS):
        place = root / f"{make.__module__.rpartition('.')[2]}-{make.__name__.strip('_')}"
        place.mkdir(parents=True)
        found |= make(place)
    return found


def _worlds(root: Path) -> dict[str, Target]:
    home = fresh(root)
    world = _inferring(load(home))
    trust = Trust(world.spec, 8)
    save(world.with_trust(trust), home, card=A_CARD, overwrite=True)
    good = (home / MANIFEST).read_bytes()

    def forged(name: str, *changes: Change) -> Target:
        """A file of the world whose hash in the manifest is put right."""

        def put(content: bytes) -> None:
            (home / MANIFEST).write_bytes(good)
            forge(home, name, content, list_tensors=False)

        return Target(home / name, partial(_card_too, home), put, (*changes, bytes_changed))

    config = root / "config.json"
    config.write_bytes((home / CONFIG).read_bytes())
    return {
        "world config": plain(config, lambda: _config(config), json_changed),
        MANIFEST: plain(home / MANIFEST, lambda: load(home), json_changed),
        CONFIG: forged(CONFIG, json_changed),
        CARD: forged(CARD, json_changed),
        STARTS: forged(STARTS, zip_changed),
        **{name: forged(name, header_changed) for name in ("dit.safetensors", *LEARNED)},
    }


def _inferring(world: DiffusionWorld) -> DiffusionWorld:
    """A world that tells actions from video."""
    model = LatentActionConfig(chunk=world.spec.chunk, size=(8, 8), dim=2)
    conditioning = replace(world.config.conditioning, latent_action=2)
    config = replace(world.config, conditioning=conditioning, latent_actions=model)
    dynamics = Dynamics(config.dit, config.heads, config.vae.channels, conditioning)
    parts = world.vae, dynamics, world.starts
    return DiffusionWorld(config, *parts, latent_actions=LatentActionModel(model))


def _card_too(home: Path) -> None:
    world = load(home)
    if world.card:
        describe(world.card)


def _config(path: Path) -> WorldConfig:
    return from_json(WorldConfig, parse_json(path.read_bytes(), path.name))


def _states(root: Path) -> dict[str, Target]:
    world = tiny_world()
    snapshot = save_state(root / "state", world.reset(row_keys([1])), world)
    tensors = root / "tensors"
    save_tensors(tensors, {"a": torch.zeros(3), "b": torch.ones(2, 2)}, {"step": 1})
    read = partial(load_tensors, tensors, finite=True)
    sealed = Target(tensors, read, lambda data: tensors.write_bytes(resealed(data)),
                    (header_changed, bytes_changed))  # fmt: skip
    return {
        "snapshot": plain(snapshot, lambda: load_state(snapshot, WorldState, world),
                          header_changed),
        "tensors": plain(tensors, read, header_changed),
        "tensors, hash put right": sealed,
    }  # fmt: skip


def _agents(root: Path) -> dict[str, Target]:
    spec, path = tiny_world().spec, root / "agent"
    save_agent(ActorCritic(spec, AgentConfig(width=4, hidden=8)), path)
    read = partial(load_agent, path, spec)
    return {
        "agent.json": plain(root / "agent.json", read, json_changed),
        "agent.safetensors": plain(root / "agent.safetensors", read, header_changed),
    }


def _recordings(root: Path) -> dict[str, Target]:
    data = root / "data"
    data.mkdir()
    bad_data.dataset(data)
    read = partial(whole, lambda: NativeDataset(data))
    return {
        "dataset.json": plain(data / "dataset.json", read, json_changed),
        "episode.npz": plain(data / "train" / bad_data.NAME, read, zip_changed),
    }


def _films(root: Path) -> dict[str, Target]:
    films, table = root / "films", root / "table"
    for suffix, (codec, kind) in CODECS.items():
        write(root / f"film.{suffix}", noise(12, 16, 16), fps=10, codec=codec, pix_fmt=kind)
    first, *others = ((root / f"film.{suffix}").read_bytes() for suffix in CODECS)
    films.mkdir()
    (films / "film.mp4").write_bytes(first)
    read = partial(whole, partial(open_dataset, films))
    film = replace(plain(films / "film.mp4", read), seeds=tuple(others))
    table.mkdir()
    write(table / "film.mkv", noise(6, 16, 16), fps=10)
    (table / "film.csv").write_bytes(CSV)
    read = partial(whole, partial(open_dataset, table))
    return {"film of a dataset": film, "film.csv": plain(table / "film.csv", read)}


def _minari(root: Path) -> dict[str, Target]:
    import h5py

    with h5py.File(root / "main_data.hdf5", "w") as file:
        for i in range(2):
            group = file.create_group(f"episode_{i}")
            group.create_dataset("observations/image", data=noise(5, 16, 16), compression=4)
            group["observations/vector"] = np.zeros((5, 2), np.float32)
            for name in ("actions", "rewards", "terminations", "truncations"):
                group[name] = np.zeros(4, np.int64)
    space = {"type": "Discrete", "n": 2, "start": 0}
    told = {"dataset_id": "a/b-v0", "action_space": json.dumps(space), "jpeg_encoding": False}
    (root / "metadata.json").write_text(json.dumps(told))
    read = partial(whole, partial(open_dataset, f"minari:{root}", fps=10))
    return {
        "main_data.hdf5": plain(root / "main_data.hdf5", read),
        "metadata.json": plain(root / "metadata.json", read, json_changed),
    }


def _lerobot(root: Path) -> dict[str, Target]:
    three, two = write_v3(root / "three"), write_v2(root / "two")
    open_three = partial(whole, partial(open_dataset, three, camera="top"))
    open_two = partial(whole, partial(open_dataset, two, camera="top"))
    first = {
        name: next(islice(sorted((three / folder).rglob("*.parquet")), 1))
        for name, folder in (("data.parquet", "data"), ("episodes.parquet", "meta/episodes"))
    }
    return {
        "info.json, v3": plain(three / "meta" / "info.json", open_three, json_changed),
        "info.json, v2": plain(two / "meta" / "info.json", open_two, json_changed),
        "episodes.jsonl": plain(two / "meta" / "episodes.jsonl", open_two, lines_changed),
        **{name: plain(path, open_three) for name, path in first.items()},
    }


def _tables(root: Path) -> dict[str, Target]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = root / "actions.csv"
    path.write_bytes(CSV)
    packed = root / "actions.parquet"
    pq.write_table(pa.table({"action": [[0.5, 1.0]] * 6, "text": ["left"] * 6}), packed)
    return {
        "actions.csv": plain(path, lambda: read_tables(path)),
        "actions.parquet": plain(packed, lambda: read_tables(packed)),
    }


def _logs(root: Path) -> dict[str, Target]:
    path = root / "log.jsonl"
    path.write_text("".join(json.dumps({"step": i, "seconds": 0.1}) + "\n" for i in range(5)))
    figures = root / "figures.json"
    figures.write_text(json.dumps({"policies": {"a": [1.0, 2.0]}, "x": None}))
    return {
        "log.jsonl": plain(path, lambda: list(read_json_lines(path)), lines_changed),
        "figures.json": plain(figures, lambda: read_json(figures), json_changed),
    }
