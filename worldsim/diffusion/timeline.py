"""Denoising chunks from what is known: the layout of training and of stepping.

Training is two-stream teacher forcing: clean context chunks c and noisy targets z run through the
network side by side; c_i sees c_{<=i}, z_i sees c_{<i} and itself. That is exactly the program of
stepping with cached keys and values, where the finished chunk joins the cache inside the next
step's first pass. The network predicts the clean latent (x-prediction, Dreamer 4, 2509.24527).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from worldsim.core import Conditions

from .draws import Draws


class Output(Protocol):
    """What a network's pass returns; see `worldsim.models.dynamics.DynamicsOutput`."""

    @property
    def x(self) -> Tensor: ...  # noqa: D102
    @property
    def features(self) -> Tensor: ...  # noqa: D102
    @property
    def kv(self) -> Tensor: ...  # noqa: D102
    @property
    def state(self) -> Tensor: ...  # noqa: D102


Network = Callable[..., Any]
"""`network(x, noise_level, conditions, neighbour, *, time, mask, cache, prefix) -> Output`: a
`worldsim.models.dynamics.Dynamics`."""


def training_mask(targets: int, window: int, device: torch.device | str = "cpu") -> Tensor:
    """Who looks at whom: c_0..c_{T-1} then z_1..z_T, bool (1, 2T, 2T); `window` context chunks."""
    i = torch.arange(targets, device=device)
    query, key = i[:, None], i[None]
    context = (key <= query) & (key > query - window)  # c_i sees c_{i-W+1}..c_i
    # z_{i+1} sees c_{i-W+1}..c_i, which is the same rule, and itself
    none = torch.zeros_like(context)
    itself = torch.eye(targets, dtype=torch.bool, device=device)
    return torch.cat([torch.cat([context, none], 1), torch.cat([context, itself], 1)])[None]


@dataclass(frozen=True)
class Order:
    """In which order chunks of a timeline come to be, and which are there from the start.

    Attributes:
        rank: (B, n) int64, 0 for the first; i forwards in time, n - 1 - i backwards.
        known: (B, n) bool, given and not to be generated.
    """

    rank: Tensor
    known: Tensor

    @property
    def anchors(self) -> Tensor:
        """(B, n) known chunks that lie ahead: behind the first that is to be generated."""
        missing = torch.where(self.known, self.rank.shape[1], self.rank)
        return self.known & (self.rank > missing.amin(1, keepdim=True))

    def mask(self, window: int) -> Tensor:
        """Who looks at whom, (B, 2n, 2n): known c_0..c_{n-1}, then noisy z_0..z_{n-1}.

        Both look at the `window` chunks that came before (c at `window` - 1 and itself) and at
        anchors ahead. An anchor looks at known chunks only: what lies between is not there yet when
        it is used. Without anchors, forwards, this is `training_mask`.
        """
        query, key = self.rank[:, :, None], self.rank[:, None]
        ahead = self.anchors[:, None] & (key > query)
        context = ((key <= query) & (query - key < window)) | ahead
        context &= ~self.anchors[:, :, None] | self.known[:, None]
        noisy = ((key < query) & (key >= query - window)) | ahead
        itself = torch.eye(self.rank.shape[1], dtype=torch.bool, device=key.device)
        itself = itself.expand_as(noisy)
        rows = torch.cat([context, torch.zeros_like(itself)], 2), torch.cat([noisy, itself], 2)
        return torch.cat(rows, 1)

    def neighbours(self, latents: Tensor) -> Tensor:
        """The chunk beside each (B, n, h, w, C) that came just before it; zeros where none was."""
        backwards = self.rank[:, 0] > self.rank[:, -1]
        edge = torch.zeros_like(latents[:, :1])
        before = torch.cat([edge, latents[:, :-1]], 1)
        after = torch.cat([latents[:, 1:], edge], 1)
        lone = torch.zeros_like(self.known[:, :1])
        left = torch.cat([lone, self.known[:, :-1]], 1)
        right = torch.cat([self.known[:, 1:], lone], 1)
        there = torch.where(backwards[:, None], right, left) | ~self.anchors
        chosen = torch.where(backwards[:, None, None, None, None], after, before)
        return chosen * there[..., None, None, None]


