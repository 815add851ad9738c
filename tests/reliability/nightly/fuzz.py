"""E1: whatever bytes lie in a file that worldsim reads, they are read or refused in our words.

Each reader gets a good file with bits flipped, spans cut, doubled, overwritten or spliced, and, of
JSON, values replaced; also behind a hash that fits, where the format has one. Anything but success
or a typed error is a failure, and so is a case of more than 2 seconds or 256 MiB.
"""

from __future__ import annotations

import json
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from tests.reliability.nightly import bad_data
from tests.reliability.nightly.rows import Outcome, Row, main
from tests.world_folders import forge, fresh
from tests.worlds import tiny_world
from worldsim.agents.actor_critic import ActorCritic, AgentConfig
from worldsim.agents.training import load_agent, save_agent
from worldsim.config import from_json, parse_json
from worldsim.core import WorldError, WorldState, row_keys
from worldsim.data import NativeDataset
from worldsim.store.folder import load
from worldsim.store.manifest import CARD, CONFIG, MANIFEST, STARTS, WEIGHTS
from worldsim.store.snapshot import load_state, save_state
from worldsim.store.tensors import load_tensors, save_tensors
from worldsim.train.checkpoint import read_checkpoint, write_checkpoint
from worldsim.world.diffusion import WorldConfig

SECONDS, MEBIBYTES = 2.0, 256
Draw = random.Random
VALUES = (None, True, -1, 0, 1, 2**31, 2**63, 10**30, -1e308, 0.5, "", "x", "\x1b[2J", [], {}, [[]],
          {"a": 1}, "1" * 5000, [0] * 1000)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A file and what reads it; `put` writes its bytes, hash and all where it has one."""

    path: Path
    read: Callable[[], Any]
    put: Callable[[bytes], Any]


def bytes_changed(data: bytes, draw: Draw) -> bytes:
    """A few changes of a file's bytes."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 5))):
        size = len(out)
        a = draw.randrange(size + 1)
        b = min(size, a + draw.choice((1, 2, 8, 100, size)))
        kind = draw.randrange(6)
        if kind == 0 and a < size:
            out[a] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del out[a:b]
        elif kind == 2:
            out[a:a] = out[a:b]
        elif kind == 3:
            out[a:b] = draw.randbytes(b - a)
        elif kind == 4:
            out[a : a + 8] = draw.choice((0, 1, 2**31 - 1, 2**32, 2**64 - 1)).to_bytes(8, "little")
        else:
            c = draw.randrange(size + 1)
            out[c:c] = data[a:b]
    return bytes(out)


