"""Snapshots: what comes back, what is refused, what is warned of."""

import json
import os
import pickle
import re
import resource
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from tests.contracts import assert_same
from tests.worlds import tiny_world, with_doubts
from worldsim import SnapshotError, SnapshotWarning, load_state, save_state
from worldsim.core import WorldError, WorldModel, WorldState, row_keys
from worldsim.envs import EnvState, VectorEnvState, WorldSimEnv, WorldSimVectorEnv
from worldsim.nn.tables import Tables
from worldsim.store import snapshot
from worldsim.store.snapshot import dump, parse, world_hash
from worldsim.world.compiled import compiled
from worldsim.world.diffusion import DiffusionWorld
from worldsim.world.fixed_batch import FixedBatch
from worldsim.world.point import PointWorld

WORLD = tiny_world()


def some_state(world: WorldModel = WORLD) -> WorldState:
    state, _ = world.step(
        world.reset(row_keys([3, 2**40])), torch.zeros(2, *world.spec.action.shape)
    )
    return state


def test_a_state_comes_back_whole(tmp_path: Path) -> None:
    path = save_state(tmp_path / "state.safetensors", some_state(), WORLD)
    again = load_state(path, WorldState, WORLD)
    assert_same(again, some_state())
    assert dump(again, WORLD) == path.read_bytes() == dump(some_state(), WORLD)
    assert os.listdir(tmp_path) == ["state.safetensors"]


def test_an_environment_comes_back_whole(tmp_path: Path) -> None:
    world: Any = PointWorld(size=16, noise=0.2, time_limit=3)
    single, rows = WorldSimEnv(world), WorldSimVectorEnv(2, world, autoreset_mode="NEXT_STEP")
    for env, kind in ((single, EnvState), (rows, VectorEnvState)):
        env.reset(seed=1)
        for _ in range(3):  # an end that waits for its reset
            env.step(np.zeros(env.action_space.shape, np.float32))
        saved = env.get_state()
        again = load_state(save_state(tmp_path / "env", saved, world), kind, world)
        assert dump(again, world) == dump(saved, world)
    told = load_state(tmp_path / "env", VectorEnvState, world)
    assert told.due.tolist() == [True, True] and told.frames is not None
    assert told.rng == rows.get_state().rng


def test_the_header_says_what_the_bits_hang_on() -> None:
    told = header(dump(some_state(), WORLD))
    assert told["torch"] == torch.__version__ and told["threads"] == torch.get_num_threads()
    assert told["device"].startswith("cpu ") and told["dtype"] == "float32"
    assert told["world"] == "tiny" and told["world_hash"] == world_hash(WORLD)
    assert told["micro_batch"] is None
    assert header(dump(some_state(), FixedBatch(WORLD, 5)))["micro_batch"] == 5


def header(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    text = json.loads(data[8 : 8 + length])["__metadata__"]["snapshot"]
    return json.loads(text)["header"]


def test_worlds_have_hashes_of_their_own() -> None:
    moved, another = tiny_world(), tiny_world(steps=2)
    others = [moved, another, *(with_doubts(tiny_world(), seed) for seed in (0, 1))]
    with torch.no_grad():
        moved.dynamics.heads.cont.bias += 1e-6
    restarted = tiny_world()
    restarted.starts.frames[0, 0, 0, 0, 0] += 1
    points = [PointWorld(noise=n) for n in (0.0, 0.1)]
    hashes = [world_hash(w) for w in (WORLD, *others, restarted, *points)]
    assert len(set(hashes)) == 8
    assert world_hash(tiny_world()) == hashes[0] == world_hash(FixedBatch(WORLD, 2))


# --- What is refused ------------------------------------------------------------------------------


def forged(change: Callable[[dict[str, Any]], None]) -> bytes:
    """Another header over the same tensors."""
    data = dump(some_state(), WORLD)
    length = int.from_bytes(data[:8], "little")
    both = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["snapshot"])
    change(both)
    tensors = safetensors.torch.load(data)
    return safetensors.torch.save(tensors, metadata={"snapshot": json.dumps(both)})


