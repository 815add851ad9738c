"""Random clips of frames from disk: bounded memory, the same clips at the same step of any run."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from math import prod
from threading import Lock, Thread, main_thread

import numpy as np
import torch
from torch import Tensor

from worldsim.core import WorldError

from .dataset import Dataset

POOL_BYTES = 2**29  # of frames in memory, those that are decoded ahead included


@dataclass(frozen=True)
class Span:
    """Chunks [first, stop) of an episode."""

    episode: int
    first: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.first


@dataclass(frozen=True)
class Pool:
    """Spans that are in memory together, for the steps from `step` on."""

    step: int
    spans: tuple[Span, ...]


class ClipLoader:
    """Clips drawn by (seed, step) alone, so that a run that was killed goes on bit-equal.

    Every epoch the data are shuffled and cut into pools of half of `pool_bytes`; clips of a pool
    are drawn for as many steps as it takes to see each chunk about once, while a thread decodes
    the next one. Data that fit into one pool are decoded once.

    Args:
        data: which episodes.
        batch, length: clips a step, and chunks a clip.
        seed: of the order of everything.
        pool_bytes: of frames in memory.

    Raises WorldError if no episode has `length` chunks.
    """

    def __init__(
        self, data: Dataset, *, batch: int, length: int, seed: int = 0, pool_bytes: int = POOL_BYTES
    ) -> None:
        self.data, self.batch, self.length, self.seed = data, batch, length, seed
        self._chunk_bytes = prod(data.spec.frame_shape) * data.spec.chunk
        self._most = max(length, pool_bytes // 2 // self._chunk_bytes)  # chunks of a pool
        self._spans = list(_cut(data, length, max(length, self._most // 4)))
        if not self._spans:
            raise WorldError(
                f"data: expected an episode of {length} chunks or more in {data.spec.name}, got "
                f"{max(data.lengths, default=0)} at most; record longer ones, or take shorter clips"
            )
        self._pools: list[Pool] = []
        self._order = self._all_pools()
        self._reading = Lock()  # one pool after the other
        self._held: dict[int, Future[list[Tensor]]] = {}  # by number of the pool

    @property
    def fits(self) -> bool:
        """Whether all data are in memory at once."""
        return sum(map(len, self._spans)) <= self._most

    def clips(self, step: int, rows: Sequence[int] | None = None) -> Tensor:
        """The clips of a step, (batch, length, chunk, H, W, 3) uint8; of some `rows` if given."""
        number = self._pool_at(step)
        frames = self._decoded(number)
        rng = np.random.default_rng([self.seed, 1, step])
        starts = np.cumsum([0, *(len(f) - self.length + 1 for f in frames)])
        drawn = rng.integers(starts[-1], size=self.batch)
        found = []
        for place in drawn if rows is None else drawn[list(rows)]:
            span = bisect.bisect_right(starts.tolist(), place) - 1
            first = int(place - starts[span])
            found.append(frames[span][first : first + self.length])
        return torch.stack(found)

    def _pool_at(self, step: int) -> int:
        while not self._pools or self._pools[-1].step <= step:
            self._pools.append(next(self._order))
        return 0 if self.fits else bisect.bisect_right([p.step for p in self._pools], step) - 1

    def _decoded(self, number: int) -> list[Tensor]:
        wanted = (number,) if self.fits else (number, number + 1)
        while len(self._pools) <= wanted[-1]:
            self._pools.append(next(self._order))
        self._held = {n: future for n, future in self._held.items() if n in wanted}
        for n in wanted:
            if n not in self._held:
                self._held[n] = self._begin(self._pools[n])
        return self._held[number].result()

    def _begin(self, pool: Pool) -> Future[list[Tensor]]:
        """Decode a pool in a thread, which ends when the program does: an executor's would not."""
        begun: Future[list[Tensor]] = Future()

        def read() -> None:
            try:
                found = []
                with self._reading:
                    for span in pool.spans:
                        if not main_thread().is_alive():
                            return
                        found.append(self._frames(span))
                begun.set_result(found)
            except BaseException as error:
                begun.set_exception(error)

        Thread(target=read, name="clips").start()
        return begun

    def _frames(self, span: Span) -> Tensor:
        chunk = self.data.spec.chunk
        frames = self.data.episode(span.episode).frames[span.first * chunk : span.stop * chunk]
        return torch.from_numpy(np.array(frames)).unflatten(0, (-1, chunk))

    def _all_pools(self) -> Iterator[Pool]:
        step, epoch = 0, 0
        while True:
            order = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self._spans))
            for spans in _groups([self._spans[i] for i in order], self._most):
                yield Pool(step, spans)
                chunks = sum(map(len, spans))
                step += max(1, round(chunks / (self.batch * self.length)))
            epoch += 1


def _cut(data: Dataset, length: int, most: int) -> Iterator[Span]:
    """Episodes in spans of `most` chunks; neighbours share what a clip across them needs."""
    most = max(most, 2 * length)
    for episode, chunks in enumerate(data.lengths):
        for first in range(0, max(1, chunks - length + 1), most - length + 1):
            stop = min(chunks, first + most)
            if stop - first >= length:
                yield Span(episode, first, stop)


def _groups(spans: list[Span], most: int) -> Iterator[tuple[Span, ...]]:
    group: list[Span] = []
    for span in spans:
        if group and sum(map(len, group)) + len(span) > most:
            yield tuple(group)
            group = []
        group.append(span)
    yield tuple(group)
