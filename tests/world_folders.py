"""World folders for tests: a tiny world, and the means to harm its folder."""

import io
import json
import os
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from worldsim.core import ActionSpec, WorldSpec
from worldsim.models.conditioning import ConditioningConfig
from worldsim.models.dit import DiTConfig
from worldsim.models.dynamics import Dynamics
from worldsim.models.heads import HeadsConfig
from worldsim.models.vae import SpacetimeVAE, VAEConfig
from worldsim.store.folder import load, save
from worldsim.store.manifest import CONFIG, MANIFEST, WEIGHTS, WorldFolderError
from worldsim.store.manifest import read_manifest as read
from worldsim.store.networks import header
from worldsim.world.diffusion import DiffusionWorld, Sampling, Starts, WorldConfig

CARD = {"psnr": 33.5, "command": "python -m benchmarks.fidelity", "horizons": [1, 8]}
STEERING = ActionSpec(kind="continuous", low=(-1.0, 0.0), high=(1.0, 1.0))


def tiny_world(seed: int = 0, action: ActionSpec = STEERING) -> DiffusionWorld:
    spec = WorldSpec(
        name=f"tiny{seed}",
        frame_shape=(16, 24, 3),
        chunk=2,
        context=3,
        latent_shape=(2, 3, 4),
        action=action,
        fps=12.5,
        time_limit=50,
    )
    config = WorldConfig(
        spec=spec,
        vae=VAEConfig(chunk=2, channels=4, widths=(8, 16), blocks=(1, 1)),
        dit=DiTConfig(dim=16, depth=2, heads=2, kv_heads=1, patch=(1, 1)),
        heads=HeadsConfig(hidden=8, bins=5),
        conditioning=ConditioningConfig(action=action),
        sampling=Sampling(method="euler", num_steps=2),
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        vae = SpacetimeVAE(config.vae)
        dynamics = Dynamics(config.dit, config.heads, 4, config.conditioning)
        vae.std.uniform_(0.5, 2)
        frames = torch.randint(0, 256, (4, 6, 16, 24, 3), dtype=torch.uint8)
        actions = torch.rand(4, 3, *action.shape).to(action.dtype)
    known = torch.ones(4, 3, dtype=torch.bool)
    known[0, 0] = False
    return DiffusionWorld(config, vae, dynamics, Starts(frames, actions, known))


def tensors(world: DiffusionWorld) -> dict[str, torch.Tensor]:
    parts = {"vae": world.vae, "dynamics": world.dynamics}
    state = {f"{n}.{k}": v for n, part in parts.items() for k, v in part.state_dict().items()}
    return state | {k: v for k, v in vars(world.starts).items() if v is not None}


def same(a: DiffusionWorld, b: DiffusionWorld) -> bool:
    x, y = tensors(a), tensors(b)
    return a.config == b.config and x.keys() == y.keys() and all(x[k].equal(y[k]) for k in x)


def fresh(tmp_path: Path) -> Path:
    """A whole world folder, to harm."""
    return save(tiny_world(), tmp_path / "world", card=CARD)


def refused(folder: Path, *words: str) -> WorldFolderError:
    """Loading raises the typed error with these words, fast and in little memory."""
    memory, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(WorldFolderError) as caught:
        load(folder)
    assert time.process_time() - start < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 256 * 1024  # KiB
    text = str(caught.value)
    assert all(word in text for word in words) and len(text) < 2000, text
    assert caught.value.remedy and str(folder.parent) in caught.value.file
    return caught.value


def forge(folder: Path, name: str, data: bytes, *, list_tensors: bool = True) -> None:
    """Replace a file and put its hash, size and tensors into the manifest, as a forger would."""
    (folder / name).write_bytes(data)
    manifest, found = read(folder), {}
    if name in WEIGHTS and list_tensors:
        found = {"tensors": tuple(header(Path(name), io.BytesIO(data)).values())}
    entry: dict[str, Any] = {"bytes": len(data), "sha256": sha256(data).hexdigest(), **found}
    files = tuple(replace(f, **entry) if f.name == name else f for f in manifest.files)
    (folder / MANIFEST).write_bytes(replace(manifest, files=files).sealed().dump())


def forge_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    raw = json.loads((folder / MANIFEST).read_text())
    change(raw)
    (folder / MANIFEST).write_text(json.dumps(raw, indent=1) + "\n")


def forge_config(folder: Path, path: str, value: Any) -> None:
    raw = json.loads((folder / CONFIG).read_text())
    *parents, key = path.split(".")
    part = raw
    for name in parents:
        part = part[name]
    part[key] = value
    forge(folder, CONFIG, json.dumps(raw).encode())


def forge_weights(
    folder: Path, name: str, change: Callable[[dict[str, torch.Tensor]], Any]
) -> None:
    state = safetensors.torch.load((folder / name).read_bytes())
    change(state)
    forge(folder, name, safetensors.torch.save(state))


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("ran",))