def flipped(at: int) -> bytes:
    data = bytearray(dump(some_state(), WORLD))
    data[at] ^= 1
    return bytes(data)


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "header"),
    "text": (lambda: b"not a snapshot at all", "header"),
    "a pickle": (lambda: pickle.dumps({"latents": [1, 2]}), "header"),
    "truncated": (lambda: dump(some_state(), WORLD)[:-5], "tensors"),
    "longer": (lambda: dump(some_state(), WORLD) + b"x", "tensors"),
    "a bit of a tensor": (lambda: flipped(-3), "sha256"),
    "a world's weights": (
        lambda: safetensors.torch.save({"latents": torch.zeros(2)}, {"format": "pt"}),
        "header",
    ),
    "a schema without doubt": (lambda: forged(lambda b: b["header"].update(schema=1)), "header"),
    "an unknown key": (lambda: forged(lambda b: b["header"].update(code="x")), "header"),
    "another kind": (lambda: forged(lambda b: b["header"].update(kind="EnvState")), "kind"),
    "another age": (lambda: forged(lambda b: b["plain"].update(age=0)), "sha256"),
    "another thread count": (lambda: forged(lambda b: b["header"].update(threads=9)), "sha256"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_snapshot_is_refused(name: str) -> None:
    make, field = BAD[name]
    with pytest.raises(SnapshotError, match=rf"snapshot: {field}: expected .* got .*; ") as caught:
        parse(make(), WorldState, WORLD)
    assert caught.value.remedy and len(str(caught.value)) < 1000
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_flipped_bits_are_found() -> None:
    """Every one of many, wherever it lies; safetensors alone would load nearly all of them."""
    size, rng = len(dump(some_state(), WORLD)), np.random.default_rng(0)
    for at in rng.integers(size, size=60):
        with pytest.raises(SnapshotError):
            parse(flipped(int(at)), WorldState, WORLD)


def test_another_world_is_refused() -> None:
    other = tiny_world()
    with torch.no_grad():
        other.vae.std += 0.1
    with pytest.raises(SnapshotError, match="world_hash: expected .* load the one it was saved"):
        parse(dump(some_state(), WORLD), WorldState, other)
    with pytest.raises(SnapshotError, match="world: expected point-world, got tiny"):
        parse(dump(some_state(), WORLD), WorldState, PointWorld())


def test_a_state_that_is_none_of_the_worlds_is_refused() -> None:
    for wrong in (
        replace(some_state(), latents=some_state().latents[..., :-1]),
        replace(some_state(), age=some_state().age.int()),
        replace(some_state(), filled=some_state().filled + 9),
        replace(some_state(), key=some_state().key[:1]),
        replace(some_state(), uncertainty=torch.zeros(len(some_state()), 3, 7)),
    ):
        with pytest.raises(WorldError, match="saved: expected"):
            parse(dump(wrong, WORLD), WorldState, WORLD)


# --- What is warned of ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field",
    ["worldsim", "torch", "device", "dtype", "compiled", "numerics", "threads", "micro_batch"],
)
def test_what_costs_the_last_bits_is_warned_of(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, value = (
        snapshot._header,
        {"threads": 99, "micro_batch": 99, "compiled": True}.get(field, "x"),
    )
    monkeypatch.setattr(snapshot, "_header", lambda *a: replace(made(*a), **{field: value}))
    data = dump(some_state(), WORLD)
    monkeypatch.undo()
    with pytest.warns(SnapshotWarning, match=re.escape(f"'{field}'") + ".*not bit-equal"):
        assert_same(parse(data, WorldState, WORLD), some_state())
    with pytest.raises(SnapshotError, match=f"{field}: expected .* strict=False"):
        parse(data, WorldState, WORLD, strict=True)


def test_settings_of_the_process_are_compared() -> None:
    """Each of them changes how sums are rounded, so a strict restore refuses another."""
    data = dump(some_state(), WORLD)
    fast = compiled(tiny_world(), dtype="bfloat16")
    assert world_hash(fast) == world_hash(WORLD)
    with pytest.raises(SnapshotError, match="dtype, compiled: expected .*bfloat16"):
        parse(data, WorldState, fast, strict=True)
    for change, words in (
        (lambda: torch.autocast("cpu", torch.bfloat16), "autocast bfloat16"),
        (lambda: torch.backends.mkldnn.flags(enabled=False), "mkldnn False"),
        (default_float64, "default dtype float64"),
    ):
        with change(), pytest.raises(SnapshotError, match=f"numerics: expected .*{words}"):
            parse(data, WorldState, WORLD, strict=True)


@contextmanager
def default_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_default_dtype_in_force_at_first_use_leaves_no_trace() -> None:
    with default_float64():
        world = DiffusionWorld(*(getattr(WORLD, n) for n in ("config", "vae", "dynamics")),
                               WORLD.starts)  # fmt: skip
        world = deepcopy(world)
        for module in world.dynamics.modules():
            if isinstance(module, Tables):
                module._names.clear()  # as if nobody had used it yet
        state = some_state(world)
    assert_same(state, some_state())
    assert_same(some_state(world), some_state())


def test_weights_are_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world, fed = tiny_world(), []
    feed = snapshot._feed
    monkeypatch.setattr(snapshot, "_feed", lambda s, t: (fed.append(len(t)), feed(s, t)))
    first = world_hash(world)
    count = len(fed)
    assert count > 10 and world_hash(world) == first and len(fed) == count
    with torch.no_grad():
        world.dynamics.heads.reward.bias += 1
    assert world_hash(world) != first and len(fed) == count + 1


def test_a_path_that_is_no_snapshot_is_refused_unread(tmp_path: Path) -> None:
    sparse, pipe = tmp_path / "sparse", tmp_path / "pipe"
    os.mkfifo(pipe)
    for content in (b"", dump(some_state(), WORLD)):
        with sparse.open("wb") as file:
            file.write(content)
            file.truncate(3 * 2**30)
        for path in (sparse, pipe, Path("/dev/zero"), tmp_path):
            start, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            with pytest.raises(SnapshotError):
                load_state(path, WorldState, WORLD)
            assert time.process_time() - start < 2
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
            assert grown < 256 * 1024  # KiB


def test_at_home_nothing_is_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parse(dump(some_state(), WORLD), WorldState, WORLD, strict=True)


# --- Saving ---------------------------------------------------------------------------------------


def test_a_save_that_fails_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_state(tmp_path / "state", some_state(), WORLD)
    before, synced = path.read_bytes(), os.fsync

    def full(handle: int) -> None:
        synced(handle)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_state(path, some_state()[:1], WORLD)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["state"]
