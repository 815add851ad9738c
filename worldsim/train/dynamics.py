"""Training of the teacher: diffusion over chunks with a noise level each, and the heads.

A network that has only seen true context believes whatever it dreamt, so small faults grow into
others. In a second run it is therefore shown context with such faults too, see `context.py`.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from worldsim.config import to_json
from worldsim.core import Conditions
from worldsim.data.latents import LatentRecording
from worldsim.data.loader import digest
from worldsim.diffusion.draws import Draws
from worldsim.diffusion.losses import chunk_error, ramp
from worldsim.diffusion.schedule import corrupt, draw_levels
from worldsim.diffusion.timeline import Clip, Network
from worldsim.fields import ABSENT
from worldsim.models.dynamics import Dynamics
from worldsim.models.text import TextConfig
from worldsim.states import StateSpec

from .buckets import Drawn, latent_buckets
from .checkpoint import Settings, fingerprint
from .context import Batch, Faults, blank_alone, check_dreamt, drift_augment, tell_states
from .loop import FitConfig, Losses, Watch, fit, step_draws
from .targets import as_ordered, check_masked, draw_targets, mean_where, predict_targets
from .words import (
    caption_begins,
    captioned,
    check_worded,
    context_hidden,
    emphasise_text,
    hide_start,
    recolour_context,
    recoloured_targets,
)


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
        drop_text: share of captions hidden, so that nothing need be said.
        from_nothing: share of clips with a caption that are not shown up to some chunk, so that a
            dream may begin with words alone.
        recolour: share of clips with a caption whose noisy targets are in other colours, so that
            `edit` may show the same otherwise.
        recolour_context: share of clips with a caption that are shown in other colours up to some
            chunk, so that what is said changes how a running dream looks.
        stills: share of steps on single chunks that follow nothing but their captions: many at
            once, as one costs little.
        masked: share of batches in which chunks ahead are known, or time runs backwards, so that
            `generate` can do so; the others are as stepping is.
        drop_state: share of clips that know no state vector up to some chunk.
        state_noise: most noise on state vectors that clips are told of, standard deviations.
        heads: weight of the reward, continuation and state losses.
        compile: fuse the network with torch.compile; pays after some hundred steps.
        lengths: chunks of shorter clips, of the episodes that hold no longer ones.
    """

    fit: FitConfig
    targets: int = 10
    context_noise: float = 0.3
    resample: float = 0.0
    dreamt: float = 0.0
    blind: tuple[int, int] | None = None
    damage: float = 0.0
    drop_action: float = 0.05
    drop_text: float = 0.1
    from_nothing: float = 0.3
    masked: float = 0.0
    drop_state: float = 0.2
    state_noise: float = 0.1
    heads: float = 0.1
    compile: bool = True
    lengths: tuple[int, ...] = field(default=(), metadata=ABSENT)
    recolour: float = field(default=0.0, metadata=ABSENT)
    recolour_context: float = field(default=0.0, metadata=ABSENT)
    stills: float = field(default=0.0, metadata=ABSENT)

    def __post_init__(self) -> None:
        check_dreamt(self.dreamt, self.targets, self.blind)
        check_masked(self.masked)
        check_worded(self)


BLANK = 0.3
"""Share of the clips that know neither actions nor latent actions before some chunk."""


class Drawable(Faults, Protocol):
    """Which clips are drawn, too: the fields of a training's settings."""

    @property
    def fit(self) -> FitConfig: ...  # noqa: D102
    @property
    def targets(self) -> int: ...  # noqa: D102
    @property
    def drop_action(self) -> float: ...  # noqa: D102
    @property
    def drop_state(self) -> float: ...  # noqa: D102
    @property
    def state_noise(self) -> float: ...  # noqa: D102
    @property
    def drop_text(self) -> float: ...  # noqa: D102
    @property
    def blind(self) -> tuple[int, int] | None: ...  # noqa: D102


D = TypeVar("D", bound=Drawable)


