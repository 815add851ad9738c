"""Training of the student: consistency along the teacher's paths, on real and on dreamt context.

A student that has only seen real context meets its own mistakes for the first time at step two of
a dream. So part of each clip's context is rolled out by the averaged student itself under the true
actions (Self Forcing, 2506.08009, with gradients through the last call only). What follows such a
context need not be what really followed, so from pure noise the target knows nothing of the truth:
it is the averaged student's answer one step of the teacher's sampler further on.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from worldsim.data.latents import LatentRecording
from worldsim.diffusion.consistency import (
    consistency_target,
    earlier_level,
    halvings_at,
    pseudo_huber,
)
from worldsim.diffusion.denoiser import (
    Clip,
    chunk_error,
    draw_levels,
    predict,
    ramp,
)
from worldsim.diffusion.samplers import corrupt
from worldsim.models.dynamics import Dynamics

from .context import damage_context, dream_context, noised
from .dynamics import Batch, compiled, draw_batch, head_losses
from .loop import FitConfig, Losses, fit


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """Settings of the student's training.

    Attributes:
        fit: the loop's settings; its `ema` is also the target network's.
        context: real chunks at the start of a clip.
        dreamt: chunks after them whose context the student dreamt itself.
        halvings: finest schedule, s in `earlier_level`; training begins with 1.
        anchor: weight of the plain denoising loss, which keeps the student on the data.
        pure: share of targets that start from pure noise.
        context_noise: largest noise level put on the real context.
        damage: share of clips whose context is damaged.
        drop_action: share of actions hidden.
        heads: weight of the reward and continuation losses.
        compile: fuse the network with torch.compile.
    """

    fit: FitConfig
    context: int = 2
    dreamt: int = 9
    halvings: int = 3
    anchor: float = 0.5
    pure: float = 0.4
    context_noise: float = 0.2
    damage: float = 0.2
    drop_action: float = 0.05
    heads: float = 0.1
    compile: bool = True


def student_levels(shape: tuple[int, ...], pure: float, g: torch.Generator) -> Tensor:
    """Levels of the targets: a share `pure` starts from pure noise, the rest as in training."""
    level = draw_levels(shape, g)
    return torch.where(torch.rand(shape, generator=g) < pure, torch.ones(()), level)


def train_student(
    data: LatentRecording, model: Dynamics, window: int, training: Distillation, folder: Path
) -> Dynamics:
    """Distill the teacher's weights in `model` into a student, in `folder` (resumes there)."""
    action = model.dit.condition.action.spec
    network = compiled(training.compile)
    teacher = copy.deepcopy(model).requires_grad_(False)

    def draw(net: Dynamics, g: torch.Generator) -> tuple[Batch, Clip]:
        chunks = training.context + training.dreamt
        batch = draw_batch(data, training.fit.batch, chunks, action, training.drop_action, g)
        true = batch.latents[:, :-1]
        clip = Clip(batch.latents, true, true.new_zeros(true.shape[:2]), batch.actions)
        clip = noised(clip, training.context_noise, g)
        clip = dream_context(net.dit, clip, training.context, window, g)
        return batch, damage_context(clip, training.damage, model.dit.config.patch, g)

    def losses(net: nn.Module, ema: nn.Module, step: int, g: torch.Generator) -> Losses:
        assert isinstance(net, Dynamics) and isinstance(ema, Dynamics)
        batch, clip = draw(ema, g)
        clean = batch.latents[:, 1:]
        level = student_levels(tuple(clean.shape[:2]), training.pure, g)
        finest = halvings_at(step, training.fit.steps, training.halvings)
        earlier = earlier_level(level, torch.full_like(level, finest))
        noisy = corrupt(clean, torch.randn(clean.shape, generator=g), level)
        target = consistency_target(
            lambda x, t: predict(network(teacher), clip, x, t, window)[0],
            lambda x, t: predict(network(ema), clip, x, t, window)[0],
            noisy, level, earlier,
        )  # fmt: skip
        x, features = predict(network(net), clip, noisy, level, window)
        error = chunk_error(x, clean)
        return {
            "consistency": pseudo_huber(x - target).mean(),
            "anchor": training.anchor * ((level < 0.8) * ramp(level) * error).mean(),
            "_mse": error.detach().mean(),
            **head_losses(net, features, batch, training.heads),
        }

    trained = fit(model, losses, training.fit, folder)
    assert isinstance(trained, Dynamics)
    return trained
