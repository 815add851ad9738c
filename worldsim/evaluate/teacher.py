"""The world that a student was distilled from, and how far the student is behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldsim.core import WorldError
from worldsim.models.dynamics import Dynamics
from worldsim.store.folder import load
from worldsim.store.tensors import TensorFileError, load_weights
from worldsim.world.diffusion import DiffusionWorld, Sampling

from . import horizon
from .clips import Clips
from .plan import EvaluationPlan


def teacher_of(
    world: DiffusionWorld, source: DiffusionWorld | Path | str, num_steps: int
) -> DiffusionWorld:
    """The undistilled world at `num_steps` Euler steps: a world, its folder, or a training run.

    A stage's folder, or the run that holds it as `teacher/`, gives the networks that dream; the VAE
    is the world's own. Raises WorldError if it is neither, or of other sizes.
    """
    sampling = Sampling(method="euler", num_steps=num_steps)
    if isinstance(source, DiffusionWorld):
        return source.with_sampling(sampling)
    folder = Path(source)
    stages = (folder / "final.safetensors", folder / "teacher" / "final.safetensors")
    weights = next((p for p in stages if p.exists()), None)
    if weights is None:
        return load(source, world.device).with_sampling(sampling)
    config = replace(world.config, sampling=sampling)
    channels = world.spec.latent_shape[-1]
    dynamics = Dynamics(config.dit, config.heads, channels, config.conditioning)
    try:
        load_weights(weights, dynamics)
    except TensorFileError as error:
        raise WorldError(
            f"teacher: expected weights of the sizes of {world.spec.name}, got {error}; name the "
            "run that this world was distilled from"
        ) from error
    return DiffusionWorld(config, world.vae, dynamics.to(world.device), world.starts)


def behind_teacher(
    teacher: DiffusionWorld, clips: Clips, students: dict[int, Tensor], plan: EvaluationPlan,
    advance: Callable[[int], Any],
) -> dict[str, Any]:  # fmt: skip
    """Gaps between teacher and students, errors (N, T) by denoising steps, on the same clips."""
    some = clips[taught(clips, plan)].upto(min(plan.teacher_horizon, plan.horizon))
    dreamt = horizon.dream(teacher, some, some.actions, plan.rows, advance)
    last = dreamt.mse.shape[1]
    return {
        "clips": len(some),
        "steps": plan.teacher_steps,
        "psnr": horizon.curve(dreamt.mse),
        "gaps": {
            str(n): horizon.teacher_gaps(
                mse[taught(clips, plan)][:, :last], dreamt.mse, some.cluster
            )
            for n, mse in students.items()
        },
    }


def taught(clips: Clips, plan: EvaluationPlan) -> Tensor:
    """Which clips (N,) the teacher dreams: another one in every episode, early and late ones."""
    order = torch.arange(len(clips))
    place = torch.stack([(clips.episode[:i] == clips.episode[i]).sum() for i in order])
    return (place - clips.episode) % plan.starts < plan.teacher_starts