def draw_batch(
    data: LatentRecording,
    config: Drawable,
    draws: Draws,
    spec: StateSpec | None = None,
    encoder: TextConfig | None = None,
) -> Batch:
    """Random clips, the rows of `draws`; a share `drop_action` of the actions is hidden.

    Those whose context will be dreamt, the last ones, are of `blind` episodes, if any. A dream has
    another road than the recording, and the recording's answer is asked for; where the driver
    followed the recorded road, his actions give it away, and the network learns to bend roads to
    whoever drives. spec: of the state vectors that the network is told, if any. encoder: reads
    captions, None where nothing is to be read. Clips without targets are a chunk alone, twice: see
    `blank_alone`.
    """
    chunks, device = config.targets + 1, draws.device
    with torch.device("cpu"):  # where the recording is
        rows = _windows(data, chunks, draws)
        if config.blind and round(config.dreamt * draws.total):
            blind = _windows(data, chunks, draws, config.blind)
            first = len(rows) - draws.last(config.dreamt)
            rows[first:] = blind[first:]
        rows = rows.expand(-1, max(2, chunks))
        clips = data.clips(rows)
        others = data.clips(_windows(data, chunks - 1, draws)).latents if config.damage else None
    known = clips.known.to(device) & (draws.uniform(rows.shape) >= config.drop_action)
    parts = (clips.rewards, clips.continue_prob, clips.rewards_known, clips.continue_known)
    latents, rewards, going, rewards_known, going_known = (
        x.to(device) for x in (clips.latents, *parts)
    )
    said: dict[str, Tensor] = captioned(data, rows, encoder, config.drop_text, draws)
    if clips.latent_actions.shape[-1]:
        masks = known, clips.latent_known.to(device)
        known, said["latent_action_known"] = one_of_both(*masks, draws.uniform((len(rows), 3)))
        said["latent_action"] = clips.latent_actions.to(device)
    states: tuple[Tensor, Tensor] | tuple[None, None] = None, None
    if spec is not None:
        states = clips.states.to(device), clips.states_known.to(device)
        std, drop, noise = spec.numbers("std", latents), config.drop_state, config.state_noise
        said["state"], said["state_known"] = tell_states(*states, std, drop, noise, draws)
    others = None if others is None else others.to(device)
    recoloured = None if clips.recoloured is None else clips.recoloured.to(device)
    told = Conditions.of(clips.actions.to(device), known, **said)
    beside = rewards, going, rewards_known, going_known, others
    return Batch(latents, told, *beside, *states, recoloured)


def batch_at(
    buckets: Drawn[tuple[LatentRecording, D]], step: int, model: Dynamics
) -> tuple[D, Draws, Batch]:
    """Settings, random numbers and clips of a step, of its bucket."""
    recording, config = buckets.at(step)
    draws, told = step_draws(config.fit, step, model.heads.values.device), model.conditioning.config
    return config, draws, draw_batch(recording, config, draws, told.state, told.encoder)


def _windows(
    data: LatentRecording, length: int, draws: Draws, episodes: tuple[int, int] | None = None
) -> Tensor:
    """A random window for each row, (rows, length) int64; see `Windows.starts`."""
    starts = data.windows.starts(length, episodes)
    first = starts[draws.integers(len(starts), (len(draws),)).cpu()]
    return first[:, None] + torch.arange(length)


