"""Latents of a timeline of which some are known: each of the others drawn from its known side.

From the first known chunk on time runs forwards, with known chunks ahead in view; what lies before
it is drawn backwards. A chunk's keys and values are made once, when it becomes known, as in
stepping; an uncached pass under `Order.mask` gives the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from worldsim.core import Conditions
from worldsim.diffusion.timeline import Order, Output
from worldsim.models.dynamics import Dynamics

from .config import LATENT_BOUND, Sampling

REACH = 2
"""Windows over which a known chunk ahead is seen; clips of training are not longer."""


@dataclass(frozen=True)
class Timeline:
    """B rows of n chunks, some of them known.

    Attributes:
        latents: (B, n, h, w, C), any number where not known.
        known: which of the n chunks are known; where none is, the first is drawn from what is said.
        conditions: what is said of each.
        soft: of chunks that are not known and yet not free: a latent (B, h, w, C) that resembles
            them, and how strongly, 0 to 1.
    """

    latents: Tensor
    known: list[bool]
    conditions: Conditions
    soft: dict[int, tuple[Tensor, float]] = field(default_factory=dict)


@torch.no_grad()
def fill(
    dynamics: Dynamics, timeline: Timeline, sampling: Sampling, window: int, key: Tensor
) -> Tensor:
    """All latents (B, n, h, w, C).

    window: chunks that the network looks back on. key: (B, 2) int64, names the randomness, of which
    a chunk draws its own by its place. Soft chunks start from a noise level of at most 1 - strength
    (LTX-Video's rule, 2501.00103).
    """
    latents, known = timeline.latents.clone(), list(timeline.known)
    if True not in known:
        x = sampling.sample(*_from_nothing(dynamics, timeline, key), timeline.soft.get(0))
        latents[:, 0], known[0] = x.clamp(-LATENT_BOUND, LATENT_BOUND), True
    count, first = len(known), known.index(True)
    with tqdm(total=known.count(False), desc="generating", unit="chunk", leave=False) as bar:
        for backwards in (False, True):
            places = range(first - 1, -1, -1) if backwards else range(first, count)
            missing = [p for p in places if not known[p]]
            if not missing:
                continue
            side = Side(dynamics, latents, timeline.conditions, known, window, backwards=backwards)
            for place in missing:
                age = torch.full((len(latents),), place, device=latents.device)
                denoise = ChunkBetween(side, place)
                x = sampling.sample(denoise, key, age, timeline.soft.get(place))
                latents[:, place] = x.clamp(-LATENT_BOUND, LATENT_BOUND)
                known[place] = True
                side.remember(place)
                bar.update()
    return latents


def _from_nothing(
    dynamics: Dynamics, timeline: Timeline, key: Tensor
) -> tuple[ChunkFromNothing, Tensor, Tensor]:
    said = timeline.conditions.chunks(slice(0, 1))
    shape = tuple(timeline.latents.shape[2:])
    return ChunkFromNothing(dynamics, said, shape), key, torch.zeros_like(key[:, 0])


class ChunkFromNothing:
    """`denoise(x, level)` of a chunk that follows nothing but what is said: the context is one
    chunk of pure noise, told as such, as in training (`train.words.hide_start`)."""

    def __init__(self, dynamics: Dynamics, said: Conditions, shape: tuple[int, ...]) -> None:
        """said: of the one chunk. shape: (h, w, C)."""
        self.dynamics, self.shape = dynamics, shape
        self.said = said.as_context().then(said)

    def __call__(self, x: Tensor, level: Tensor) -> Tensor:
        """Predict the clean chunk (B, h, w, C) from `x` at `level` (B,)."""
        blank = torch.zeros_like(x)
        out = self.dynamics(
            torch.stack([blank, x], 1),
            torch.stack([torch.ones_like(level), level], 1),
            self.said,
            torch.stack([blank, blank], 1),
            time=range(2),
            mask=torch.ones(1, 2, 2, dtype=torch.bool, device=x.device).tril(),
        )
        return out.x[:, 1]


class Side:
    """One direction of time: the keys and values of what is known so far.

    `latents` is shared with whoever fills it; `remember` a chunk when it is filled.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        latents: Tensor,
        conditions: Conditions,
        known: list[bool],
        window: int,
        *,
        backwards: bool = False,
    ) -> None:
        self.dynamics, self.latents, self.conditions = dynamics, latents, conditions
        self.count = count = len(known)
        place = torch.arange(count)
        rank = place.flip(0) if backwards else place
        self.order = Order(rank[None], torch.tensor([known]))
        near = (rank[None] - rank[:, None]) <= REACH * window
        mask = self.order.mask(window)[0]
        self.context, self.noisy = mask[:count, :count] & near, mask[count:, :count] & near
        self.order = Order(self.order.rank.to(latents.device), self.order.known.to(latents.device))
        self.kv: dict[int, Tensor] = {}
        missing = min(int(r) for r, there in zip(rank, known, strict=True) if not there)
        start = torch.tensor(known) & (rank >= missing - window)
        self._remember(start.nonzero()[:, 0].tolist())

    def remember(self, place: int) -> None:
        """Add a chunk that has become known."""
        self._remember([place])

    def seen(self, place: int, mask: Tensor) -> list[int]:
        """Places whose keys and values the chunk at `place` looks at, by `context` or `noisy`."""
        return [p for p in mask[place].nonzero()[:, 0].tolist() if p in self.kv]

    def run(
        self, places: list[int], x: Tensor, level: Tensor, said: Conditions, seen: list[int],
        mask: Tensor,
    ) -> Output:  # fmt: skip
        """A pass of chunks x (B, F, h, w, C) at `places`, with what is `seen` in a cache."""
        device = x.device
        return self.dynamics(
            x,
            level,
            said,
            self.order.neighbours(self.latents)[:, places],
            time=torch.tensor([*seen, *places], device=device),
            mask=mask[None].to(device),
            cache=torch.cat([self.kv[p] for p in seen], 3) if seen else None,
        )

    def _remember(self, places: list[int]) -> None:
        seen = self.seen(places[0], self.context) if len(places) == 1 else []
        seen = [p for p in seen if p not in places]
        x = self.latents[:, places]
        said = self.conditions.chunks(torch.tensor(places, device=x.device)).as_context()
        mask = self.context[places][:, [*seen, *places]]
        kv = self.run(places, x, x.new_zeros(x.shape[:2]), said, seen, mask).kv.float()
        self.kv |= dict(zip(places, kv.split(1, 3), strict=True))


class ChunkBetween:
    """`denoise(x, level)` of the chunk at a place, from what is known on either side."""

    def __init__(self, side: Side, place: int) -> None:
        self.side, self.place = side, place
        self.shape = tuple(side.latents.shape[2:])
        self.seen = side.seen(place, side.noisy)

    def __call__(self, x: Tensor, level: Tensor) -> Tensor:
        """Predict the clean chunk (B, h, w, C) from `x` at `level` (B,)."""
        place, side = self.place, self.side
        said = side.conditions.chunks(slice(place, place + 1))
        mask = torch.ones(1, len(self.seen) + 1, dtype=torch.bool)
        return side.run([place], x[:, None], level[:, None], said, self.seen, mask).x[:, 0]
