"""Captions in training: what is said of a clip, what is hidden, how strongly it is followed."""

from __future__ import annotations

import warnings
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, Protocol

import torch
from torch import Tensor

from worldsim.core import Conditions, WorldError
from worldsim.data.dataset import Dataset
from worldsim.data.latents import LatentRecording
from worldsim.diffusion.draws import Draws
from worldsim.diffusion.losses import ramp
from worldsim.diffusion.timeline import Clip
from worldsim.models.text import TextConfig, tokens_of
from worldsim.presets import Sizes

from .context import Batch

MOST_GUIDANCE = 4.0
"""Of training; more was never tried."""


class Worded(Protocol):
    """How much is said: the fields of a training's settings."""

    @property
    def drop_text(self) -> float: ...  # noqa: D102
    @property
    def from_nothing(self) -> float: ...  # noqa: D102
    @property
    def recolour(self) -> float: ...  # noqa: D102
    @property
    def recolour_context(self) -> float: ...  # noqa: D102
    @property
    def stills(self) -> float: ...  # noqa: D102


def check_worded(config: Worded) -> None:
    """Raise WorldError for shares that are none."""
    for name in ("drop_text", "from_nothing", "recolour", "recolour_context"):
        if not 0 <= getattr(config, name) <= 1:
            got = getattr(config, name)
            raise WorldError(f"{name}: expected a share from 0 to 1, got {got}")
    if not 0 <= config.stills < 1:
        raise WorldError(f"stills: expected a share from 0 to below 1, got {config.stills}")


def wants_recoloured(config: Worded) -> bool:
    """Whether a training asks for latents in other colours."""
    return config.recolour > 0 or config.recolour_context > 0


def with_words(data: Dataset, sizes: Sizes) -> Sizes:
    """Sizes of networks that read the data's captions, or that read nothing."""
    if not data.spec.has_text:
        return replace(sizes, text=0, text_tokens=0, encoder=None)
    encoder = sizes.encoder or TextConfig()
    if encoder.kind == "static" and find_spec("wordllama") is None:
        message = "text: words are learned from the captions alone; pip install 'worldsim[text]' "
        warnings.warn(message + "for prompts in words that no caption has", stacklevel=3)
        encoder = replace(encoder, kind="words")
    dit = replace(sizes.dit, cross_attention=sizes.text_tokens > 0)
    return replace(sizes, dit=dit, encoder=encoder)


def captioned(
    data: LatentRecording, rows: Tensor, encoder: TextConfig | None, drop: float, draws: Draws
) -> dict[str, Any]:
    """`text` and `text_known` of clips of these rows (B, F); nothing without an encoder.

    Each clip has one caption, of those that speak of a chunk drawn from its targets, and it is
    known where it speaks: an event in the middle of a clip is said from there on. A share `drop` is
    hidden.
    """
    if encoder is None:
        return {}
    # the encoder's own noise, alike wherever a training is resumed
    torch.manual_seed((draws.seed << 32) + 4099 * draws.step + int(draws.rows[0]))
    count = rows.shape[1]
    places = 1 + draws.integers(count - 1, (len(rows),)).cpu()
    point, kept = draws.uniform((len(rows),)).cpu(), draws.uniform((len(rows),)).cpu() >= drop
    texts, known = [], torch.zeros(rows.shape, dtype=torch.bool)
    table = data.captions
    for i in range(len(rows)):
        found = [] if table is None else table.at(int(rows[i, places[i]]))
        texts.append("")
        if table is not None and found and bool(kept[i]):
            one = found[min(int(point[i] * len(found)), len(found) - 1)]
            texts[i] = table.texts[one]
            known[i] = (rows[i] >= table.first[one]) & (rows[i] < table.stop[one])
    tokens = tokens_of(texts, encoder, check=False)
    return {"text": tokens.to(draws.device), "text_known": known.to(draws.device)}


def hide_start(clip: Clip, share: float, draws: Draws) -> Clip:
    """A share of the clips that are shown from some chunk on only, if anything is said of them at
    all: what comes before it is drawn from words alone, as a dream that begins without a picture.

    With all that was shown so far, words are hardly needed: what changes is rare in a recording.
    Half of these clips know no action of any kind, as video has none that is made of words.
    """
    if not share or not clip.conditions.text.shape[1]:
        return clip
    hidden = draws.uniform((len(clip.latents),)) < share
    hidden &= clip.conditions.text_known[:, 1]
    chunks = clip.context_level.shape[1]
    shown = 1 + draws.integers(chunks, (len(hidden),))
    unseen = hidden[:, None] & (torch.arange(chunks, device=hidden.device) < shown[:, None])
    context = clip.context.masked_fill(unseen[..., None, None, None], 0.0)
    idle = hidden & (draws.uniform((len(hidden),)) < 0.5)
    told = ("action_known", "latent_action_known")
    known = {name: getattr(clip.conditions, name) & ~idle[:, None] for name in told}
    return replace(
        clip,
        context=context,
        context_level=clip.context_level.masked_fill(unseen, 1.0),
        conditions=replace(clip.conditions, **known),
    )


