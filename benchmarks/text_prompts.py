"""Whether a world of sceneries shows what words say: judged by probes of real frames and by twins.

Tracks and starts are those of the test split. Every share stands beside what the probe reads right
in the twin, which no dream can be above by merit.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from tqdm import tqdm

from worldsim import metrics
from worldsim.core import WorldError, WorldState
from worldsim.play import film as video
from worldsim.recipes.car_racing.captions import (
    ATTRIBUTES,
    EVENTS,
    HELD_OUT,
    Wording,
    caption,
    event,
)
from worldsim.recipes.car_racing.scenery import draw, values_of
from worldsim.world.diffusion import DiffusionWorld
from worldsim.world.edit import edit

from .text_twins import (
    PLAIN,
    Drive,
    Probe,
    Simulator,
    Truth,
    overlap,
    right,
    road_of,
    trained_probe,
)

SCENERY = frozenset(("ground", "light", "weather", "road"))
TRACKS, PROBED = range(5000, 5012), range(300, 312)
SOON, LATE, MASKED = 4, 50, 10  # chunks after a change
GUIDANCE = (1.0, 2.0)


@dataclass(frozen=True)
class Judge:
    """A world of sceneries, its simulator, and a probe that knows real frames.

    pictures: a folder.
    """

    world: DiffusionWorld
    pictures: Path
    quick: bool

    @cached_property
    def simulator(self) -> Simulator:
        """The real environment."""
        environment = self.world.config.environment
        if environment is None:
            raise WorldError("world: expected one that names its environment, got one of films")
        return Simulator(environment)

    @cached_property
    def probe(self) -> Probe:
        """Trained when first asked for: minutes."""
        size = {"chunks": 20, "steps": 20} if self.quick else {}
        return trained_probe(self.simulator, PROBED[:1] if self.quick else PROBED, **size)


def drawn(rng: np.random.Generator, *, held_out: bool = False) -> Truth:
    """A scenery of the kind that training had, or of one that it had not."""
    if not held_out:
        return values_of(draw(rng, HELD_OUT))
    return values_of(draw(rng).but(HELD_OUT[int(rng.integers(len(HELD_OUT)))]))


def caption_of(rng: np.random.Generator, truth: Truth, wording: Wording = "train") -> str:
    """A caption of all four parts of a scenery."""
    return caption(rng, truth, says=SCENERY, wording=wording).text


def tracks(quick: bool) -> range:
    """Tracks of the test split."""
    return TRACKS[:2] if quick else TRACKS


# --- From words alone -----------------------------------------------------------------------------


def alone(judge: Judge, *, quick: bool) -> dict[str, Any]:
    """Videos of 12 chunks of nothing but a caption; their last frames read."""
    found: dict[str, Any] = {"real frames": _ceiling(judge, quick)}
    count = 2 if quick else 36
    kinds: tuple[tuple[str, Wording, bool], ...] = (
        ("seen", "train", False), ("held-out combination", "train", True),
        ("paraphrase", "paraphrase", False), ("word in no caption", "unseen", False),
    )  # fmt: skip
    for name, wording, held_out in kinds:
        for guidance in GUIDANCE if name == "seen" else GUIDANCE[:1]:
            rng = np.random.default_rng(11)
            truth = [drawn(rng, held_out=held_out) for _ in range(count)]
            texts = [caption_of(rng, one, wording) for one in truth]
            videos = _videos(judge.world, texts, 12, guidance)
            label = name if guidance == 1 else f"{name}, guidance {guidance:g}"
            found[label] = right(judge.probe, videos[:, -1], truth)
            if label == "seen":
                _strip(judge.pictures / "words-alone.png", videos[:6], texts[:6])
    return found | {"ahead": _ahead(judge, quick)}


def _ahead(judge: Judge, quick: bool) -> dict[str, float]:
    """What is said to lie ahead, read after 20 chunks; chance is a quarter."""
    rng, values = np.random.default_rng(12), ATTRIBUTES["ahead"]
    truth = [{"ahead": value} for value in values for _ in range(1 if quick else 10)]
    says = SCENERY | {"ahead"}
    texts = [caption(rng, {**PLAIN, **one}, says=says).text for one in truth]
    videos = _videos(judge.world, texts, 20, 1.0)
    read = judge.probe.read(videos[:, -1])["ahead"]
    _strip(judge.pictures / "words-ahead.png", videos[:: len(truth) // 4], list(values))
    hits = [a == b["ahead"] for a, b in zip(read, truth, strict=True)]
    by = {v: float(np.mean([h for h, t in zip(hits, truth, strict=True) if t["ahead"] == v]))
          for v in values}  # fmt: skip
    return by | {"all": float(np.mean(hits))}


def _ceiling(judge: Judge, quick: bool) -> dict[str, float]:
    """The probe on real frames of unseen tracks, drawn sceneries."""
    rng, frames, truth = np.random.default_rng(13), [], []
    for seed in tracks(quick):
        look = drawn(rng)
        drive = judge.simulator.drive(seed, lambda t, look=look: look, 40)
        frames.append(drive.frames[::8, -1])
        truth += drive.truth[::8]
    return right(judge.probe, torch.cat(frames), truth)


def _videos(world: DiffusionWorld, texts: Sequence[str], chunks: int, guidance: float) -> Tensor:
    """(n, chunks, H, W, 3): the last frame of each chunk of a video for every text."""
    chunk = world.spec.chunk
    return torch.stack([
        world.generate([], frames=chunks * chunk, text=text, seed=seed, guidance=guidance)[
            chunk - 1 :: chunk
        ]
        for seed, text in enumerate(tqdm(texts, file=sys.stderr, leave=False))
    ])  # fmt: skip


# --- A change in the middle of an episode ---------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """A drive whose scenery changes after the world's context.

    text: how it is told. name: what changes. drive: as it is shown. plain: as it is in plain
    CarRacing.
    """

    text: str
    name: str
    drive: Drive
    plain: Drive


def changes(judge: Judge, *, quick: bool) -> dict[str, Any]:
    """Events told in a running dream of a real drive, under the drive's own actions."""
    context, length = judge.world.spec.context, MASKED if quick else LATE
    events = _events(judge, context + length, quick)
    found: dict[str, Any] = {}
    twins = torch.stack([x.drive.frames[context:, -1] for x in events])
    for guidance in GUIDANCE:
        texts = [x.text for x in events]
        dreams = _dreamt(judge.world, events, texts, guidance, length)
        for after in (SOON, MASKED, LATE)[: 2 if quick else 3]:
            found[f"guidance {guidance:g}, shown after {after} chunks"] = _shows(
                judge.probe, dreams[:, after - 1], events, context + after - 1
            )
        if guidance > 1:
            continue
        for after in (SOON, MASKED, LATE)[: 2 if quick else 3]:
            found[f"twin, read after {after} chunks"] = _shows(
                judge.probe, twins[:, after - 1], events, context + after - 1
            )
        masks = _masks(events, context + MASKED - 1)
        for name, frames in (("dream", dreams), ("twin, as the probe sees it", twins)):
            seen = judge.probe.road(frames[:, MASKED - 1])
            found[f"road against the twin, IoU, {name}"] = float(overlap(seen, masks).mean())
        _strips(judge.pictures / "words-change.png", twins, dreams, texts)
        others = texts[len(texts) // 2 :] + texts[: len(texts) // 2]
        wrong = _dreamt(judge.world, events, others, guidance, MASKED)
        errors = [_error(x[:, :MASKED], twins[:, :MASKED]) for x in (wrong, dreams)]
        found["error, shuffled over true text"] = errors[0] / errors[1]
    return found | {"actions with text over without": _obeyed(judge, events)}


def _events(judge: Judge, chunks: int, quick: bool) -> list[Change]:
    """One event of every value on tracks of the test split, never to a held-out combination."""
    rng, found, context = np.random.default_rng(14), [], judge.world.spec.context
    values = [(name, value) for name in EVENTS for value in EVENTS[name]]
    seeds = tracks(quick)
    for i, (name, value) in enumerate(values[: 2 if quick else None]):
        for seed in seeds[i % 4 :: 4] if not quick else seeds[:1]:
            begin = drawn(rng)
            while begin[name] == value or _is_held_out({**begin, name: value}):
                begin = drawn(rng)
            look = _switched(begin, {**begin, name: value}, context)
            plain = judge.simulator.drive(seed, lambda t: PLAIN, chunks)
            shown = judge.simulator.twin(seed, look, plain.actions)
            found.append(Change(event(rng, name, value).text, name, shown, plain))
    return found


def _switched(before: Truth, after: Truth, at: int) -> Any:
    return lambda t: before if t < at else after


def _is_held_out(truth: Truth) -> bool:
    return any(all(truth[k] == v for k, v in pair.items()) for pair in HELD_OUT)


def _begun(world: DiffusionWorld, events: Sequence[Change]) -> WorldState:
    context = world.spec.context
    frames = torch.stack([x.drive.frames[:context] for x in events])
    actions = torch.stack([x.drive.actions[:context] for x in events])
    return world.encode(rearrange(frames, "b t c h w d -> b (t c) h w d"), actions)


@torch.no_grad()
def _dreamt(
    world: DiffusionWorld, events: Sequence[Change], texts: Sequence[str], guidance: float,
    chunks: int,
) -> Tensor:  # fmt: skip
    """Last frames of the chunks that follow a change, (rows, chunks, H, W, 3)."""
    state = _begun(world, events).prompted(world.prompt(texts), guidance)
    actions = torch.stack([x.drive.actions for x in events])
    frames = []
    for t in tqdm(range(chunks), file=sys.stderr, leave=False):
        state, _ = world.step(state, actions[:, world.spec.context + t])
        frames.append(world.decode(state)[:, -1])
    return torch.stack(frames, 1)


def _shows(probe: Probe, frames: Tensor, events: Sequence[Change], at: int) -> dict[str, float]:
    """Share of events that are seen; `others`: of what did not change and is still as it was."""
    read, shown, kept = probe.read(frames), [], []
    for i, one in enumerate(events):
        for name in SCENERY:
            hit = read[name][i] == one.drive.truth[at][name]
            (shown if name == one.name else kept).append(hit)
    return {"event": float(np.mean(shown)), "others": float(np.mean(kept))}


def _masks(events: Sequence[Change], at: int) -> Tensor:
    return torch.stack([road_of(x.plain.frames[at, -1]) for x in events])


def _error(a: Tensor, b: Tensor) -> float:
    return float(((a.float() - b.float()) ** 2).mean())


@torch.no_grad()
def _obeyed(judge: Judge, events: Sequence[Change]) -> float:
    """How much hard left differs from hard right after 8 steps, with the text over without."""
    world, sizes = judge.world, []
    begun = _begun(world, events)
    for state in (begun.prompted(world.prompt([x.text for x in events]), 1.0), begun):
        ends = []
        for wheel in (-1.0, 1.0):
            now = state
            for _ in range(8):
                now, _ = world.step(now, torch.tensor([[wheel, 0.1, 0.0]]).repeat(len(events), 1))
            ends.append(world.decode(now)[:, -1])
        sizes.append(_error(*ends) ** 0.5)
    return sizes[0] / sizes[1]


# --- Edits, and what lies between two clips -------------------------------------------------------


def edits(judge: Judge, *, quick: bool) -> dict[str, Any]:
    """Day on a meadow edited to other sceneries, against the exact twin."""
    rng, chunks, world = np.random.default_rng(15), 8 if quick else 24, judge.world
    quality, roads, copied, frames, truth, texts = [], [], [], [], [], []
    rows = []
    for seed in tracks(quick):
        look = drawn(rng)
        plain = judge.simulator.drive(seed, lambda t: PLAIN, chunks)
        twin = judge.simulator.twin(seed, lambda t, look=look: look, plain.actions)
        clip = rearrange(plain.frames, "t c h w d -> (t c) h w d")
        text = caption_of(rng, look)
        made = edit(world, clip, text, actions=plain.actions)
        ends = made[world.spec.chunk - 1 :: world.spec.chunk]
        real = twin.frames[:, -1]
        quality.append(_decibels(ends, real))
        copied.append(_decibels(plain.frames[:, -1], real))
        roads.append(float(overlap(judge.probe.road(ends), road_of(plain.frames[:, -1])).mean()))
        frames.append(ends[-1])
        truth.append({k: v for k, v in look.items() if k in SCENERY})
        texts.append(text)
        rows += [plain.frames[::4, -1], real[::4], ends[::4]]
    names = ["recorded", "twin", "edited"] * min(3, len(texts))
    _grid(judge.pictures / "words-edit.png", rows[: len(names)], names)
    return {
        "dB against the twin": float(np.mean(quality)), 
        "dB of the unedited": float(np.mean(copied)),
        "road IoU": float(np.mean(roads)),
        "attributes": right(judge.probe, torch.stack(frames), truth),
    }  # fmt: skip


def _decibels(a: Tensor, b: Tensor) -> float:
    return float(metrics.psnr(metrics.squared_error(a, b).mean((-3, -2, -1))).mean())


def between(judge: Judge, *, quick: bool) -> dict[str, Any]:
    """Twelve chunks between two clips against a guess that does not know the end, and loops."""
    world, gap, before = judge.world, 12, judge.world.spec.context
    chunk, errors, seams = world.spec.chunk, [[], []], []
    for seed in tracks(quick):
        drive = judge.simulator.drive(seed, lambda t: PLAIN, before + gap + 1)
        clip = rearrange(drive.frames, "t c h w d -> (t c) h w d")
        end = (before + gap) * chunk
        first, last = (clip[: before * chunk], 0), (clip[end:], end)
        for place, given in enumerate(((first, last), (first,))):
            made = world.generate(given, frames=len(clip), actions=drive.actions, seed=seed)
            part = slice(before * chunk, end)
            errors[place].append(_error(made[part], clip[part]))
        picture = clip[before * chunk]
        loop = world.generate([(picture, 0), (picture, 12 * chunk)], frames=13 * chunk, seed=seed)
        steps = (loop[1:].float() - loop[:-1].float()).abs().flatten(1).mean(1)
        seam = float((loop[12 * chunk].float() - loop[12 * chunk - 1].float()).abs().mean())
        seams.append(seam / float(steps[: 12 * chunk - 1].max()))
    return {
        "in-between over causal, error": float(np.mean(errors[0]) / np.mean(errors[1])),
        "seam of a loop over the largest step inside": float(np.mean(seams)),
    }


# --- Pictures -------------------------------------------------------------------------------------


def _strip(path: Path, videos: Tensor, names: Sequence[str]) -> None:
    _grid(path, [v[:: max(1, len(v) // 6)] for v in videos], names)


def _strips(path: Path, twins: Tensor, dreams: Tensor, texts: Sequence[str]) -> None:
    places = [0, 1, 3, 7, 11, *range(19, twins.shape[1], 10)]
    places = [p for p in places if p < twins.shape[1]]
    rows, names = [], []
    for i in range(0, len(texts), max(1, len(texts) // 4)):
        rows += [twins[i, places], dreams[i, places]]
        names += ["twin", texts[i]]
    _grid(path, rows, names)


def _grid(path: Path, rows: Sequence[Tensor], names: Sequence[str]) -> None:
    heads = [str(i) for i in range(len(rows[0]))]
    pictures = [[frame.numpy() for frame in row] for row in rows]
    video.save_picture(path, video.sheet(pictures, list(names), heads, times=2))
