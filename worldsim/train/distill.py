"""Training of the student: consistency between noise levels, given context as dreams show it.

Part of the context is resampled, part the student dreams itself, all may be damaged and noised; the
targets stay the data's. Along the teacher's paths instead, on context of its own, it learned from
its own mistakes, and they grew (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from worldsim.data.latents import LatentRecording
from worldsim.diffusion.consistency import earlier_level, halvings_at, pseudo_huber
from worldsim.diffusion.draws import Draws
from worldsim.diffusion.losses import chunk_error, ramp
from worldsim.diffusion.schedule import corrupt, draw_levels
from worldsim.diffusion.timeline import Clip, Network, Order
from worldsim.fields import ABSENT
from worldsim.models.dynamics import Dynamics
from worldsim.world.config import Sampling

from .adversarial import (
    adversarial_losses,
    check_adversarial,
    dynamics_of,
    with_discriminator,
)
from .buckets import latent_buckets
from .context import blank_alone, check_dreamt, drift_augment
from .dynamics import batch_at, compiled, head_losses, settings_of
from .loop import FitConfig, Losses, Watch, fit
from .targets import as_ordered, check_masked, draw_targets, mean_where, predict_targets
from .words import (
    check_worded,
    draw_guidance,
    guided,
    hide_start,
    recolour_context,
    recoloured_targets,
)


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """Settings of the student's training.

    Attributes:
        fit: the loop's settings; its `ema` is also the target network's.
        targets: chunks predicted a clip.
        halvings: finest schedule, s in `earlier_level`.
        refine: begin with the coarsest schedule, which is plain regression; False for a student
            that goes on, whom that would blur again.
        anchor: weight of the plain denoising loss, which keeps the student on the data.
        pure: share of targets that start from pure noise.
        context_noise: largest noise level put on the context.
        resample: share of clips whose context the averaged student draws anew itself.
        dreamt: share of clips whose context it dreams from the clip's start on.
        blind: [first, stop) of the episodes that these clips are of, whose actions tell nothing of
            what is still unseen; all if None.
        damage: share of clips whose context is damaged.
        drop_action: share of actions hidden.
        drop_text, from_nothing: shares of captions hidden, and of clips up to some chunk.
        guided: share of batches in which the student learns to follow captions more strongly than
            the recording, by how much it is told.
        recolour: share of clips with a caption whose noisy targets are in other colours, in batches
            that do not learn guidance.
        recolour_context: share of clips with a caption that are shown in other colours up to some
            chunk.
        stills: share of steps on single chunks that follow nothing but their captions.
        masked: share of batches in which chunks ahead are known, or time runs backwards.
        drop_state: share of clips that know no state vector up to some chunk.
        state_noise: most noise on state vectors that clips are told of, standard deviations.
        heads: weight of the reward, continuation and state losses.
        compile: fuse the network with torch.compile.
        lengths: chunks of shorter clips, of the episodes that hold no longer ones.
        adversarial: weight of looking recorded to a discriminator; 0 for none, see
            `adversarial.py`.
    """

    fit: FitConfig
    targets: int = 10
    halvings: int = 2
    anchor: float = 0.5
    pure: float = 0.4
    context_noise: float = 0.3
    resample: float = 0.5
    dreamt: float = 0.0
    blind: tuple[int, int] | None = None
    damage: float = 0.4
    drop_action: float = 0.05
    drop_text: float = 0.1
    from_nothing: float = 0.3
    guided: float = 0.5
    masked: float = 0.0
    drop_state: float = 0.2
    state_noise: float = 0.1
    heads: float = 0.1
    compile: bool = True
    lengths: tuple[int, ...] = field(default=(), metadata=ABSENT)
    recolour: float = field(default=0.0, metadata=ABSENT)
    recolour_context: float = field(default=0.0, metadata=ABSENT)
    stills: float = field(default=0.0, metadata=ABSENT)
    adversarial: float = field(default=0.0, metadata=ABSENT)
    refine: bool = field(default=True, metadata=ABSENT)

    def __post_init__(self) -> None:
        check_adversarial(self.adversarial)
        check_dreamt(self.dreamt, self.targets, self.blind)
        check_masked(self.masked)
        check_worded(self)


def student_levels(shape: tuple[int, ...], pure: float, draws: Draws) -> Tensor:
    """Levels of the targets: a share `pure` starts from pure noise, the rest as in training."""
    level = draw_levels(shape, draws)
    return torch.where(draws.uniform(shape) < pure, torch.ones_like(level), level)


def strengthen(
    network: Network, clip: Clip, path: tuple[Tensor, Tensor], level: Tensor, window: int,
    order: Order | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Ends (clean, noise) of the guided paths through the same points of `path` at `level`."""
    silent, noisy = replace(clip, conditions=clip.conditions.as_context()), corrupt(*path, level)
    answer, *_ = predict_targets(network, silent, noisy, level, window, order)
    t, aim = level[..., None, None, None], guided(path[0], answer, clip.conditions)
    return aim, (noisy - (1 - t) * aim) / t


