"""Denoising chunks from their past: the layout of training and of stepping, and the loss.

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

from .samplers import corrupt


class Output(Protocol):
    """What a network's pass returns; see `worldsim.models.dit.DiTOutput`."""

    @property
    def x(self) -> Tensor: ...  # noqa: D102
    @property
    def features(self) -> Tensor: ...  # noqa: D102
    @property
    def kv(self) -> Tensor: ...  # noqa: D102


Network = Callable[..., Any]
"""`network(x, before, level, action, *, time, mask, cache) -> Output`, as `VideoDiT.forward`."""


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
class Clip:
    """A batch of training clips of T + 1 chunks.

    Attributes:
        latents: (B, T + 1, h, w, C) clean.
        context: (B, T, h, w, C) what the network is shown of the first T: clean, noised or dreamt.
        context_level: (B, T) the noise in it.
        actions: (B, T + 1, *action).
    """

    latents: Tensor
    context: Tensor
    context_level: Tensor
    actions: Tensor


def predict(
    network: Network, clip: Clip, noisy: Tensor, level: Tensor, window: int
) -> tuple[Tensor, Tensor]:
    """Clean targets and features from noisy targets (B, T, h, w, C) at `level` (B, T).

    Returns (B, T, h, w, C) and (B, T, dim).
    """
    c, targets = clip.context, clip.context.shape[1]
    before = torch.cat([torch.zeros_like(c[:, :1]), c[:, :-1], c], 1)
    time = torch.arange(targets, device=c.device)
    out = network(
        torch.cat([c, noisy], 1),
        before,
        torch.cat([clip.context_level, level], 1),
        torch.cat([clip.actions[:, :-1], clip.actions[:, 1:]], 1),
        time=torch.cat([time, time + 1]),
        mask=training_mask(targets, window, c.device),
    )
    return out.x[:, targets:], out.features[:, targets:]


def draw_levels(shape: tuple[int, ...], g: torch.Generator) -> Tensor:
    """Noise levels: logit-normal of spread 1.2, a fifth uniform, a twentieth exactly 1."""
    level = torch.sigmoid(1.2 * torch.randn(shape, generator=g))
    kind, flat = torch.rand(shape, generator=g), torch.rand(shape, generator=g)
    level = torch.where(kind < 0.2, flat, level)
    return torch.where(kind > 0.95, torch.ones(()), level).clamp(min=1e-3)


def noise_context(latents: Tensor, most: float, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Context (B, T, ...) with one told noise level a clip, U(0, most) or, for a fifth, none.

    A network that has only seen clean context trusts its own mistakes (GameNGen, 2408.14837).
    """
    shape = latents.shape[:2]
    told = most * torch.rand(shape[0], 1, generator=g)
    told = torch.where(torch.rand(shape[0], 1, generator=g) < 0.2, 0.0, told).expand(shape)
    return corrupt(latents, torch.randn(latents.shape, generator=g), told), told


def ramp(level: Tensor) -> Tensor:
    """Weight of the error at a level, 0.1 + 0.9 (1 - t) (Dreamer 4)."""
    return 0.1 + 0.9 * (1 - level)


def chunk_error(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error of each chunk: two (B, T, h, w, C) -> (B, T)."""
    return ((a - b) ** 2).mean((2, 3, 4))


def fill_cache(network: Network, latents: Tensor, actions: Tensor, filled: Tensor) -> Tensor:
    """Keys and values of all context chunks but the newest, in one pass.

    latents: (B, W, h, w, C), actions: (B, W, *action); the newest `filled` (B,) chunks are real.
    Returns (B, layers, 2, W - 1, S, heads, dim).
    """
    count = latents.shape[1] - 1
    real = torch.arange(count + 1, 1, -1, device=filled.device) <= filled[:, None]  # (B, W - 1)
    past = latents[:, :-1]
    i = torch.arange(count, device=filled.device)
    mask = (i[None] <= i[:, None]) & real[:, None]
    out = network(
        past,
        torch.cat([torch.zeros_like(past[:, :1]), past[:, :-1]], 1),
        past.new_zeros(past.shape[:2]),
        actions[:, :-1],
        time=i,
        mask=mask | torch.eye(count, dtype=torch.bool, device=filled.device),
    )
    return out.kv.float()


class ChunkDenoiser:
    """`denoise(x, level)` of the chunk after `newest`, and the cache that grows by `newest`.

    The first call runs `newest` and the noisy chunk in one pass; later calls run the noisy chunk
    alone against the cache.

    Attributes:
        cache: (B, layers, 2, W - 1, S, heads, dim) with `newest` as its last chunk.
        features: (B, dim) of the last call's noisy chunk.
        answers: (B, h, w, C) of every call so far.
    """

    def __init__(
        self,
        network: Network,
        newest: Tensor,
        previous: Tensor,
        actions: Tensor,
        cache: Tensor,
        filled: Tensor,
    ) -> None:
        """Newest and previous (B, h, w, C); actions (B, 2, *action) into newest and the next.

        cache: (B, layers, 2, W - 1, S, heads, dim); filled: (B,) context chunks that are real,
        `newest` among them.
        """
        self.network, self.newest, self.previous = network, newest, previous
        self.actions, self.past, self.filled = actions, cache, filled
        self.features: Tensor | None = None
        self.answers: list[Tensor] = []
        self.full: Tensor | None = None

    @property
    def cache(self) -> Tensor:
        """The next step's cache."""
        assert self.full is not None, "denoise at least once"
        return self.full[:, :, :, 1:]

    def __call__(self, x: Tensor, level: Tensor) -> Tensor:
        """Predict the clean chunk (B, h, w, C) from `x` at `level` (B,)."""
        answer = self._first(x, level) if self.full is None else self._later(x, level)
        self.answers.append(answer)
        return answer

    def _seen(self, size: int) -> Tensor:
        """Which of the `size` newest context chunks are real, (B, size)."""
        back = torch.arange(size, 0, -1, device=self.filled.device)
        return back <= self.filled[:, None]

    def _first(self, x: Tensor, level: Tensor) -> Tensor:
        window = self.past.shape[3] + 1
        seen = self._seen(window)
        mask = torch.stack([seen, seen], 1)  # both look at the past and at newest
        itself = torch.tensor([[False], [True]], device=x.device).expand(len(x), 2, 1)
        out = self.network(
            torch.stack([self.newest, x], 1),
            torch.stack([self.previous, self.newest], 1),
            torch.stack([torch.zeros_like(level), level], 1),
            self.actions,
            time=torch.arange(window + 1, device=x.device),
            mask=torch.cat([mask, itself], 2),
            cache=self.past,
        )
        joined = out.kv[:, :, :, :1].to(self.past.dtype)
        self.full = torch.cat([self.past, joined], 3)
        self.features = out.features[:, 1]
        return out.x[:, 1]

    def _later(self, x: Tensor, level: Tensor) -> Tensor:
        assert self.full is not None
        window = self.full.shape[3]
        mask = torch.cat([self._seen(window), torch.ones_like(self.filled[:, None]).bool()], 1)
        out = self.network(
            x[:, None],
            self.newest[:, None],
            level[:, None],
            self.actions[:, 1:],
            time=torch.arange(window + 1, device=x.device),
            mask=mask[:, None],
            cache=self.full,
        )
        self.features = out.features[:, 0]
        return out.x[:, 0]
