"""The runs of the scaling law: which networks for how long, their training, and what they reach.

Every run trains the denoiser alone, on the same latents and on true context, by the library's own
recipe; only the network's width and the number of steps differ. Each is judged on the same clips of
validation episodes, with the same noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from worldsim.core import Conditions, WorldError
from worldsim.costs.flops import Networks, denoising
from worldsim.data import Dataset
from worldsim.data.latents import LatentRecording
from worldsim.diffusion.draws import Draws
from worldsim.diffusion.losses import chunk_error, ramp
from worldsim.diffusion.schedule import corrupt, draw_levels
from worldsim.diffusion.timeline import Clip, predict
from worldsim.evaluate.clips import Clips, Recorded, cut_clips, even_starts
from worldsim.evaluate.horizon import dream, persistence
from worldsim.metrics import bootstrap, weighted_mean
from worldsim.models.dit import DiTConfig
from worldsim.models.dynamics import Dynamics
from worldsim.models.vae import SpacetimeVAE
from worldsim.presets import Sizes
from worldsim.train.dynamics import DynamicsTrainingConfig, train_dynamics
from worldsim.train.final import load_final
from worldsim.train.loop import FitConfig
from worldsim.train.recipe import action_spec, latents_of, new_dynamics, world_spec
from worldsim.world.diffusion import DiffusionWorld, Sampling, Starts, WorldConfig


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is trained.

    Attributes:
        sizes: the world whose VAE and context are used; its denoiser's width is what varies.
        widths: of the denoisers, smallest first.
        budgets: compute of each width in units of `unit`; the last of all is what is predicted.
        unit: training FLOPs of the smallest budget.
        lr: peak learning rate at width 256; it falls with the width (Yang et al., 2203.03466).
        batch, targets, warmup: of every step.
        compile: whether training is compiled.
        clips: validation clips an episode for the loss; dreams start from a third of that.
        horizons: steps after which dreams are compared, the last one is their length.
        passes: Euler passes of a dreamt step.
    """

    sizes: Sizes
    widths: tuple[int, ...] = (80, 128, 176, 256)
    budgets: tuple[tuple[int, ...], ...] = ((1, 2, 4), (2, 4, 8), (4, 8, 16), (32,))
    unit: float = 3e12
    lr: float = 1e-3
    batch: int = 16
    targets: int = 10
    warmup: int = 50
    compile: bool = True
    clips: int = 6
    horizons: tuple[int, ...] = (1, 8)
    passes: int = 8


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        budget: in units of the plan.
        sizes: with this run's denoiser.
        training: its settings.
        clip_flops: training FLOPs of one clip.
        parameters: of the denoiser.
    """

    budget: int
    sizes: Sizes
    training: DynamicsTrainingConfig
    clip_flops: int
    parameters: int

    @property
    def name(self) -> str:
        """Width and budget."""
        return f"{self.sizes.dit.dim}-{self.budget}x"

    @property
    def clips(self) -> int:
        """Clips seen in training."""
        return self.training.fit.steps * self.training.fit.batch

    @property
    def flops(self) -> int:
        """Training FLOPs."""
        return self.clips * self.clip_flops

    @property
    def record(self) -> dict[str, Any]:
        """What names the run in a results line."""
        fit = self.training.fit
        return {
            "name": self.name, "budget": self.budget, "width": self.sizes.dit.dim,
            "parameters": self.parameters, "steps": fit.steps, "clips": self.clips, "lr": fit.lr,
            "clip_flops": self.clip_flops, "flops": self.flops,
        }  # fmt: skip


def runs(plan: Plan, data: Dataset) -> Iterator[Run]:
    """All runs, those of one width together; steps are such that budgets are met."""
    height, width, _ = data.spec.frame_shape
    for dim, budgets in zip(plan.widths, plan.budgets, strict=True):
        dit: DiTConfig = replace(plan.sizes.dit, dim=dim)
        sizes = replace(plan.sizes, dit=dit)
        networks = Networks(sizes, (height, width), action_spec(data))
        flops = denoising(networks, plan.targets)
        for budget in budgets:
            steps = round(budget * plan.unit / (flops * plan.batch))
            if steps < plan.warmup:
                raise WorldError(f"unit: {plan.unit:.2g} FLOPs are {steps} steps at width {dim}, "
                                 f"expected at least {plan.warmup}, the warm-up")  # fmt: skip
            lr = plan.lr * 256 / dim
            fit = FitConfig(steps=steps, batch=plan.batch, lr=lr, warmup=plan.warmup)
            training = DynamicsTrainingConfig(fit=fit, targets=plan.targets, compile=plan.compile)
            yield Run(budget, sizes, training, flops, networks.parameters["dit"])


def trained(run: Run, data: Dataset, home: Path, out: Path) -> Dynamics:
    """The run's averaged network, trained where it is not yet; resumes in `out`/NAME.

    home: a training run's folder with the VAE and its latents.
    """
    latents = latents_of(data, "train", run.sizes, home)
    model = new_dynamics(data, run.sizes)
    return train_dynamics(latents, model, run.sizes.context, run.training, out / run.name)


@dataclass(frozen=True)
class Exam:
    """Validation clips, the same for every run.

    Attributes:
        latents: whole episodes.
        rows: (N, T + 1) chunks of the clips for the loss; episode: (N,) where they are from.
        clips: starts of dreams and what really followed.
        vae: frames to latents and back.
    """

    latents: LatentRecording
    rows: Tensor
    episode: Tensor
    clips: Clips
    vae: SpacetimeVAE


def exam(plan: Plan, data: Dataset, home: Path) -> Exam:
    """Cut the clips, evenly over every validation episode; `home` gets their latents."""
    if "val" not in data.splits:
        raise WorldError(f"data: expected validation episodes in {data.spec.name}, got none; "
                         "record them with the collect command")  # fmt: skip
    vae = load_final(SpacetimeVAE(plan.sizes.vae), home / "vae").eval()
    latents = latents_of(data, "val", plan.sizes, home)
    rows, episode, first = [], [], 0
    for place, length in enumerate(latents.windows.lengths):
        starts = torch.tensor(even_starts(length, 0, plan.targets + 1, plan.clips))
        rows.append(first + starts[:, None].long() + torch.arange(plan.targets + 1))
        episode.append(torch.full((len(starts),), place))
        first += length
    return Exam(latents, torch.cat(rows), torch.cat(episode), _starts(plan, data), vae)


def _starts(plan: Plan, data: Dataset) -> Clips:
    context, horizon = plan.sizes.context, plan.horizons[-1]
    found = []
    data = data.split("val")
    for place in range(len(data)):
        episode = data.episode(place)
        starts = even_starts(len(episode), context, horizon, max(1, plan.clips // 3))
        recorded = Recorded.of(episode, data.spec.action)
        found.append(cut_clips(recorded, place, starts, context, horizon))
    return Clips.cat([c for c in found if c is not None])


def world_of(
    run: Run, model: Dynamics, vae: SpacetimeVAE, data: Dataset, passes: int
) -> DiffusionWorld:
    """The run's network as a world that draws in `passes` Euler passes; it has no start clips."""
    spec = world_spec(data, run.sizes, run.name, time_limit=475)
    config = WorldConfig(
        spec=spec, vae=run.sizes.vae, dit=run.sizes.dit, heads=run.sizes.heads,
        conditioning=model.conditioning.config,
        sampling=Sampling(method="euler", num_steps=passes),
    )  # fmt: skip
    none = Starts(torch.empty(0), torch.empty(0), torch.empty(0))
    return DiffusionWorld(config, vae, model, none)


