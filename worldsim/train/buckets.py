"""Buckets: what may lie in one batch, clips of one frame size and one length.

A step draws its bucket by (seed, step) alone, so all processes and a run that goes on have the same
one. Batches are as large as makes each step about as dear as one of the first size (Open-Sora 1.1;
packing clips of all sizes needs attention over ragged rows, and bought nothing there).
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Generic, Protocol, TypeVar

from worldsim.core import WorldError
from worldsim.data.clips import POOL_BYTES, ClipLoader
from worldsim.data.dataset import MULTIPLE, Dataset
from worldsim.data.latents import LatentRecording
from worldsim.data.view import OfLength
from worldsim.diffusion.draws import SHARED, Draws

from .context import DREAMT_FROM
from .loop import FitConfig

OWN = SHARED - 1
"""The row of `Draws` that names a step's bucket, apart from all that is drawn inside the step."""


class Clipped(Protocol):
    """Fields of a training's settings that a bucket changes."""

    @property
    def fit(self) -> FitConfig: ...  # noqa: D102
    @property
    def lengths(self) -> tuple[int, ...]: ...  # noqa: D102


T = TypeVar("T")
C = TypeVar("C", bound=Clipped)


@dataclass(frozen=True)
class Bucket:
    """Clips of one size and length.

    Attributes:
        size: which of the sizes, by number.
        chunks: of a clip.
        below: its episodes have fewer chunks; None without a bound. Each episode serves the longest
            length that it holds.
        batch: clips a step.
        held: chunks in its episodes: its share of the steps.
        cost: of a clip, over that of the longest in the first size.
        still: whether its clips are single chunks of longer episodes, drawn for their captions.
    """

    size: int
    chunks: int
    below: int | None
    batch: int
    held: int
    cost: float = 1.0
    still: bool = False


def buckets_of(
    areas: Sequence[int], episodes: Sequence[int], chunks: int, lengths: Sequence[int], batch: int,
    stills: float = 0.0,
) -> list[Bucket]:  # fmt: skip
    """The buckets of some sizes of `areas` pixels (or latents) each.

    episodes: chunks of each. chunks: of a clip, batch: of these in the first size. lengths: of
    shorter clips, besides; those that are not shorter are left out. stills: share of the steps on
    single chunks of all episodes.
    """
    known = sorted({n for n in lengths if n < chunks} | {chunks})
    found = []
    for size, area in enumerate(areas):
        for least, below in zip(known, [*known[1:], None], strict=True):
            held = sum(n for n in episodes if least <= n and (below is None or n < below))
            if held:
                cost = area * least / (areas[0] * chunks)
                found.append(Bucket(size, least, below, batch_for(batch, cost), held, cost))
    if not found:
        longest = max(episodes, default=0)
        raise WorldError(
            f"data: expected episodes of {known[0]} chunks or more, got {longest} at most; record "
            "longer ones, or allow shorter clips by lengths"
        )
    return found + _stills(areas, chunks, batch, stills, sum(bucket.held for bucket in found))


def _stills(areas: Sequence[int], chunks: int, batch: int, share: float, held: int) -> list[Bucket]:
    """Buckets of single chunks that are a `share` of the steps, beside others that hold `held`."""
    each = round(held * share / (1 - share) / len(areas))
    costs = [area / (areas[0] * chunks) for area in areas]
    return [
        Bucket(size, 1, None, batch_for(batch, cost), each, cost, still=True)
        for size, cost in enumerate(costs) if each
    ]  # fmt: skip


def batch_for(batch: int, cost: float) -> int:
    """Clips a step where each costs `cost` times one of `batch`: about as many as cost the same.

    Whole quarters of `batch`, so that it divides by whatever number of processes these do; fewer
    where that is too dear. Of a batch that has no quarters even numbers, or any.
    """
    unit, wanted = batch // 4 if batch % 4 == 0 else 2 - batch % 2, batch / cost
    if wanted < unit:
        return 1 << max(0, int(wanted).bit_length() - 1)
    return round(wanted / unit) * unit