def context_hidden(clip: Clip) -> Tensor:
    """Which targets (B, T) follow nothing that is shown, so that words alone say what they are."""
    return (clip.context_level >= 1).cumprod(1).bool()


def caption_begins(clip: Clip) -> Tensor:
    """Which targets (B, T) are the first or second chunk that a caption speaks of: what has changed
    there, only words say."""
    known = clip.conditions.text_known
    before = torch.cat([torch.ones_like(known[:, :1]), known[:, :-2]], 1)
    return known[:, 1:] & ~before[:, : known.shape[1] - 1]


def emphasise_text(level: Tensor, text_only: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Levels and weights (B, T) of targets; `text_only` (B, T) may have only words to go by.

    Half of those are drawn from pure noise, and all count in full. Others count the less the more
    noise there is (`ramp`): there, what is right is hardly known. Words are what is known here, and
    they are not needed where a little noise lets the picture through.
    """
    pure = text_only & (draws.uniform(level.shape) < 0.5)
    level = level.masked_fill(pure, 1.0)
    return level, ramp(level).masked_fill(text_only, 1.0)


def recoloured_targets(batch: Batch, share: float, draws: Draws) -> tuple[Tensor, Tensor]:
    """The targets (B, T, h, w, C) as they are to be noised, and which (B, T) are in other colours.

    In a `share` of the clips those that something is said of. What is asked for stays the recorded
    picture, so that words say how it looks and noisy targets where things are: an edit.
    """
    clean, said = batch.latents[:, 1:], batch.conditions.text_known
    if not share or batch.recoloured is None or not said.shape[1]:
        return clean, torch.zeros(clean.shape[:2], dtype=torch.bool, device=clean.device)
    changed = said[:, 1:] & (draws.uniform((len(clean), 1)) < share)
    return torch.where(changed[..., None, None, None], batch.recoloured[:, 1:], clean), changed


def recolour_context(batch: Batch, share: float, draws: Draws) -> tuple[Batch, Tensor]:
    """The batch, a share of whose clips is shown in other colours up to some chunk, and the targets
    (B, T) right after such a chunk.

    Where something is said of all targets up to there, they change to what words say, whatever was
    seen before. What recordings show of changes is rare, and never another ground or road.
    """
    said, shown, other = batch.conditions.text_known, batch.latents[:, :-1], batch.recoloured
    rows, chunks = shown.shape[:2]
    if not share or other is None or not said.shape[1]:
        return batch, torch.zeros(rows, chunks, dtype=torch.bool, device=shown.device)
    place = 1 + draws.integers(chunks, (rows, 1))
    changed = torch.arange(chunks, device=place.device) < place
    changed = changed & said[:, 1:].cumprod(1).bool() & (draws.uniform((rows, 1)) < share)
    shown = torch.where(changed[..., None, None, None], other[:, :-1], shown)
    return replace(batch, shown=shown), changed


def draw_guidance(clip: Clip, share: float, draws: Draws) -> tuple[Clip, bool]:
    """In a `share` of the batches, a guidance from 1 to `MOST_GUIDANCE` for each clip."""
    if not share or not clip.conditions.text.shape[1]:
        return clip, False
    strength = 1 + (MOST_GUIDANCE - 1) * draws.uniform((len(clip.latents), 1))
    if bool(draws.shared.uniform((1,)) >= share):
        return clip, False
    return replace(clip, conditions=replace(clip.conditions, guidance=strength)), True


def guided(clean: Tensor, silent: Tensor, conditions: Conditions) -> Tensor:
    """What a guided student is to answer, (B, T, h, w, C): the data pushed away from what would be
    answered were nothing said (classifier-free guidance, Ho and Salimans 2022, inside the target as
    in MeanFlow, 2505.13447). silent: that answer."""
    more = (conditions.guidance - 1) * conditions.text_known[:, 1:]
    return clean + more[..., None, None, None] * (clean - silent)
