"""What a state vector beside the pixels is worth: Pendulum with and without, all else equal.

    python -m benchmarks.state_vector

Both worlds go on from the bundled `pendulum` for the same number of steps on the same recording,
whose state is the environment's observation: cosine and sine of the angle, and its velocity. Pixels
show the angle; the velocity they show by a difference of two frames alone. Chosen on nothing and
measured on test episodes: error of the dream by horizon, and the true velocity after dreamt steps,
as a probe reads it from latents and as the world itself says.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from worldsim import metrics
from worldsim.data.dataset import Dataset
from worldsim.data.latents import LatentRecording
from worldsim.data.view import WithoutStates
from worldsim.evaluate.clips import Clips, even_clips
from worldsim.evaluate.probe import Probe, fit_probe
from worldsim.evaluate.report import write_card
from worldsim.flags import refuse_repeated
from worldsim.metrics import bootstrap, r_squared
from worldsim.presets import Sizes
from worldsim.recipes.pendulum import pendulum_state
from worldsim.store.folder import load
from worldsim.store.provenance import provenance
from worldsim.train.begin import keep_vae
from worldsim.train.loop import FitConfig
from worldsim.train.recipe import QUICK, assemble, fit_student, latents_of
from worldsim.world.diffusion import DiffusionWorld
from worldsim.world.rollout import replay

from . import RESULTS

VELOCITY = 2  # the place of the angle's velocity in the state vector
ERRORS, TOLD = (1, 8, 16), (1, 10, 30, 60)
HORIZON, STARTS = max(TOLD), 6


def trained(data: Dataset, steps: int, run: Path, seed: int) -> DiffusionWorld:
    """The bundled world, gone on with `data` for so many steps of the student."""
    begin = load("pendulum")
    config = begin.config
    sizes = Sizes(vae=config.vae, dit=config.dit, heads=config.heads, context=config.spec.context)
    keep_vae(begin, run)
    fit = FitConfig(steps=steps, batch=14, lr=4e-4, ema=0.99, warmup=50, seed=seed, bf16=False)
    training = replace(QUICK.distill, fit=fit, compile=False)
    if not (run / "student" / "final.safetensors").exists():
        fit_student(data, sizes, training, run, begin)
    return assemble(data, sizes, run, "pendulum", time_limit=100, num_steps=1, begin=begin)


def test_clips(data: Dataset, context: int) -> Clips:
    """Clips of the test episodes, with their states."""
    return even_clips(data.split("test"), context, HORIZON, STARTS)


def velocity_probe(latents: LatentRecording, states: Tensor, window: int) -> Probe:
    """Reads the velocity from the newest `window` latents."""
    rows = latents.windows.starts(window)[::2, None] + torch.arange(window)
    return fit_probe(latents.latents[rows], states[rows[:, -1], VELOCITY : VELOCITY + 1])


@torch.no_grad()
def figures(world: DiffusionWorld, clips: Clips, probe: Probe, rows: int = 40) -> dict[str, Any]:
    """Error of dreams, and R² of the true velocity, by horizon."""
    errors, read, said, parts = [], [], [], range(0, len(clips), rows)
    for some in (clips[a : a + rows] for a in parts):
        state = some.begin(world, torch.stack([some.episode, some.start], 1))
        dream = replay(world, state, some.actions, decode_every=1)
        assert dream.frames is not None
        real = dream.frames.reshape(some.frames.shape)
        errors.append(metrics.squared_error(real, some.frames).mean((-3, -2, -1)))
        seen = torch.cat([state.latents, dream.latents], 1)
        windows = seen.unfold(1, world.spec.context, 1).movedim(-1, 2)[:, 1:]
        read.append(probe(windows.flatten(0, 1)).reshape(len(some), HORIZON))
        said.append(dream.states[..., VELOCITY] if world.spec.state else torch.zeros(0))
    mse, true = torch.cat(errors), clips.states[..., VELOCITY]
    found: dict[str, Any] = {
        "psnr": {str(h): metrics.psnr(mse[:, h - 1].double().mean()).item() for h in ERRORS},
        "read": _by_horizon(torch.cat(read), true, clips),
    }
    if world.spec.state:
        found["said"] = _by_horizon(torch.cat(said), true, clips)
    return found


def _by_horizon(found: Tensor, true: Tensor, clips: Clips) -> dict[str, Any]:
    def interval(h: int) -> dict[str, float]:
        def figure(weights: Tensor) -> Tensor:
            return r_squared(found[:, h - 1], true[:, h - 1], weights)

        return bootstrap(figure, clips.cluster)._asdict()

    return {str(h): interval(h) for h in TOLD}


def main(
    data: Path = Path("data/pendulum-state"),
    run: Path = Path("runs/state-vector"),
    steps: int = 1200,
    episodes: int | None = None,
    seed: int = 0,
    out: Path = RESULTS / "state-vector.json",
) -> None:
    """Record, train both worlds and measure them.

    Args:
        data: the recording, made if it is not there.
        run: folder of both trainings; they go on there.
        steps: of the student, in both.
        episodes: of the training split; the recipe's own by default.
        seed: of both trainings.
        out: the JSON file.
    """
    recipe = pendulum_state()
    jobs = [job for job in recipe.jobs(episodes) if job.split != "val"]
    recording = recipe.collect(data, jobs=jobs, workers=1)
    worlds = {
        "pixels": trained(WithoutStates(recording), steps, run / "pixels", seed),
        "pixels and state": trained(recording, steps, run / "state", seed),
    }
    world = worlds["pixels and state"]
    sizes = Sizes(vae=world.config.vae, dit=world.config.dit)
    latents = latents_of(recording, "train", sizes, run / "state")
    probe = velocity_probe(latents, latents.states, world.spec.context)
    clips = test_clips(recording, world.spec.context)
    found = {name: figures(one, clips, probe) for name, one in worlds.items()}
    card = {
        "format": "worldsim-state-vector", "steps": steps, "seed": seed, "clips": len(clips),
        "episodes": int(clips.episode.max()) + 1,
        "spread": clips.states[..., VELOCITY].std().item(),
        "worlds": found, "provenance": provenance(),
    }  # fmt: skip
    write_card(card, out)
    print(json.dumps(found, indent=1))
    print(f"wrote {out}")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, args=refuse_repeated(sys.argv[1:]))
