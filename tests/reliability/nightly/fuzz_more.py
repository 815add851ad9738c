"""More files that worldsim reads: of trainings and shards, pictures, tables, what a page sends."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from tests.data.films import noise, write, write_csv
from tests.measured_data import SPEC, stored, stripes, stripes_data
from tests.reliability.nightly.changes import (
    bytes_changed,
    header_changed,
    json_changed,
    lines_changed,
    resealed,
    zip_changed,
)
from tests.reliability.nightly.fuzz_target import Target, plain, whole
from tests.worlds import tiny_world
from worldsim.agents.training import logged_seconds
from worldsim.cli.media import read_media
from worldsim.data.dataset import Caption
from worldsim.data.labelled import LatentLabels
from worldsim.data.latents import _key, _stored_key, latent_cache
from worldsim.data.lerobot_tasks import read_tasks
from worldsim.data.open import open_dataset
from worldsim.envs import EnvState, WorldSimEnv, WorldSimVectorEnv
from worldsim.envs.state import VectorEnvState
from worldsim.files import read_bytes
from worldsim.latent_actions.labels import Labels
from worldsim.models.latent_actions import LatentActionConfig, LatentActionModel
from worldsim.play.messages import TEXT_LIMIT, parse
from worldsim.shards import manifest
from worldsim.shards.plan import PLAN, Plan, keep_plan, read_plan
from worldsim.store.latent_actions import (
    load_labels,
    load_latent_actions,
    save_labels,
    save_latent_actions,
)
from worldsim.store.provenance import training_cost
from worldsim.store.snapshot import load_state, save_state
from worldsim.train.captioner import read_examples
from worldsim.train.loop import FitConfig, Run, _lines_of, _step_of
from worldsim.train.plan import StagePlan
from worldsim.train.sharded import SEAL, _digest, begin_save
from worldsim.train.state import RunState
from worldsim.train.stored import open_checkpoint

FIT = FitConfig(steps=5, bf16=False)
SIZE = (16, 24)  # of pictures
MESSAGE = {"v": 1, "type": "step", "time": 17.5, "keys": ["w"], "action": [0.5], "driver": "keys"}
PICTURES = ("png", "jpeg", "bmp", "webp")
CODECS = {"ts": "mpeg2video", "mpg": "mpeg1video", "flv": "flv", "wmv": "wmv2", "nut": "mpeg4",
          "y4m": "wrapped_avframe", "webm": "libvpx-vp9", "ogv": "libvpx"}  # fmt: skip


def _settings() -> dict[str, Any]:
    return {"stage": "vae", "data": "x", "sizes": [1, 2]}


def _network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))


def checkpoints(root: Path) -> dict[str, Target]:
    """Of a training of one process, and of many."""
    alone, many = root / "alone", root / "many"
    run = Run(alone, _network(), FIT, _settings())
    run.model(torch.ones(2, 3)).sum().backward()
    run.optimizer.step(1e-3)
    run.step = 1
    run.save()
    run.log(loss=0.5)
    many.mkdir()
    tensors: dict[str, Tensor] = {"a": torch.ones(3, 2), "b": torch.tensor(2.0)}
    begin_save(many, 3, _settings(), tensors).result()
    [folder] = many.glob("checkpoint-*")
    [shard] = folder.glob("*.safetensors")
    like = {name: torch.zeros_like(x) for name, x in tensors.items()}

    def again() -> None:
        Run(alone, _network(), FIT, _settings())

    def steps() -> None:  # what a run that goes on looks at before it cuts its log
        list(map(_step_of, _lines_of(alone / "log.jsonl")))

    def sharded() -> None:
        open_checkpoint(folder).read(like)

    def sealed(data: bytes) -> None:
        (folder / SEAL).write_bytes(_sealed(data))

    return {
        "checkpoint": plain(alone / "checkpoint", again, header_changed),
        "training log": plain(alone / "log.jsonl", steps, lines_changed),
        SEAL: plain(folder / SEAL, sharded, json_changed),
        f"{SEAL}, hash put right": Target(folder / SEAL, sharded, sealed, (json_changed,)),
        "shard of a checkpoint": plain(shard, sharded, header_changed),
    }


def _sealed(data: bytes) -> bytes:
    try:
        seal = json.loads(data)
        seal.pop("sha256")
        seal["sha256"] = _digest(seal)
        return json.dumps(seal).encode()
    except Exception:  # what was changed before may be no JSON any more
        return data


def runs(root: Path) -> dict[str, Target]:
    """What a run says of itself."""
    state = RunState(root, _settings())
    state.plan("vae", StagePlan(5, False, 0.1, 60.0))
    log = root / "vae" / "log.jsonl"
    log.parent.mkdir()
    lines = ({"step": i, "time": 10.0 * i, "seconds": 0.1} for i in range(5))
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def told() -> None:
        RunState(root, _settings())
        training_cost(root)
        logged_seconds(log)

    return {
        "run.json": plain(root / "run.json", told, json_changed),
        "log of a stage": plain(log, told, lines_changed),
    }


def latents(root: Path) -> dict[str, Target]:
    """A cache of latents; what is stale is made anew, which is no reading."""
    data = stripes_data(root / "data", train=[stripes(1, 5)]).split("train")
    vae, file = tiny_world().vae, root / "latents.safetensors"
    latent_cache(vae, data, file)
    key = _key(vae, data)

    def read() -> None:
        if _stored_key(file) == key:
            latent_cache(vae, data, file).clips(torch.arange(5)[None])

    return {
        "latents.safetensors": plain(file, read, header_changed),
        "latents.bin": plain(file.with_suffix(".bin"), read),
    }


def latent_actions(root: Path) -> dict[str, Target]:
    """A model of latent actions, and labels."""
    model, labels = root / "model.safetensors", root / "labels.safetensors"
    save_latent_actions(LatentActionModel(LatentActionConfig(chunk=2, size=(8, 8))), model)
    latent = {"a": torch.zeros(4, 6), "b": torch.ones(2, 6)}
    sure = {name: x[:, 0].contiguous() for name, x in latent.items()}
    save_labels(LatentLabels(6, latent, sure), labels)
    table = root / "labels.csv"
    write_csv(table, episode=["a", "b"], chunk=[0, 1], action_0=[0.5, 1.0], action_1=[0.0, -1.0])

    def put(path: Path) -> Callable[[bytes], Any]:
        return lambda data: path.write_bytes(resealed(data))

    changes = (header_changed, bytes_changed)
    return {
        "latent action model": Target(model, partial(load_latent_actions, model), put(model),
                                      changes),
        "latent labels": Target(labels, partial(load_labels, labels), put(labels), changes),
        "labels.csv": plain(table, partial(Labels.read, table)),
    }  # fmt: skip


def snapshots(root: Path) -> dict[str, Target]:
    """Of environments."""
    world = tiny_world()
    env, rows = WorldSimEnv(world), WorldSimVectorEnv(2, world)
    env.reset(seed=0)
    rows.reset(seed=0)
    one = save_state(root / "env", env.get_state(), world)
    many = save_state(root / "rows", rows.get_state(), world)
    return {
        "snapshot of an environment":
            plain(one, lambda: load_state(one, EnvState, world), header_changed),
        "snapshot of a vector environment":
            plain(many, lambda: load_state(many, VectorEnvState, world), header_changed),
    }  # fmt: skip


def shards(root: Path) -> dict[str, Target]:
    """A plan of shards, and the manifest of one."""
    keep_plan(root, Plan(source="x", fingerprint="y", episodes=4, shards=2, sink="native",
                         packages=("torch==1",)))  # fmt: skip
    (root / "a.npz").write_bytes(b"abc")
    files = manifest.hashed(root, [root / "a.npz"])
    episode = manifest.EpisodeEntry(
        name="a", chunks=3, reward=0.5, terminated=False, truncated=True, texts=("left",)
    )
    path = manifest.shard_path(root, 0)
    manifest.write(path, manifest.ShardEntry(shard=0, files=files, episodes=(episode,)))

    def made() -> None:
        entry = manifest.read_shard(root, 0)
        if entry is not None:
            list(manifest.differing(root, entry.files, contents=True))

    return {
        PLAN: plain(root / PLAN, partial(read_plan, root), json_changed),
        "shard-000000.json": plain(path, made, json_changed),
    }


def media(root: Path) -> dict[str, Target]:
    """Pictures and films that a command is given, of many formats."""
    for suffix in PICTURES:
        Image.fromarray(noise(1, 16, 32)[0]).save(root / f"picture.{suffix}")
    for suffix, codec in CODECS.items():
        write(root / f"film.{suffix}", noise(8, 16, 16), fps=25, codec=codec, pix_fmt="yuv420p")

    def formats(name: str, *suffixes: str) -> Target:
        path, *others = (root / f"{name}.{suffix}" for suffix in suffixes)
        target = plain(path, partial(read_media, path, SIZE, 25.0))
        return replace(target, seeds=tuple(other.read_bytes() for other in others))

    return {
        "picture for a command": formats("picture", *PICTURES),
        "film for a command": formats("film", *CODECS),
    }


def words(root: Path) -> dict[str, Target]:
    """Captions, tasks, and messages of the page."""
    data = stripes_data(root / "data")
    table = root / "examples.csv"
    write_csv(table, file=list(data.names), text=["left"] * 3, first=[0, 1, 2], stop=[3, 4, 5])
    folder = root / "set" / "meta"
    folder.mkdir(parents=True)
    tasks = folder / "tasks.jsonl"
    tasks.write_text("".join(json.dumps({"task_index": i, "task": "x"}) + "\n" for i in range(3)))
    message = root / "message.json"
    message.write_text(json.dumps(MESSAGE))

    def page() -> None:
        with suppress(OSError):  # what is in its place is no message
            parse(read_bytes(message, TEXT_LIMIT).decode(errors="replace"))

    return {
        "examples.csv": plain(table, partial(read_examples, table, data)),
        "tasks.jsonl": plain(tasks, partial(read_tasks, folder.parent), lines_changed),
        "message of the page": plain(message, page, json_changed),
    }


def jpegs(root: Path) -> dict[str, Target]:
    """Minari's observations as JPEG pictures."""
    import h5py

    stream = io.BytesIO()
    Image.fromarray(noise(1, 16, 16)[0]).save(stream, "JPEG")
    row = np.frombuffer(stream.getvalue(), np.uint8)
    with h5py.File(root / "main_data.hdf5", "w") as file:
        episode = file.create_group("episode_0")
        episode["observations"] = np.stack([row] * 3)
        for name in ("actions", "rewards", "terminations", "truncations"):
            episode[name] = np.zeros(2, np.int64)
    space = {"type": "Discrete", "n": 2, "start": 0}
    told = {"dataset_id": "a", "action_space": json.dumps(space), "jpeg_encoding": True}
    (root / "metadata.json").write_text(json.dumps(told))
    read = partial(whole, partial(open_dataset, f"minari:{root}", fps=10))
    return {"main_data.hdf5 of JPEGs": plain(root / "main_data.hdf5", read)}


def captioned(root: Path) -> dict[str, Target]:
    """An episode with captions, whose archive holds JSON."""
    said = (Caption(first=0, stop=2, text="left"), Caption(first=1, stop=4, text="right"))
    episode = replace(stripes(3, 5), captions=said)
    data = stored(root, replace(SPEC, has_text=True), train=[episode])
    read = partial(whole, partial(open_dataset, root))
    return {"episode with captions": plain(data.path(0), read, zip_changed)}


MAKERS = (
    checkpoints, runs, latents, latent_actions, snapshots, shards, media, words, jpegs, captioned,
)  # fmt: skip
