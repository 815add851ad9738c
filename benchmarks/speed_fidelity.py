"""What compiled, narrow arithmetic costs in fidelity, for `benchmarks.rollout_speed`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from worldsim.core import row_keys
from worldsim.data import NativeDataset
from worldsim.evaluate.clips import Clips, Recorded, cut_clips, even_starts
from worldsim.evaluate.horizon import curve, dream
from worldsim.metrics import psnr, squared_error
from worldsim.world.compiled import compiled
from worldsim.world.diffusion import DiffusionWorld
from worldsim.world.rollout import dream_frames

HORIZONS = (1, 8, 32)
ROWS = 8


def drift(world: DiffusionWorld, steps: int = 10) -> dict[str, Any]:
    """How far compiled dreams are from float32 ones: PSNR of the frames after `steps`, in dB."""
    fast = compiled(world)
    state = world.reset(row_keys(range(ROWS)).to(world.device))
    space = world.spec.action.space(seed=0)
    drawn = [torch.as_tensor(space.sample()) for _ in range(ROWS * steps)]
    actions = torch.stack(drawn).reshape(ROWS, steps, *world.spec.action.shape).to(world.device)
    a, b = (dream_frames(one, state, actions, decode_every=steps) for one in (world, fast))
    error = squared_error(a, b).mean()
    return {"dtype": fast.dtype, "steps": steps, "psnr": psnr(error).item()}


def errors(world: DiffusionWorld, data: Path, episodes: int = 8) -> dict[str, Any]:
    """PSNR against reality by horizon on validation clips, of float32 and of compiled dreams."""
    recorded, spec, parts = NativeDataset(data).split("val"), world.spec, []
    for place in range(min(episodes, len(recorded))):
        episode = recorded.episode(place)
        length, most = len(episode), max(HORIZONS)
        starts = even_starts(length, spec.context, most, 1)
        whole = Recorded.of(episode, spec.action)
        parts += [cut_clips(whole, place, starts, spec.context, most)]
    clips = Clips.cat([part for part in parts if part is not None])
    found: dict[str, Any] = {"clips": len(clips), "horizons": HORIZONS}
    for name, one in (("float32", world), ("compiled", compiled(world))):
        dreamt = dream(one, clips, clips.actions, ROWS, lambda _: None)
        found[name] = [curve(dreamt.mse)[h - 1] for h in HORIZONS]
    pairs = zip(found["float32"], found["compiled"], strict=True)
    found["largest_gap"] = max(abs(a - b) for a, b in pairs)
    return found
