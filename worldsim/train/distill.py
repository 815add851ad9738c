"""Training of the student: consistency between noise levels, on real and on dreamt context.

A student that has only seen real context meets its own mistakes for the first time at step two of
a dream. So part of each clip's context is rolled out by the averaged student itself under the true
actions, and the loss asks for the true next chunk from there (Self Forcing, 2506.08009, with
gradients through the last call only).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from worldsim.data.latents import LatentRecording
from worldsim.diffusion.consistency import earlier_level, halvings_at, pseudo_huber
from worldsim.diffusion.denoiser import (
    ChunkDenoiser,
    Clip,
    Network,
    chunk_error,
    draw_levels,
    fill_cache,
    noise_context,
    predict,
    ramp,
)
from worldsim.diffusion.samplers import corrupt
from worldsim.models.dynamics import Dynamics

from .dynamics import Batch, compiled, draw_batch, head_losses
from .loop import FitConfig, Losses, fit


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """Settings of the student's training.

    Attributes:
        fit: the loop's settings; its `ema` is also the target network's.
        context: real chunks at the start of a clip.
        dreamt: chunks after them whose context the student dreamt itself.
        halvings: finest schedule, s in `earlier_level`.
        anchor: weight of the plain denoising loss, which keeps the student on the data.
        pure: share of targets that start from pure noise.
        context_noise: largest noise level put on the context.
        drop_action: share of actions hidden.
        heads: weight of the reward and continuation losses.
        compile: fuse the network with torch.compile.
    """

    fit: FitConfig
    context: int = 4
    dreamt: int = 7
    halvings: int = 2
    anchor: float = 0.5
    pure: float = 0.4
    context_noise: float = 0.2
    drop_action: float = 0.05
    heads: float = 0.1
    compile: bool = True


@torch.no_grad()
def dream_context(network: Network, clip: Clip, real: int, window: int, g: torch.Generator) -> Clip:
    """Replace all context after the first `real` chunks by one-step dreams under true actions."""
    context, told = clip.context.clone(), clip.context_level.clone()
    latents = clip.latents[:, :real][:, -window:]
    known = latents.shape[1]
    blank = torch.zeros_like(latents[:, :1]).expand(-1, window - known, -1, -1, -1)
    acted = clip.actions[:, real - known : real]
    unused = acted[:, :1].expand(-1, window - known, *acted.shape[2:])
    filled = torch.full((len(latents),), known)
    cache = fill_cache(
        network, torch.cat([blank, latents], 1), torch.cat([unused, acted], 1), filled
    )
    previous, newest = latents[:, -2], latents[:, -1]
    for i in range(real, context.shape[1]):
        denoise = ChunkDenoiser(
            network, newest, previous, clip.actions[:, i - 1 : i + 1], cache, filled
        )
        noise = torch.randn(newest.shape, generator=g)
        previous, newest = newest, denoise(noise, torch.ones(len(noise))).clamp(-6, 6)
        cache, filled = denoise.cache, (filled + 1).clamp(max=window)
        context[:, i], told[:, i] = newest, 0.0
    return Clip(clip.latents, context, told, clip.actions)


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

    def draw(net: Dynamics, g: torch.Generator) -> tuple[Batch, Clip]:
        chunks = training.context + training.dreamt
        batch = draw_batch(data, training.fit.batch, chunks, action, training.drop_action, g)
        context, told = noise_context(batch.latents[:, :-1], training.context_noise, g)
        clip = Clip(batch.latents, context, told, batch.actions)
        return batch, dream_context(net.dit, clip, training.context, window, g)

    def losses(net: nn.Module, ema: nn.Module, step: int, g: torch.Generator) -> Losses:
        assert isinstance(net, Dynamics) and isinstance(ema, Dynamics)
        batch, clip = draw(ema, g)
        clean = batch.latents[:, 1:]
        level = student_levels(tuple(clean.shape[:2]), training.pure, g)
        finest = halvings_at(step, training.fit.steps, training.halvings)
        earlier = earlier_level(level, torch.randint(finest + 1, level.shape, generator=g).float())
        noise = torch.randn(clean.shape, generator=g)
        with torch.no_grad():
            target, _ = predict(network(ema), clip, corrupt(clean, noise, earlier), earlier, window)
            target = torch.where((earlier > 0)[..., None, None, None], target, clean)
        x, features = predict(network(net), clip, corrupt(clean, noise, level), level, window)
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