@torch.no_grad()
def heldout_loss(model: Dynamics, exam: Exam, window: int, *, rows: int = 50) -> Tensor:
    """Denoising loss of every clip, (N,): clean context, levels and noise drawn once for all."""
    parts: list[Tensor] = []
    for number, some in enumerate(exam.rows.split(rows)):
        draws = Draws(0, 0, range(number * rows, number * rows + len(some)))
        latents, actions = exam.latents.latents[some].float(), exam.latents.actions[some]
        clean, context = latents[:, 1:], latents[:, :-1]
        level = draw_levels((len(some), clean.shape[1]), draws)
        noise = draws.normal(clean.shape)
        clip = Clip(latents, context, torch.zeros(context.shape[:2]), Conditions.of(actions))
        x, _ = predict(model, clip, corrupt(clean, noise, level), level, window)
        parts.append((ramp(level) * chunk_error(x, clean)).mean(1))
    return torch.cat(parts)


def measure(run: Run, model: Dynamics, exam: Exam, data: Dataset, plan: Plan) -> dict[str, Any]:
    """Held-out loss and the error of dreams, with 95% intervals over episodes."""
    model.eval()
    loss = heldout_loss(model, exam, run.sizes.context)
    world = world_of(run, model, exam.vae, data, plan.passes)
    with tqdm(total=len(exam.clips), desc=f"{run.name}: dreams", leave=False) as bar:
        dreamt = dream(world, exam.clips, exam.clips.actions, 50, bar.update)
    found = {"loss": _mean(loss, exam.episode)}
    for h in plan.horizons:
        found[f"mse{h}"] = _mean(dreamt.mse[:, h - 1], exam.clips.episode)
    return found


def still_error(exam: Exam, plan: Plan) -> dict[str, float]:
    """Error of the last context frame, copied, at each horizon: what any dream should beat."""
    still = persistence(exam.clips).mean(0)
    return {f"mse{h}": still[h - 1].item() for h in plan.horizons}


def _mean(values: Tensor, episode: Tensor) -> dict[str, float]:
    return bootstrap(lambda w: weighted_mean(values, w), episode)._asdict()