def draw_order(count: int, draws: Draws) -> Order:
    """Orders for training: a known tail, backwards; both ends known, or a random few, forwards."""
    rows = len(draws)
    kind = draws.uniform((rows, 1))
    place = torch.arange(count, device=kind.device).expand(rows, -1)
    head = 1 + draws.integers(max(1, count // 2), (rows, 1))
    tail = 1 + draws.integers(max(1, count // 2 - 1), (rows, 1))
    last = place >= count - tail
    few = (draws.uniform((rows, count)) < 0.25) | (place == 0)
    backwards = kind < 0.4
    known = torch.where(backwards, last, torch.where(kind < 0.8, (place < head) | last, few))
    return Order(torch.where(backwards, count - 1 - place, place), known)


@dataclass(frozen=True)
class Clip:
    """A batch of training clips of T + 1 chunks.

    Attributes:
        latents: (B, T + 1, h, w, C) clean.
        context: (B, T, h, w, C) what the network is shown of the first T: clean, noised or dreamt.
        context_level: (B, T) the noise in it.
        conditions: of the T + 1 chunks.
    """

    latents: Tensor
    context: Tensor
    context_level: Tensor
    conditions: Conditions


def predict(
    network: Network, clip: Clip, noisy: Tensor, level: Tensor, window: int
) -> tuple[Tensor, Tensor]:
    """Clean targets and features from noisy targets (B, T, h, w, C) at `level` (B, T).

    Returns (B, T, h, w, C) and (B, T, dim).
    """
    c, targets = clip.context, clip.context.shape[1]
    past, following = (clip.conditions.chunks(part) for part in (slice(-1), slice(1, None)))
    time = torch.arange(targets, device=c.device)
    out = network(
        torch.cat([c, noisy], 1),
        torch.cat([clip.context_level, level], 1),
        past.as_context().then(following),
        torch.cat([torch.zeros_like(c[:, :1]), c[:, :-1], c], 1),
        time=torch.cat([time, time + 1]),
        mask=training_mask(targets, window, c.device),
    )
    return out.x[:, targets:], out.features[:, targets:]


def predict_ordered(
    network: Network, clip: Clip, noisy: Tensor, level: Tensor, window: int, order: Order
) -> tuple[Tensor, Tensor, Tensor]:
    """`predict` where chunks are known in past and future; see `Order`.

    noisy, level: of the T targets, chunks 1 to T of the clip. order: of its T + 1 chunks. Returns
    clean targets (B, T, h, w, C), features (B, T, dim) and which targets count (B, T): the others
    were known.
    """
    count = clip.latents.shape[1]
    known = order.known[..., None, None, None]
    shown = torch.cat([clip.context, clip.latents[:, -1:]], 1)
    shown = torch.where(known, clip.latents, shown)  # what is given is the truth
    shown_level = torch.cat([clip.context_level, torch.zeros_like(clip.context_level[:, :1])], 1)
    shown_level = shown_level.masked_fill(order.known, 0.0)
    beside = order.neighbours(shown)
    rows = torch.cat([torch.arange(count), torch.arange(count + 1, 2 * count)]).to(noisy.device)
    time = torch.arange(count, device=noisy.device)
    out = network(
        torch.cat([shown, noisy], 1),
        torch.cat([shown_level, level], 1),
        clip.conditions.as_context().then(clip.conditions.chunks(slice(1, None))),
        torch.cat([beside, beside[:, 1:]], 1),
        time=torch.cat([time, time[1:]]),
        mask=order.mask(window)[:, rows][:, :, rows],
    )
    return out.x[:, count:], out.features[:, count:], ~order.known[:, 1:]


def fill_cache(network: Network, latents: Tensor, conditions: Conditions, filled: Tensor) -> Tensor:
    """Keys and values of all context chunks but the newest, in one pass.

    latents: (B, W, h, w, C), conditions of as many; the newest `filled` (B,) chunks are real.
    Returns (B, layers, 2, W - 1, S, heads, dim).
    """
    count = latents.shape[1] - 1
    real = torch.arange(count + 1, 1, -1, device=filled.device) <= filled[:, None]  # (B, W - 1)
    past = latents[:, :-1]
    i = torch.arange(count, device=filled.device)
    mask = (i[None] <= i[:, None]) & real[:, None]
    out = network(
        past,
        past.new_zeros(past.shape[:2]),
        conditions.chunks(slice(-1)),
        torch.cat([torch.zeros_like(past[:, :1]), past[:, :-1]], 1),
        time=range(count),
        mask=mask | torch.eye(count, dtype=torch.bool, device=filled.device),
    )
    return out.kv.float()


class ChunkDenoiser:
    """`denoise(x, level)` of the chunk after `newest`, and the cache that grows by `newest`.

    The first call runs `newest` and the noisy chunk in one pass; later calls run the noisy chunk
    alone against the cache. Where the cache holds `newest` already, so does the first.

    Attributes:
        features: (B, dim) of the last call's noisy chunk.
        state: (B, D), its state vector, by the last call; (B, 0) in a world without.
        answers: (B, h, w, C) of every call so far.
    """

    def __init__(
        self,
        network: Network,
        newest: Tensor,
        previous: Tensor,
        conditions: Conditions,
        cache: Tensor,
        filled: Tensor,
        window: int,
        prefix: Tensor | None = None,
    ) -> None:
        """Newest and previous (B, h, w, C); conditions of two chunks, the newest and the next.

        cache: (B, layers, 2, n, S, heads, dim); filled: (B,) context chunks that are real,
        `newest` among them. prefix: (R, layers, 2, older, S, heads, dim), what rows beside each
        other share of the past, or None. older + n is `window` - 1, or `window` with `newest`.
        """
        self.network, self.newest, self.previous = network, newest, previous
        self.conditions, self.past, self.filled = conditions, cache, filled
        self.window, self.prefix = window, prefix
        held = cache.shape[3] + (0 if prefix is None else prefix.shape[3])
        self.joined: Tensor | None = cache[:, :, :, :0] if held == window else None
        self._full: Tensor | None = None
        self.features: Tensor | None = None
        self.state = conditions.state[:, -1] if conditions.state.shape[1] else conditions.state
        self.answers: list[Tensor] = []

    @property
    def shape(self) -> tuple[int, ...]:
        """(h, w, C) of a chunk."""
        return tuple(self.newest.shape[1:])

    @property
    def following(self) -> tuple[Tensor, Tensor | None]:
        """The next step's cache and prefix: `newest` has joined, the oldest chunk has left."""
        assert self.joined is not None, "denoise at least once"
        if self.prefix is None:
            return torch.cat([self.past[:, :, :, 1:], self.joined], 3), None
        rest = self.prefix[:, :, :, 1:]
        return self.full, rest if rest.shape[3] else None

    @property
    def full(self) -> Tensor:
        """The cache with `newest`, made when first asked for: one-pass samplers never do."""
        assert self.joined is not None
        if self._full is None:
            self._full = torch.cat([self.past, self.joined], 3)
        return self._full

    def __call__(self, x: Tensor, level: Tensor) -> Tensor:
        """Predict the clean chunk (B, h, w, C) from `x` at `level` (B,)."""
        answer = self._first(x, level) if self.joined is None else self._later(x, level)
        self.answers.append(answer)
        return answer

    def join(self) -> Tensor:
        """Keys and values of the whole context, (B, layers, 2, window, S, heads, dim).

        A pass of `newest` alone, which sees no action but those that led into the context.
        """
        if self.joined is None:
            out = self.network(
                self.newest[:, None],
                self.newest.new_zeros(len(self.newest), 1),
                self.conditions.chunks(slice(1)),
                self.previous[:, None],
                time=range(self.window),
                mask=self._sight(2)[:, :1, : self.window],
                cache=self.past,
            )
            self.joined = out.kv.to(self.past.dtype)
        return self.full

    def _sight(self, queries: int) -> Tensor:
        """What `queries` chunks, each after the one before, see: (B, queries, window + 1).

        All see the context's real chunks; the noisy one, which is last, also sees itself.
        """
        place = torch.arange(self.window + 1, device=self.filled.device)
        real = (place >= self.window - self.filled[:, None]) & (place < self.window)
        noisy = torch.arange(queries, device=place.device) == queries - 1
        return real[:, None] | (noisy[:, None] & (place == self.window))

    def _run(self, x: Tensor, noise_level: Tensor, neighbour: Tensor, cache: Tensor) -> Output:
        count = x.shape[1]
        out = self.network(
            x,
            noise_level,
            self.conditions.chunks(slice(-count, None)),
            neighbour,
            time=range(self.window + 1),
            mask=self._sight(count),
            cache=cache,
            prefix=self.prefix,
        )
        self.features = out.features[:, -1]
        self.state = out.state[:, -1] if out.state.shape[1] else out.state
        return out

    def _first(self, x: Tensor, level: Tensor) -> Tensor:
        out = self._run(
            torch.stack([self.newest, x], 1),
            torch.stack([torch.zeros_like(level), level], 1),
            torch.stack([self.previous, self.newest], 1),
            self.past,
        )
        self.joined = out.kv[:, :, :, :1].to(self.past.dtype)
        return out.x[:, 1]

    def _later(self, x: Tensor, level: Tensor) -> Tensor:
        return self._run(x[:, None], level[:, None], self.newest[:, None], self.full).x[:, 0]
