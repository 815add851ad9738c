"""How fast a world steps here: a line of the card, and what a plan is fitted to time by."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from worldsim.core import row_keys
from worldsim.world.diffusion import DiffusionWorld

SECONDS = 0.5  # of steps at a batch, at most
STEPS = 10


@torch.no_grad()
def measure_speed(world: DiffusionWorld, batches: Sequence[int]) -> list[dict[str, Any]]:
    """Env steps a second with pixels, by batch: the fastest of up to ten steps after a first."""
    rows = []
    for batch in batches:
        state = world.reset(row_keys(range(batch)))
        spec = world.spec.action
        action = torch.full((batch, *spec.shape), spec.least, dtype=spec.dtype, device=world.device)
        taken: list[float] = []
        while len(taken) <= STEPS and sum(taken[1:]) < SECONDS:
            begun = time.perf_counter()
            state, _ = world.step(state, action)
            world.decode(state).cpu()
            taken.append(time.perf_counter() - begun)
        device = world.device
        rows.append({
            "batch": batch, "steps_per_second": batch / min(taken[1:]),
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        })  # fmt: skip
    return rows