def json_changed(data: bytes, draw: Draw) -> bytes:
    """One value of JSON replaced, taken out or given another name; bytes where it is none."""
    try:
        raw = json.loads(data)
    except ValueError:
        return bytes_changed(data, draw)
    places = list(_places(raw))
    if draw.random() < 0.3 or not places:
        return bytes_changed(data, draw)
    parent, key = draw.choice(places)
    if isinstance(parent, dict) and draw.random() < 0.2:
        parent[draw.choice(("x", "", "__class__", "\x1b[31m"))] = parent.pop(key)
    elif isinstance(parent, dict) and draw.random() < 0.2:
        del parent[key]
    else:
        parent[key] = draw.choice(VALUES)
    return json.dumps(raw, indent=1).encode() + b"\n"


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def header_changed(data: bytes, draw: Draw) -> bytes:
    """JSON within the header of a safetensors file changed, its length put right."""
    length = int.from_bytes(data[:8], "little")
    text = json_changed(data[8 : 8 + length], draw)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def targets(root: Path) -> dict[str, Target]:
    """A good file of every kind."""
    world = tiny_world()
    home, data = fresh(root), root / "data"
    data.mkdir()
    bad_data.dataset(data)
    state = world.reset(row_keys([1]))
    snapshot = save_state(root / "state", state, world)
    save_tensors(root / "tensors", {"a": torch.zeros(3), "b": torch.ones(2, 2)}, {"step": 1})
    write_checkpoint(root / "checkpoint", 3, {"lr": 0.1}, {"w": torch.zeros(4)})
    save_agent(ActorCritic(world.spec, AgentConfig(width=4, hidden=8)), root / "agent")

    def plain(name: str, read: Callable[[], Any]) -> Target:
        return Target(root / name, read, (root / name).write_bytes)

    def forged(name: str) -> Target:
        """A file of the world whose hash in the manifest is put right."""
        good = (home / MANIFEST).read_bytes()

        def put(content: bytes) -> None:
            (home / MANIFEST).write_bytes(good)
            forge(home, name, content, list_tensors=False)

        return Target(home / name, lambda: load(home), put)

    config = root / "config.json"
    config.write_bytes((home / CONFIG).read_bytes())
    episode = f"data/train/{bad_data.NAME}"
    return {
        "config": plain("config.json", lambda: _config(config)),
        "manifest": plain(f"{home.name}/{MANIFEST}", lambda: load(home)),
        **{name: forged(name) for name in (CONFIG, *WEIGHTS, STARTS, CARD)},
        "snapshot": plain(snapshot.name, lambda: load_state(snapshot, WorldState, world)),
        "tensors": plain("tensors", lambda: load_tensors(root / "tensors", finite=True)),
        "checkpoint": plain("checkpoint", lambda: read_checkpoint(root / "checkpoint")),
        "agent weights": plain("agent.safetensors", lambda: load_agent(root / "agent", world.spec)),
        "agent": plain("agent.json", lambda: load_agent(root / "agent", world.spec)),
        "dataset": plain("data/dataset.json", lambda: _read(data)),
        "episode": plain(episode, lambda: _read(data)),
    }


def _config(path: Path) -> WorldConfig:
    return from_json(WorldConfig, parse_json(path.read_bytes(), path.name))


def _read(folder: Path) -> None:
    data = NativeDataset(folder)
    for place in range(len(data)):
        data.episode(place).frames[:]


@contextmanager
def limited(found: list[str]) -> Iterator[None]:
    """Says what took more time or memory than a refusal may."""
    memory, start = _memory(), time.process_time()
    yield
    seconds, grown = time.process_time() - start, _memory() - memory
    if seconds > SECONDS:
        found.append(f"{seconds:.1f} s")
    if grown > MEBIBYTES:
        found.append(f"{grown:.0f} MiB")


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def attempt(target: Target, good: bytes, draw: Draw) -> list[str]:
    """One changed file, read: what was wrong with that."""
    json_like = target.path.suffix == ".json"
    kinds = [json_changed] if json_like else [bytes_changed]
    if good[8:9] == b"{":
        kinds.append(header_changed)
    data, wrong = draw.choice(kinds)(good, draw), []
    try:
        target.put(data)
        with limited(wrong):
            target.read()
    except WorldError as error:
        text = str(error)
        wrong += [] if text.isprintable() and len(text) < 4000 else [f"unprintable: {text!r:.200}"]
    except Exception as error:
        wrong.append(f"untyped: {error!r:.300}")
    finally:
        target.put(good)
    return wrong


def fuzzed(count: int) -> Outcome:
    """`count` CPU-seconds for every kind of file."""
    failures, figures = [], {}
    with tempfile.TemporaryDirectory() as name:
        os.makedirs(Path(name) / "root")
        for kind, target in tqdm(targets(Path(name) / "root").items(), desc="files", leave=False):
            good, draw, tried = target.path.read_bytes(), random.Random(kind), 0
            end = time.process_time() + count
            while time.process_time() < end:
                wrong = attempt(target, good, draw)
                failures += [f"{kind}, case {tried}: {x}" for x in wrong]
                tried += 1
            target.read()
            figures[kind] = tried
    return Outcome(failures=failures, figures=figures)


ROWS = (
    Row(name="E1", promise="changed bytes in any file that is read: read or refused, typed, small",
        unit="CPU-seconds a reader", ci=0, full=1800, attempt=fuzzed),
)  # fmt: skip

if __name__ == "__main__":
    main(ROWS)
