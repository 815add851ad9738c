"""The rows of `benchmarks.scale_out` but training's; each prints its figures as a line of JSON."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from tqdm import tqdm

import worldsim
from worldsim.core import WorldError
from worldsim.shards.export import Export, of_world, run
from worldsim.store.folder import folder_of
from worldsim.store.manifest import LIMITS

from .hub_server import Hub, serve
from .parts import lacking, tell

WORLD = "pendulum"
EPISODES, SHARDS = 32, 4  # a shard is one batch of dreams
SINKS = ("native", "lerobot", "webdataset")


# --- rollouts ---


def collector(quick: bool) -> dict[str, Any]:
    """TorchRL's distributed collector, two processes, against one process with the same keys."""
    from worldsim.examples.torchrl_distributed import main

    return main(WORLD, workers=2, steps=1024 if quick else 4096, batch=512)


def rllib(quick: bool) -> dict[str, Any]:
    """RLlib's PPO for 20 iterations: whether the return rises."""
    if find_spec("ray") is None:
        lacking("ray: pip install 'ray[rllib]', and name its interpreter by --ray-python")
    import gymnasium

    from worldsim.examples.rllib_ppo import main

    returns = main(WORLD, iterations=2 if quick else 20)
    first, last = mean(returns[:5]), mean(returns[-5:])
    figures = {"iterations": len(returns), "first_5": first, "last_5": last, "rises": last > first}
    return figures | {"gymnasium": gymnasium.__version__, "returns": returns}


# --- data sets ---


def export_to(folder: Path, sink: str) -> Export:
    """The same dreams in each format."""
    return of_world(WORLD, folder, episodes=EPISODES, shards=SHARDS, sink=sink, time_limit=20)  # type: ignore[arg-type]


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, leftovers of the killed included."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): sha256(p.read_bytes()).hexdigest() for p in files}


def shards(quick: bool) -> dict[str, Any]:
    """Shards by one process, by four, and by processes that are killed: equal files, each once."""
    tqdm.set_lock(threading.RLock())  # its own is shared by forks, and dies with one that holds it
    tqdm.monitor_interval = 0
    kills = 3 if quick else 25
    figures: dict[str, Any] = {"episodes": EPISODES, "shards": SHARDS, "kills": 0}
    equal = True
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for sink in SINKS:
            whole = export_to(root / sink, sink)
            run(whole)
            named = [e.name for s in range(SHARDS) for e in (whole.made(s) or _none()).episodes]
            assert len(set(named)) == len(named) == EPISODES
            found = {"four": _by_ranks(root / f"{sink}-4", sink, 4)}
            killed, found["killed"] = _killed(root / f"{sink}-killed", sink, kills)
            figures["kills"] += killed
            figures[sink] = {how: got == hashes(whole.folder) for how, got in found.items()}
            figures[sink] |= {"files": len(hashes(whole.folder))}
            equal &= all(got == hashes(whole.folder) for got in found.values())
        figures["torchrun"] = _torchrun(root / "torchrun") == hashes(root / "webdataset")
    return {"equal": equal and figures["torchrun"], **figures}


def _none() -> Any:
    raise WorldError("a shard is missing")


def _by_ranks(folder: Path, sink: str, ranks: int) -> dict[str, str]:
    """Made by as many processes at once, with torchrun's variables."""
    children = [_fork(folder, sink, rank, ranks) for rank in range(ranks)]
    for child in children:
        _, status = os.waitpid(child, 0)
        assert status == 0, f"a rank ended with {status}"
    return hashes(folder)


def _killed(folder: Path, sink: str, kills: int) -> tuple[int, dict[str, str]]:
    """Begun again and again, and killed at a random moment, until it has ended by itself.

    A last shard that dies each time would never be made, so after `kills` it is left alone.
    """
    rng, count = random.Random(sink), 0
    while True:
        child, begun, limit = _fork(folder, sink, 0, 1), time.monotonic(), rng.expovariate(1.0)
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            if count < kills and time.monotonic() - begun > limit:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                count += 1
                break
            time.sleep(0.005)
        else:
            assert ended[1] == 0
            if count >= kills:
                return count, hashes(folder)
            _spoil(folder)  # it was whole too soon: kill its remaking as well


