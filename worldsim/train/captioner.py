"""Recaptioning: some captions are given, a captioner learns them and labels the rest.

As DALL-E 3 (Betker et al. 2023) and Sora train on captions that a model wrote: few people label all
of their recordings, and a world follows words the better the more of its video is labelled.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from worldsim.config import short
from worldsim.core import WorldError
from worldsim.data.captions import captions_of
from worldsim.data.dataset import Caption, Dataset, Episode
from worldsim.data.native import NativeDataset, NativeWriter, file_name
from worldsim.data.resize import area_resize
from worldsim.data.tables import read_columns
from worldsim.files import atomic_folder
from worldsim.models.captioner import FRAMES, SIDE, Captioner, Vocabulary

LEAST = 8  # captions to learn from
KEPT = 10  # every how-manieth captioned episode is kept to judge by
SEEN = 16  # moments of a clip that training draws from


@dataclass(frozen=True, kw_only=True)
class CaptionerTraining:
    """Settings of a captioner's training.

    Attributes:
        steps, batch, lr: of AdamW, with a linear warm-up and decay.
        dim: width of the network. seed: names every random choice.
    """

    steps: int = 1200
    batch: int = 32
    lr: float = 1.5e-3
    dim: int = 96
    seed: int = 0


@dataclass(frozen=True)
class Clips:
    """Clips and their captions; several captions may speak of one clip.

    Attributes:
        frames: (U, SEEN, SIDE, SIDE, 6) uint8, see `look`.
        clip: (N,) int64, of which clip each caption speaks.
        texts: N captions.
    """

    frames: Tensor
    clip: Tensor
    texts: tuple[str, ...]


Told = Mapping[str, Sequence[Caption]]
"""Captions by the name of their episode."""


def told_in(data: Dataset) -> dict[str, tuple[Caption, ...]]:
    """The captions that a data set has itself."""
    if not data.spec.has_text:
        return {}
    found = {name: captions_of(data.episode(i)) for i, name in enumerate(data.names)}
    return {name: captions for name, captions in found.items() if captions}


def read_examples(path: Path, data: Dataset) -> dict[str, tuple[Caption, ...]]:
    """Captions in a CSV with columns `file` (an episode's name), `text`, and, where they speak of a
    stretch, `first` and `stop` in chunks. Raises WorldError naming the row that does not fit."""
    lengths = dict(zip(data.names, data.lengths, strict=True))
    stems = {Path(name).stem: name for name in lengths}
    found: dict[str, list[Caption]] = {}
    columns = read_columns(path)
    for number, cells in enumerate(zip(*columns.values(), strict=True), 2):
        row = {name: "" if x is None else str(x) for name, x in zip(columns, cells, strict=True)}
        where = f"examples: {path}, row {number}"
        name, text = row.get("file", "").strip(), row.get("text", "").strip()
        name = name if name in lengths else stems.get(Path(name).stem, name)
        if name not in lengths or not text:
            expected = "an episode's name in column file and words in column text"
            raise WorldError(f"{where}: expected {expected}, got {short(row)}")
        try:
            first, stop = int(row.get("first") or 0), int(row.get("stop") or lengths[name])
        except ValueError:
            first = stop = -1
        if not 0 <= first < stop <= lengths[name]:
            expected = f"chunks from 0 to {lengths[name]}"
            raise WorldError(f"{where}: expected {expected}, got {short(row)}")
        found.setdefault(name, []).append(Caption(first=first, stop=stop, text=text))
    return {name: tuple(captions) for name, captions in found.items()}


def look(episode: Episode, first: int, stop: int, count: int = FRAMES) -> NDArray[np.uint8]:
    """What the captioner sees of chunks [first, stop): `count` moments, small.

    (count, SIDE, SIDE, 6): a frame and the one after it, which differ by what moves.
    """
    span = np.asarray(episode.frames[first * episode.chunk : stop * episode.chunk])
    places = np.linspace(0, max(0, len(span) - 2), count).round().astype(int)
    following = (places + 1).clip(max=len(span) - 1)
    return np.concatenate([area_resize(span[x], (SIDE, SIDE)) for x in (places, following)], -1)


def clips_of(data: Dataset, told: Told, names: Sequence[str]) -> Clips:
    """The clips that captions of these episodes speak of."""
    places = {name: i for i, name in enumerate(data.names)}
    frames, clip, texts = [], [], []
    for name in tqdm(names, desc="reading", leave=False, file=sys.stderr):
        episode = data.episode(places[name])
        spans = sorted({(one.first, one.stop) for one in told[name]})
        clip += [len(frames) + spans.index((one.first, one.stop)) for one in told[name]]
        texts += [one.text for one in told[name]]
        frames += [look(episode, *span, count=SEEN) for span in spans]
    return Clips(torch.from_numpy(np.stack(frames)), torch.tensor(clip), tuple(texts))


def train_captioner(
    clips: Clips,
    training: CaptionerTraining = CaptionerTraining(),  # noqa: B008
) -> tuple[Captioner, Vocabulary]:
    """A captioner of these clips; raises WorldError where they are too few to learn from."""
    if len(clips.texts) < LEAST:
        raise WorldError(f"examples: expected {LEAST} captions or more, got {len(clips.texts)}")
    words = Vocabulary.of(clips.texts)
    ids = words.encode(clips.texts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        model = Captioner(len(words), training.dim, longest=ids.shape[1] + 1)
        optimizer = torch.optim.AdamW(model.parameters(), training.lr, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, training.lr, total_steps=training.steps
        )
        for _ in tqdm(range(training.steps), desc="captioner", leave=False, mininterval=2):
            rows = torch.randint(len(ids), (training.batch,))
            loss = model.loss(_varied(clips.frames[clips.clip[rows]]), ids[rows])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval(), words


def _varied(frames: Tensor) -> Tensor:
    """Some moments of each clip, shifted by up to two pixels, so that few examples are not learned
    by heart: (B, SEEN, ...) -> (B, FRAMES, ...)."""
    drawn = torch.rand(frames.shape[:2]).argsort(1)[:, :FRAMES].sort(1).values
    frames = frames[torch.arange(len(frames))[:, None], drawn]
    down, right = (int(x) for x in torch.randint(-2, 3, (2,)))
    return frames.roll((down, right), (2, 3))


def spans_of(told: Told, length: int) -> list[tuple[int, int]]:
    """Stretches of an episode of `length` chunks, as long as those that examples speak of."""
    lengths = sorted(one.stop - one.first for captions in told.values() for one in captions)
    usual = max(1, lengths[len(lengths) // 2])
    count = max(1, round(length / usual))
    edges = np.linspace(0, length, count + 1).round().astype(int).tolist()
    return list(zip(edges[:-1], edges[1:], strict=True))


def recaption(
    data: Dataset, told: Told, out: Path, training: CaptionerTraining = CaptionerTraining(),  # noqa: B008
    *, wordings: int = 2,
) -> tuple[NativeDataset, float]:  # fmt: skip
    """Copy `data` into `out` with captions everywhere; returns it and the share of words right.

    told: captions of some episodes, which are kept. wordings: captions drawn for each stretch of
    the others. The share is of words of captions of every tenth captioned episode, which are not
    learned from, among the words that are told in their place, NaN where none could be spared.
    """
    train = [name for name in data.split("train").names if name in told]
    judged = train[KEPT - 1 :: KEPT]
    learned = [name for name in train if name not in judged]
    if not learned:
        raise WorldError("examples: expected captions of episodes of the training split, got none")
    model, words = train_captioner(clips_of(data, told, learned), training)
    right = float("nan")
    if judged:
        clips = clips_of(data, told, judged)
        shown = clips.frames[:, np.linspace(0, SEEN - 1, FRAMES).round().astype(int)]
        said = [words.decode(ids) for ids in model.say(shown)]
        right = words_right(clips.texts, [said[i] for i in clips.clip])
    with atomic_folder(out) as folder:
        writer = NativeWriter(folder, replace(data.spec, has_text=True))
        generator = torch.Generator().manual_seed(training.seed)
        for split in data.splits:
            part = data.split(split)
            for place in tqdm(range(len(part)), desc=f"captions {split}", file=sys.stderr):
                episode = part.episode(place)
                captions = tuple(told.get(episode.name, ()))
                if not captions:
                    captions = _captions(model, words, episode, told, wordings, generator)
                name = file_name(episode.name)
                writer.write(split, replace(episode, name=name, text="", captions=captions))
    return NativeDataset(out), right


def _captions(
    model: Captioner, words: Vocabulary, episode: Episode, told: Told, wordings: int,
    generator: torch.Generator,
) -> tuple[Caption, ...]:  # fmt: skip
    spans = spans_of(told, len(episode))
    frames = torch.from_numpy(np.stack([look(episode, *span) for span in spans]))
    found = []
    for number in range(wordings):
        said = model.say(frames, temperature=0.7 if number else 0.0, generator=generator)
        texts = [words.decode(ids) for ids in said]
        found += [Caption(first=a, stop=b, text=t) for (a, b), t in zip(spans, texts, strict=True)
                  if t]  # fmt: skip
    return tuple(found)


def words_right(truth: Sequence[str], told: Sequence[str]) -> float:
    """Share of the words told that the true caption has, too; 0 where nothing is told."""
    hits = total = 0
    for a, b in zip(truth, told, strict=True):
        have, said = set(a.lower().split()), b.lower().split()
        hits, total = hits + sum(word in have for word in said), total + len(said)
    return hits / total if total else 0.0
