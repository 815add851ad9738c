"""Video from what is given: words, a clip to continue, a picture to start from or to lead up to.

All of it is one rule (LTX-Video, 2501.00103): chunks that a given clip covers have a noise level of
at most 1 - strength, so strength 1 is never denoised; the rest is drawn from what is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from worldsim.actions import as_tensor
from worldsim.core import Conditions, WorldError, WorldModel, WorldSpec, row_keys
from worldsim.models.vae import DOWN, to_float

from .config import LATENT_BOUND
from .diffusion import DiffusionWorld
from .fill import Timeline, fill

LEAST_SIDE, MOST_SIDE = 16, 4096
"""Pixels of a video's sides."""

MOST_GUIDANCE = 20.0

TOGETHER = 16
"""Chunks decoded at once."""


@dataclass(frozen=True)
class Piece:
    """A clip on the timeline: frames (m * c, H, W, 3) of the chunks from `first` to `stop`."""

    frames: Tensor
    first: int
    stop: int
    strength: float


@torch.no_grad()
def generate(
    world: WorldModel,
    given: Sequence[tuple[Any, ...]],
    *,
    frames: int,
    actions: Any = None,
    known: Any = None,
    seed: int = 0,
    num_steps: int | None = None,
    text: str | None = None,
    guidance: float | None = None,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Video of `frames` frames, (frames, H, W, 3) uint8 on the host, around what is given.

    given: `(media, start)` or `(media, start, strength)` each: a clip (m, H, W, 3) or a picture
        (H, W, 3), uint8, whose first frame is frame `start`, a multiple of the world's chunk. At
        strength 1 its frames come back unchanged; below, chunks are drawn anew from a noise level
        of 1 - strength, and resemble it. Alone at 0 it is continued; alone at the end it is led up
        to, backwards; two with a gap are joined; the same picture at both ends makes a loop. May be
        empty where there is `text`.
    frames: of the video; it is made in whole chunks and cut.
    actions: (ceil(frames / chunk), *action), of which each led into a chunk, in the world's own
        range; None where all are unknown. known: (..., ) bool, which of them are; all if None.
    seed: names the randomness. num_steps: denoising steps a chunk, None for the world's own.
    text: what is to be seen, in a world that was trained with captions. guidance: from 1 up, how
        much more strongly than in the recording it is followed.
    size: (height, width) of the video, from 16 up; the world's own if None. It is drawn in
        multiples of 8 and cut.
    Raises `WorldError` for what does not fit, overlaps or lies beyond the end, and where a world in
    closed form is asked for more than to go on from the start.
    """
    count = _chunks(frames, world.spec.chunk, "frames")
    shape = frame_shape(world.spec, size)
    pieces = _pieces(replace(world.spec, frame_shape=shape), given, frames, words=text is not None)
    said = _actions(world.spec, actions, known, count)
    if num_steps is not None:
        world = world.with_num_steps(num_steps)
    if isinstance(world, DiffusionWorld):
        prompt = None if text is None else world.prompt(text)
        check_guidance(guidance, text)
        drawn = tuple(-(-side // DOWN) for side in shape[:2])
        latents = _latents(world, pieces, drawn, count)
        conditions = conditions_of(world, *said, prompt, guidance)
        video = _drawn(world, pieces, latents, conditions, seed)[:, : shape[0], : shape[1]]
    else:
        if text is not None or size not in (None, world.spec.frame_shape[:2]):
            name = "size" if text is None else "text"
            raise WorldError(f"{name}: expected None, as {world.spec.name} is a world of one kind")
        video = _continued(world, pieces, *said, seed)
    for piece in (p for p in pieces if p.strength == 1):
        at = piece.first * world.spec.chunk
        video[at : at + len(piece.frames)] = piece.frames
    return video[:frames]


def _chunks(frames: Any, chunk: int, name: str) -> int:
    if type(frames) is not int or frames < 1:
        raise WorldError(f"{name}: expected a whole number from 1 up, got {frames!r}")
    return -(-frames // chunk)


def check_guidance(guidance: Any, text: Any) -> None:
    """Raise WorldError for a guidance that is none, or without a prompt."""
    if guidance is None:
        return
    number = isinstance(guidance, int | float) and not isinstance(guidance, bool)
    if not number or not 1 <= guidance <= MOST_GUIDANCE:
        raise WorldError(f"guidance: expected 1 to {MOST_GUIDANCE:g}, got {guidance!r}")
    if text is None:
        raise WorldError(f"guidance: expected None, as nothing is said, got {guidance!r}")


def frame_shape(spec: WorldSpec, size: Any) -> tuple[int, int, int]:
    """(H, W, 3) of a video of this size; raises WorldError for a size that is none."""
    if size is None:
        return spec.frame_shape
    sides = [*size] if isinstance(size, Sequence) and not isinstance(size, str) else []
    whole = len(sides) == 2 and all(type(side) is int for side in sides)
    if not whole or min(sides) < LEAST_SIDE or max(sides) > MOST_SIDE:
        expected = f"two whole numbers from {LEAST_SIDE} to {MOST_SIDE}"
        raise WorldError(f"size: expected {expected}, height and width, got {size!r}")
    return (sides[0], sides[1], 3)


def _pieces(
    spec: WorldSpec, given: Sequence[tuple[Any, ...]], frames: int, *, words: bool
) -> list[Piece]:
    """The given clips in order of time; raises WorldError where one does not fit."""
    pieces = sorted((_piece(spec, i, each, frames) for i, each in enumerate(given)),
                    key=lambda piece: piece.first)  # fmt: skip
    for one, two in zip(pieces[:-1], pieces[1:], strict=True):
        if two.first < one.stop:
            raise WorldError(
                f"given: two clips hold frame {two.first * spec.chunk}; a chunk of {spec.chunk} "
                "frames belongs to one: shorten or move one of them"
            )
    if not words and not any(piece.strength == 1 for piece in pieces):
        raise WorldError(
            "given: expected a clip or picture of strength 1 to start from, or text, got none"
        )
    return pieces


def _piece(spec: WorldSpec, place: int, given: tuple[Any, ...], frames: int) -> Piece:
    name, chunk = f"given[{place}]", spec.chunk
    if not isinstance(given, tuple) or len(given) not in (2, 3):
        raise WorldError(f"{name}: expected (media, start) or (media, start, strength)")
    media, start, strength = (*given, 1.0)[:3]
    media = as_tensor(media, name)
    media = (media[None] if media.ndim == 3 else media).cpu()
    if tuple(media.shape[1:]) != spec.frame_shape or not len(media) or media.dtype != torch.uint8:
        got = f"{media.dtype} {tuple(media.shape)}"
        height, width, _ = spec.frame_shape
        raise WorldError(f"{name}: expected uint8 (n, {height}, {width}, 3), got {got}; resize it")
    if type(start) is not int or start < 0 or start % chunk:
        raise WorldError(f"{name}: expected a start that is a multiple of {chunk}, got {start!r}")
    if start + len(media) > frames:
        got = f"frames {start} to {start + len(media) - 1}"
        raise WorldError(f"{name}: expected to end before frame {frames}, got {got}")
    if not 0 < strength <= 1:
        raise WorldError(f"{name}: expected a strength above 0 to 1, got {strength}")
    first = start // chunk
    return Piece(media, first, first + -(-len(media) // chunk), float(strength))


def _actions(spec: WorldSpec, actions: Any, known: Any, count: int) -> tuple[Tensor, Tensor]:
    """Actions (1, n, *action) and which are known (1, n)."""
    mask = torch.full((1, count), actions is not None)
    if actions is None:
        if known is not None:
            raise WorldError("known: expected None without actions; give the actions, too")
        return spec.action.blank(1, count), mask
    if known is not None:
        mask = as_tensor(known, "known")[None]
    acts = spec.action.check(actions, (count,), values=False)[None]
    spec.check_actions(acts, (1, count), mask)
    spec.action.check(acts[mask], (int(mask.sum()),))
    return acts, mask


# --- A diffusion world ----------------------------------------------------------------------------


def _latents(
    world: DiffusionWorld, pieces: list[Piece], grid: tuple[int, ...], count: int
) -> Tensor:
    """Latents (1, count, h, w, C), those of the pieces where there are any and zeros elsewhere."""
    latents = torch.zeros(1, count, *grid, world.spec.latent_shape[-1], device=world.device)
    for piece in pieces:
        found = world.vae.encode(to_float(_padded(piece.frames, grid).to(world.device))[None])
        latents[:, piece.first : piece.stop] = found.clamp(-LATENT_BOUND, LATENT_BOUND)
    return latents


def _padded(frames: Tensor, grid: Sequence[int]) -> Tensor:
    """Frames (n, H, W, 3) whose last rows and columns are repeated up to the latents' grid."""
    below, right = (g * DOWN - s for g, s in zip(grid, frames.shape[1:3], strict=True))
    if not below and not right:
        return frames
    whole = F.pad(frames.movedim(-1, 1).float(), (0, right, 0, below), mode="replicate")
    return whole.movedim(1, -1).to(torch.uint8)


def _drawn(
    world: DiffusionWorld, pieces: list[Piece], latents: Tensor, said: Conditions, seed: int
) -> Tensor:
    there, soft = [False] * latents.shape[1], {}
    for piece in pieces:
        for place in range(piece.first, piece.stop):
            there[place] = piece.strength == 1
            if not there[place]:
                soft[place] = latents[:, place].clone(), piece.strength
    key = row_keys([seed]).to(world.device)
    timeline = Timeline(latents, there, said, soft)
    latents = fill(world.dynamics, timeline, world.config.sampling, world.spec.context, key)
    for piece in (p for p in pieces if p.strength == 1 and p.first):
        latents[:, piece.first] = _after(world, latents, piece)
    return shown(world, latents[0])


def conditions_of(
    world: DiffusionWorld, actions: Tensor, known: Tensor, prompt: Tensor | None = None,
    guidance: float | None = None,
) -> Conditions:  # fmt: skip
    """Of actions (1, n, *action) and a prompt (1, L); what else a world takes is not known."""
    config, parts = world.config.conditioning, {}
    actions, known = actions.to(world.device), known.to(world.device)
    length = config.encoder.length if config.encoder else 0
    widths = {"latent_action": config.latent_action, "text": length, "world": config.worlds}
    lead = {"latent_action": known.shape, "text": known.shape[:1], "world": known.shape[:1]}
    for name in (name for name, width in widths.items() if width):
        width = 1 if name == "world" else widths[name]
        dtype = torch.float32 if name == "latent_action" else torch.int64
        parts[name] = torch.zeros(*lead[name], width, dtype=dtype, device=known.device)
        mask = known[:, :1] if name == "world" else known
        parts[f"{name}_known"] = torch.zeros_like(mask)
    if config.state is not None:
        parts["state"] = torch.zeros(*known.shape, len(config.state), device=known.device)
        parts["state_known"] = torch.zeros_like(known)
    if prompt is not None:
        parts |= {"text": prompt, "text_known": torch.ones_like(known)}
        parts["guidance"] = torch.full((1, 1), guidance or 1.0, device=known.device)
    return Conditions.of(actions, known, **parts)


def _after(world: DiffusionWorld, latents: Tensor, piece: Piece) -> Tensor:
    """The first latent of a piece, which was encoded as a start, now that it has a past."""
    before = shown(world, latents[0, max(0, piece.first - 2) : piece.first])
    chunk = _padded(piece.frames[: world.spec.chunk], latents.shape[2:4])
    chunk = torch.cat([chunk, chunk[-1:].expand(world.spec.chunk - len(chunk), *chunk.shape[1:])])
    pair = torch.cat([before[-world.spec.chunk :], chunk]).to(world.device)
    return world.vae.encode(to_float(pair)[None])[:, 1].clamp(-LATENT_BOUND, LATENT_BOUND)


def shown(world: DiffusionWorld, latents: Tensor) -> Tensor:
    """Frames (n * c, H, W, 3) of consecutive latents (n, h, w, C), the first as a start."""
    before = torch.cat([torch.zeros_like(latents[:1]), latents[:-1]])
    filled = torch.full((len(latents),), 2, device=latents.device)
    filled[0] = 1
    parts = zip(*(x.split(TOGETHER) for x in (latents, before, filled)), strict=True)
    return torch.cat([world.decode_latents(*part).cpu() for part in parts]).flatten(0, 1)


# --- Any other world ------------------------------------------------------------------------------


def _continued(
    world: WorldModel, pieces: list[Piece], actions: Tensor, known: Tensor, seed: int
) -> Tensor:
    """What a world's own steps can do: go on from a clip at the start."""
    if len(pieces) != 1 or pieces[0].first or pieces[0].strength < 1:
        raise WorldError(
            f"given: {world.spec.name} runs forwards only: expected one clip of strength 1 that "
            "starts at frame 0"
        )
    spec, (piece,) = world.spec, pieces
    missing = -len(piece.frames) % spec.chunk
    clip = torch.cat([piece.frames, piece.frames[-1:].expand(missing, *spec.frame_shape)])
    seen = slice(max(0, piece.stop - spec.context), piece.stop)
    newest = clip[seen.start * spec.chunk :].to(world.device)[None]
    actions, known = actions.to(world.device), known.to(world.device)
    state = world.encode(newest, actions[:, seen], row_keys([seed]), known=known[:, seen])
    parts = [clip]
    for place in range(piece.stop, actions.shape[1]):
        action = actions[:, place] if known[0, place] else None
        state, _ = world.step(state, action)
        parts.append(world.decode(state)[0].cpu())
    return torch.cat(parts)