def one_of_both(known: Tensor, latent_known: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Masks (B, T + 1) of actions and latent actions as clips are told of them.

    Whoever steps gives one or the other, so where both are known a clip is told of one; and a share
    of the clips knows none before some chunk, as after a start from frames alone. u: (B, 3) uniform
    numbers from 0 to 1.
    """
    by_action = known & (u[:, :1] < 0.5)
    told = by_action | (known & ~latent_known)
    chunks = torch.arange(known.shape[1], device=known.device)
    begun = (u[:, 1:2] >= BLANK) | (chunks >= 1 + u[:, 2:] * known.shape[1] / 2)
    return told & begun, latent_known & ~by_action & begun


def head_losses(
    model: Dynamics, features: Tensor, batch: Batch, clip: Clip, weight: float
) -> Losses:
    """Losses of reward, end and state for the T targets, features (B, T, dim), where known.

    clip: what the network was told.
    """
    reward, continue_prob = model.heads.losses(
        features, batch.rewards[:, 1:], batch.continue_prob[:, 1:]
    )
    losses: Losses = {
        "reward": weight * mean_where(reward, _targets(batch.rewards_known)),
        "continue_prob": weight * mean_where(continue_prob, _targets(batch.continue_known)),
    }
    head = model.heads.state
    if head is not None and batch.states is not None:
        before, told = clip.conditions.state[:, 1:], clip.conditions.state_known[:, 1:]
        error = head.loss(head(features, before, told), batch.states[:, 1:], told)
        losses["state"] = weight * mean_where(error, _targets(batch.states_known))
    return losses


def _targets(known: Tensor | None) -> Tensor | None:
    return None if known is None else known[:, 1:]


def train_dynamics(
    data: LatentRecording | Sequence[LatentRecording],
    model: Dynamics,
    window: int,
    training: DynamicsTrainingConfig,
    folder: Path,
    watch: Watch | None = None,
) -> Dynamics:
    """Train the teacher in `folder` (resumes there); returns the averaged network.

    data: latents, or those of several frame sizes, one recording each.
    """
    buckets = latent_buckets(data, training)

    def losses(net: nn.Module, ema: nn.Module, step: int, g: torch.Generator) -> Losses:
        assert isinstance(net, Dynamics) and isinstance(ema, Dynamics)
        config, draws, batch = batch_at(buckets, step, model)
        batch, changes = recolour_context(batch, config.recolour_context, draws)
        clip = drift_augment(network(ema), batch, config, model.dit.config.patch, window, draws)
        clip = hide_start(blank_alone(clip, config.targets), config.from_nothing, draws)
        clean = batch.latents[:, 1:]
        level, noise = draw_levels(tuple(clean.shape[:2]), draws), draws.normal(clean.shape)
        weight = ramp(level)
        if model.conditioning.config.encoder is not None:
            text_only = context_hidden(clip) | caption_begins(clip) | changes
            level, weight = emphasise_text(level, text_only, draws)
        order = draw_targets(config, draws)
        clip = as_ordered(clip, order)
        seen, changed = recoloured_targets(batch, config.recolour, draws)
        noisy, weight = corrupt(seen, noise, level), weight.masked_fill(changed, 1.0)
        x, features, count = predict_targets(network(net), clip, noisy, level, window, order)
        error = chunk_error(x, clean)
        return {
            "denoise": mean_where(weight * error, count),
            "_mse": mean_where(error.detach(), count),
            **head_losses(net, features, batch, clip, config.heads),
        }

    network = compiled(training.compile, len(buckets.things))
    settings = settings_of(training, model, window, data)
    trained = fit(model, losses, training.fit, folder, settings, watch=watch)
    assert isinstance(trained, Dynamics)
    return trained


def settings_of(
    training: Any, model: Dynamics, window: int, data: LatentRecording | Sequence[LatentRecording]
) -> Settings:
    """All that decides a training of a dynamics model."""
    one = isinstance(data, LatentRecording)
    parts = {"dit": model.dit, "heads": model.heads, "conditioning": model.conditioning}
    sizes = {name: to_json(part.config) for name, part in parts.items()}
    told = digest(data) if one else [digest(x) for x in data]
    known = {"model": sizes, "window": window, "data": told, "begin": fingerprint(model)}
    return to_json(training) | known


GRAPHS = 8
"""Of one network in a training: what torch lets be compiled of it, unless it is told."""


def compiled(on: bool, shapes: int = 1) -> Callable[[Dynamics], Network]:
    """The network of a `Dynamics`, compiled once each where that was asked for and is possible.

    shapes: of batches, each of which has graphs of its own.
    """
    known: dict[int, Network] = {}
    if on and shutil.which("c++") is None and not torch.cuda.is_available():
        message = "no C++ compiler: training runs uncompiled, at two thirds of the speed"
        warnings.warn(message, stacklevel=2)
        on = False
    if on and shapes > 1:
        from torch._dynamo import config  # slow to import

        config.recompile_limit = max(config.recompile_limit, GRAPHS * shapes)

    def network(model: Dynamics) -> Network:
        if not on:
            return model
        if id(model) not in known:
            known[id(model)] = torch.compile(model, dynamic=False)
        return known[id(model)]

    return network