def divisible(batch: int, cost: float, count: int) -> int:
    """The least batch from `batch` up, a multiple of 4 `count`, with a `batch_for` that divides."""
    step = 4 * count
    tried = range(-(-batch // step) * step, step * (batch + int(8 * cost) + 8), step)
    return next((b for b in tried if batch_for(b, cost) % count == 0), tried.stop)


class Drawn(Generic[T]):
    """A thing for each bucket, of which a step draws one, in proportion to what buckets hold."""

    def __init__(self, buckets: Sequence[Bucket], things: Sequence[T], seed: int) -> None:
        self.buckets, self.things, self.seed = buckets, things, seed
        self._ends = list(accumulate(bucket.held for bucket in buckets))

    def at(self, step: int) -> T:
        """The thing of a step."""
        if len(self.things) == 1:
            return self.things[0]
        point = float(Draws(self.seed, step, [OWN]).uniform((1,))) * self._ends[-1]
        return self.things[min(bisect(self._ends, point), len(self.things) - 1)]


def latent_buckets(
    data: LatentRecording | Sequence[LatentRecording], training: C
) -> Drawn[tuple[LatentRecording, C]]:
    """Recordings of latents, one a size, and the training's settings, for each bucket."""
    recordings = [data] if isinstance(data, LatentRecording) else list(data)
    config: Any = training
    lengths = recordings[0].windows.lengths
    areas = [x.latents.shape[1] * x.latents.shape[2] for x in recordings]
    stills = config.stills if recordings[0].captions is not None else 0.0
    if len(recordings) == 1 and not training.lengths and not stills:  # windows say what is short
        buckets = [Bucket(0, config.targets + 1, None, training.fit.batch, sum(lengths))]
        return Drawn(buckets, [(recordings[0], training)], training.fit.seed)
    shape = config.targets + 1, training.lengths, training.fit.batch, stills
    buckets = buckets_of(areas, lengths, *shape)
    things = []
    for bucket in buckets:
        recording = recordings[bucket.size]
        most = float("inf") if bucket.below is None else bucket.below
        counts = tuple(bucket.chunks <= n < most for n in lengths)
        windows = replace(recording.windows, counts=counts)
        things.append((replace(recording, windows=windows), _shorter(config, bucket)))
    return Drawn(buckets, things, training.fit.seed)


def _shorter(training: Any, bucket: Bucket) -> Any:
    """A training's settings for the clips of one bucket.

    A clip of one chunk has nothing before it that could be resampled, damaged or dreamt, and
    nothing beside it that could be known. Stills all begin with nothing, see `words.hide_start`.
    """
    targets, changed = bucket.chunks - 1, {}
    if targets < training.targets and (training.blind or targets <= DREAMT_FROM):
        changed = {"dreamt": 0.0, "blind": None}
    if targets == 0:
        changed |= {"resample": 0.0, "damage": 0.0, "masked": 0.0}
    if bucket.still:
        changed |= {"from_nothing": 1.0}
    fit = replace(training.fit, batch=bucket.batch)
    return replace(training, fit=fit, targets=targets, **changed)


def clip_buckets(data: Dataset | Sequence[Dataset], training: C) -> Drawn[tuple[ClipLoader, C]]:
    """Loaders of frames, of data at one size each, and the training's settings, for each bucket."""
    sizes = [*data] if isinstance(data, Sequence) else [data]
    config: Any = training
    batch, chunks, seed = training.fit.batch, config.clip_chunks, training.fit.seed
    if len(sizes) == 1 and not training.lengths:
        loader = ClipLoader(sizes[0], batch=batch, length=chunks, seed=seed)
        held = sum(sizes[0].lengths)
        return Drawn([Bucket(0, chunks, None, batch, held)], [(loader, training)], seed)
    areas = [x.spec.frame_shape[0] * x.spec.frame_shape[1] // MULTIPLE**2 for x in sizes]
    buckets = buckets_of(areas, sizes[0].lengths, chunks, training.lengths, batch)
    things = []
    for bucket in buckets:
        some = OfLength(sizes[bucket.size], bucket.chunks, bucket.below)
        loader = ClipLoader(
            some, batch=bucket.batch, length=bucket.chunks, seed=seed,
            pool_bytes=POOL_BYTES // len(buckets),
        )  # fmt: skip
        fit = replace(training.fit, batch=bucket.batch)
        things.append((loader, replace(config, fit=fit, clip_chunks=bucket.chunks)))
    return Drawn(buckets, things, seed)
