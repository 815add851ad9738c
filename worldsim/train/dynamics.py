"""Training of the teacher: diffusion over chunks with a noise level each, and the heads.

A network that has only seen true context believes whatever it dreamt, so small faults grow into
others. In a second run it is therefore shown context with such faults too, see `context.py`.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from worldsim.config import to_json
from worldsim.core import Conditions
from worldsim.data.latents import LatentRecording
from worldsim.data.loader import digest
from worldsim.diffusion.losses import chunk_error, ramp
from worldsim.diffusion.schedule import corrupt, draw_levels
from worldsim.diffusion.timeline import Network
from worldsim.models.dynamics import Dynamics

from .checkpoint import Settings, fingerprint
from .context import Batch, Faults, check_dreamt, drift_augment
from .loop import FitConfig, Losses, Watch, fit
from .targets import check_masked, draw_targets, mean_where, predict_targets


@dataclass(frozen=True, kw_only=True)
class DynamicsTrainingConfig:
    """Settings of the teacher's training.

    Attributes:
        fit: the loop's settings.
        targets: chunks predicted a clip.
        context_noise: largest noise level put on the context.
        resample: share of clips whose context the averaged network draws anew itself.
        dreamt: share of clips whose context the averaged network dreams from its start on.
        blind: [first, stop) of the episodes that these clips are of, whose actions tell nothing of
            what is still unseen; all if None.
        damage: share of clips whose context is damaged.
        drop_action: share of actions hidden, so that unlabelled video works too.
        masked: share of batches in which chunks ahead are known, or time runs backwards, so that
            `generate` can do so; the others are as stepping is.
        heads: weight of the reward and continuation losses.
        compile: fuse the network with torch.compile; pays after some hundred steps.
    """

    fit: FitConfig
    targets: int = 10
    context_noise: float = 0.3
    resample: float = 0.0
    dreamt: float = 0.0
    blind: tuple[int, int] | None = None
    damage: float = 0.0
    drop_action: float = 0.05
    masked: float = 0.0
    heads: float = 0.1
    compile: bool = True

    def __post_init__(self) -> None:
        check_dreamt(self.dreamt, self.targets, self.blind)
        check_masked(self.masked)


class Drawn(Faults, Protocol):
    """Which clips are drawn, too: the fields of a training's settings."""

    @property
    def fit(self) -> FitConfig: ...  # noqa: D102
    @property
    def targets(self) -> int: ...  # noqa: D102
    @property
    def drop_action(self) -> float: ...  # noqa: D102
    @property
    def blind(self) -> tuple[int, int] | None: ...  # noqa: D102


def draw_batch(data: LatentRecording, config: Drawn, g: torch.Generator) -> Batch:
    """Random clips; a share `drop_action` of the actions is hidden.

    Those whose context will be dreamt, the last ones, are of `blind` episodes, if any. A dream has
    another road than the recording, and the recording's answer is asked for; where the driver
    followed the recorded road, his actions give it away, and the network learns to bend roads to
    whoever drives.
    """
    count, chunks, drop = config.fit.batch, config.targets + 1, config.drop_action
    with torch.device("cpu"):  # where the recording is
        here = cpu_generator(g)
        rows = data.windows.sample(count, chunks, here)
        if config.blind and (some := round(config.dreamt * count)):
            rows[-some:] = data.windows.sample(some, chunks, here, config.blind)
        clips = data.clips(rows)
        known = clips.known & (torch.rand(rows.shape, generator=here) >= drop)
    device = g.device
    said = Conditions.of(clips.actions.to(device), known.to(device))
    parts = (clips.rewards, clips.continue_prob, clips.rewards_known, clips.continue_known)
    return Batch(clips.latents.to(device), said, *(x.to(device) for x in parts))


def cpu_generator(g: torch.Generator) -> torch.Generator:
    """The generator itself on a CPU, else one there of the same seed."""
    if g.device.type == "cpu":
        return g
    return torch.Generator().manual_seed(g.initial_seed())


def head_losses(model: Dynamics, features: Tensor, batch: Batch, weight: float) -> Losses:
    """Losses of reward and end for the T targets, features (B, T, dim), where they are known."""
    reward, continue_prob = model.heads.losses(
        features, batch.rewards[:, 1:], batch.continue_prob[:, 1:]
    )
    return {
        "reward": weight * mean_where(reward, _targets(batch.rewards_known)),
        "continue_prob": weight * mean_where(continue_prob, _targets(batch.continue_known)),
    }


def _targets(known: Tensor | None) -> Tensor | None:
    return None if known is None else known[:, 1:]


def train_dynamics(
    data: LatentRecording,
    model: Dynamics,
    window: int,
    training: DynamicsTrainingConfig,
    folder: Path,
    watch: Watch | None = None,
) -> Dynamics:
    """Train the teacher in `folder` (resumes there); returns the averaged network."""

    def losses(net: nn.Module, ema: nn.Module, step: int, g: torch.Generator) -> Losses:
        assert isinstance(net, Dynamics) and isinstance(ema, Dynamics)
        size = training.fit.batch
        batch = draw_batch(data, training, g)
        clip = drift_augment(network(ema), batch, training, model.dit.config.patch, window, g)
        level = draw_levels((size, training.targets), g)
        clean = batch.latents[:, 1:]
        noise = torch.randn(clean.shape, generator=g)
        order, noisy = draw_targets(training, g), corrupt(clean, noise, level)
        x, features, count = predict_targets(network(net), clip, noisy, level, window, order)
        error = chunk_error(x, clean)
        return {
            "denoise": mean_where(ramp(level) * error, count),
            "_mse": mean_where(error.detach(), count),
            **head_losses(net, features, batch, training.heads),
        }

    network = compiled(training.compile)
    settings = settings_of(training, model, window, data)
    trained = fit(model, losses, training.fit, folder, settings, watch=watch)
    assert isinstance(trained, Dynamics)
    return trained


def settings_of(training: Any, model: Dynamics, window: int, data: LatentRecording) -> Settings:
    """All that decides a training of a dynamics model."""
    parts = {"dit": model.dit, "heads": model.heads, "conditioning": model.conditioning}
    sizes = {name: to_json(part.config) for name, part in parts.items()}
    known = {"model": sizes, "window": window, "data": digest(data), "begin": fingerprint(model)}
    return to_json(training) | known


def compiled(on: bool) -> Callable[[Dynamics], Network]:
    """The network of a `Dynamics`, compiled once each where that was asked for and is possible."""
    known: dict[int, Network] = {}
    if on and shutil.which("c++") is None and not torch.cuda.is_available():
        message = "no C++ compiler: training runs uncompiled, at two thirds of the speed"
        warnings.warn(message, stacklevel=2)
        on = False

    def network(model: Dynamics) -> Network:
        if not on:
            return model
        if id(model) not in known:
            known[id(model)] = torch.compile(model, dynamic=False)
        return known[id(model)]

    return network