def path_losses(
    x: Tensor, target: Tensor, clean: Tensor, level: Tensor, count: Tensor | None, anchor: float
) -> Losses:
    """Losses of predictions x (B, T, h, w, C): agreement with the point nearer to the clean end,
    `target`, and, of weight `anchor`, the plain denoising loss at lower levels (B, T)."""
    error = chunk_error(x, clean)
    return {
        "consistency": mean_where(pseudo_huber(x - target), count),
        "anchor": anchor * mean_where((level < 0.8) * ramp(level) * error, count),
        "_mse": mean_where(error.detach(), count),
    }


def begun_by(training: DistillationConfig, sampling: Sampling) -> DistillationConfig:
    """The training of a student that goes on from a world with this sampling, of a student or not.

    A student is there already that agrees with itself between fine levels: it begins with those.
    """
    return replace(training, refine=training.refine and sampling.method != "consistency")


def train_student(
    data: LatentRecording | Sequence[LatentRecording], model: Dynamics, window: int,
    training: DistillationConfig, folder: Path, watch: Watch | None = None,
) -> Dynamics:  # fmt: skip
    """Distill the teacher's weights in `model` into a student, in `folder` (resumes there).

    data: latents, or those of several frame sizes, one recording each.
    """
    buckets = latent_buckets(data, training)
    network = compiled(training.compile, len(buckets.things))

    def losses(net: nn.Module, ema: nn.Module, step: int, g: torch.Generator) -> Losses:
        student, mean = dynamics_of(net), dynamics_of(ema)
        config, draws, batch = batch_at(buckets, step, model)
        batch, _ = recolour_context(batch, config.recolour_context, draws)
        clip = drift_augment(network(mean), batch, config, model.dit.config.patch, window, draws)
        clip = hide_start(blank_alone(clip, config.targets), config.from_nothing, draws)
        clean = recorded = batch.latents[:, 1:]
        level = student_levels(tuple(clean.shape[:2]), config.pure, draws)
        refined = step if config.refine else config.fit.steps
        finest = halvings_at(refined, config.fit.steps, config.halvings)
        earlier = earlier_level(level, draws.integers(finest + 1, level.shape).float())
        noise, order = draws.normal(clean.shape), draw_targets(config, draws)
        clip, strengthened = draw_guidance(as_ordered(clip, order), config.guided, draws)

        def answer(model: Dynamics, t: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
            noisy = corrupt(seen, noise, t)
            return predict_targets(network(model), clip, noisy, t, window, order)

        with torch.no_grad():
            if strengthened:
                path = clean, noise
                clean, noise = strengthen(network(mean), clip, path, level, window, order)
            seen = clean if strengthened else recoloured_targets(batch, config.recolour, draws)[0]
            target, *_ = answer(mean, earlier)
            target = torch.where((earlier > 0)[..., None, None, None], target, clean)
        x, features, count = answer(student, level)
        return {
            **path_losses(x, target, clean, level, count, config.anchor),
            **adversarial_losses(net, x, recorded, level, config.adversarial, step, draws),
            **head_losses(student, features, batch, clip, config.heads),
        }

    settings = settings_of(training, model, window, data)
    student = with_discriminator(model, training.adversarial, training.fit.seed)
    return dynamics_of(fit(student, losses, training.fit, folder, settings, watch=watch))