def _spoil(folder: Path) -> None:
    """Take a shard's file away, and the manifest that speaks of all."""
    (folder / "shards.json").unlink()
    shard = sorted((folder / "shards").glob("shard-*.json"))[-1]
    shard.unlink()


def _fork(folder: Path, sink: str, rank: int, ranks: int) -> int:
    """A process of its own that makes its share; forked, since importing torch takes seconds."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        run(export_to(folder, sink))
        status = 0
    finally:
        os._exit(status)


def _command(*program: str) -> list[str]:
    return [sys.executable, *program, "export", WORLD, "--episodes", str(EPISODES), "--shards",
            str(SHARDS), "--time-limit", "20", "--format", "webdataset"]  # fmt: skip


def _torchrun(folder: Path) -> dict[str, str]:
    """By the command, under torchrun with four processes."""
    ranks = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4", "-m", "worldsim")
    subprocess.run([*_command(*ranks), "--out", str(folder)], check=True, capture_output=True)
    return hashes(folder)


def shards_ray(quick: bool) -> dict[str, Any]:
    """Shards by actors of Ray Data against one process."""
    if find_spec("ray") is None:
        lacking("ray: pip install 'ray[data]', and name its interpreter by --ray-python")
    from worldsim.examples.ray_export import main

    with tempfile.TemporaryDirectory() as place:
        one, ray = Path(place) / "one", Path(place) / "ray"
        main(WORLD, ray, EPISODES, SHARDS, actors=2, time_limit=20)
        run(export_to(one, "native"))
        return {"equal": hashes(ray) == hashes(one), "files": len(hashes(one))}


# --- the hub ---


def hub(quick: bool) -> dict[str, Any]:
    """A round trip through a hub on this machine; every file changed by a bit, here and there."""
    if find_spec("huggingface_hub") is None:
        lacking("huggingface_hub: pip install 'worldsim[hub]'")
    with serve() as served, tempfile.TemporaryDirectory() as place:
        # before huggingface_hub is imported: it reads them once
        os.environ.update(HF_ENDPOINT=served.address, HF_HOME=place, HF_TOKEN="hf_loopback",
                          HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_PROGRESS_BARS="1")  # fmt: skip
        address = worldsim.push(WORLD, "lab/world")
        folder = folder_of(address)
        sent, came = hashes(folder_of(WORLD)), hashes(folder)
        key = torch.tensor([[3, 1]])
        states = [worldsim.load(name).reset(key).latents for name in (WORLD, "hf://lab/world")]
        names = sorted(sent)
        return {
            "equal": sent == came and torch.equal(*states),
            "files": len(names),
            "refused_in_cache": sum(_refused(name, address, folder / name) for name in names),
            "refused_from_hub": sum(_refused_from_hub(name, served, place) for name in names),
            "requests": len(served.asked),
        }


def _refused(name: str, address: str, path: Path) -> bool:
    """Whether a world is refused by the name of a file of which a bit has changed."""
    data = path.read_bytes()
    path.write_bytes(_flipped(data))
    try:
        return _refuses(name, address)
    finally:
        path.write_bytes(data)


def _refused_from_hub(name: str, served: Hub, place: str) -> bool:
    """The same where the hub serves the changed file, to a cache that has none."""
    from huggingface_hub import constants

    entry = (served.files("lab/world") or {})[name]
    data = served.objects[entry]
    served.objects[entry] = _flipped(data)
    constants.HF_HUB_CACHE = str(Path(place) / f"cache-{name}")
    try:
        return _refuses(name, "hf://lab/world")
    finally:
        served.objects[entry] = data


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _refuses(name: str, address: str) -> bool:
    assert name in LIMITS
    try:
        worldsim.load(address)
    except worldsim.WorldError as error:
        return name in str(error)
    return False


ROWS: dict[str, Callable[[bool], dict[str, Any]]] = {
    "collector": collector, "rllib": rllib, "shards": shards, "shards-ray": shards_ray, "hub": hub,
}  # fmt: skip

if __name__ == "__main__":
    tell(ROWS[sys.argv[1]]("--quick" in sys.argv))
