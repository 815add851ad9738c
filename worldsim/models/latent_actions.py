"""The latent action model: what was done between two chunks of video, told from the video alone.

An inverse dynamics model sees a short window of chunks and says in a few numbers what led into the
newest; a forward model sees the window's past and these numbers, and must foretell the newest. So
they hold what the past does not tell, which in a world with a player is what the player did (Genie,
2402.15391; LAPO, 2312.10812). How much they may hold is bounded: by a rate of information where
they are continuous (2601.05230), by eight codes where someone plays (FSQ, 2309.15505).

Both see pictures along a basis of the recording's own: its principal components, of pictures and of
changes. So small networks learn in a minute of one CPU core what convolutions need an hour for;
pictures are soft, and sharp ones are the world's to draw. Where the camera goes along with the
player no few components draw what comes next: there both may see pixels, and move them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from worldsim.core import ActionSpec, WorldError
from worldsim.fields import ABSENT

from .moving import MovingForward, MovingInverse
from .vae import to_float

STILL = 2 / 255
"""Of 0..1: a clip in which no channel of any pixel changes by more shows nothing that was done."""

LOUD, QUIET = 4.0, -4.0
"""Gain of an untrained model's codes, and their log-variance."""

PARTS = 128  # principal components
SOFT = 0.01  # of the largest component's size
HIDDEN = 256  # units
MISSED = 0.05  # a squared error of pixels, -1 to 1, that counts as 1


@dataclass(frozen=True, kw_only=True)
class LatentActionConfig:
    """Sizes of a latent action model.

    Attributes:
        chunk: frames a chunk.
        size: (height, width) that frames are reduced to, multiples of 8.
        dim: numbers of a latent action.
        levels: values that each of them may take, evenly from -1 to 1 (FSQ); () for any value.
        window: chunks that the inverse model sees, 2 or more; the newest is the one asked about.
        action: what a linear readout tells, too, where some labels were given; "none" without.
        moves: whether a latent action moves the picture before, by an affine map, instead of
            changing its principal components: for cameras that go along with the player.
    """

    chunk: int
    size: tuple[int, int] = (32, 32)
    dim: int = 6
    levels: tuple[int, ...] = ()
    window: int = 2
    action: ActionSpec = ActionSpec(kind="none")
    moves: bool = field(default=False, metadata=ABSENT)

    def __post_init__(self) -> None:
        rules = {
            "chunk": (self.chunk >= 1, "1 or more"),
            "size": (min(self.size) > 0 and not any(s % 8 for s in self.size), "multiples of 8"),
            "dim": (1 <= self.dim <= 64, "1 to 64"),
            "levels": (
                not self.levels or (len(self.levels) == self.dim and min(self.levels) > 1),
                f"2 or more for each of {self.dim} numbers, or none",
            ),
            "window": (self.window >= 2, "2 or more"),
        }
        for name, (fits, expected) in rules.items():
            if not fits:
                raise ValueError(f"{name}: expected {expected}, got {getattr(self, name)}")

    @property
    def codes(self) -> int:
        """How many different latent actions there are, 0 where they are continuous."""
        return prod(self.levels) if self.levels else 0


class Inferred(NamedTuple):
    """Latent actions of a clip of n chunks; the first `window - 1` are zeros, of confidence 0.

    Attributes:
        latent: (B, n, L) float32; `latent[:, k]` led into chunk k.
        confidence: (B, n) from 0, nothing is known, to 1.
    """

    latent: Tensor
    confidence: Tensor


class Code(NamedTuple):
    """Parameters of latent actions, each (..., L): mean and log-variance, or where no noise is
    added the unquantised values in [-1, 1] and zeros."""

    mean: Tensor
    logvar: Tensor

    def kl(self) -> Tensor:
        """KL divergence from a unit normal, nats, (...)."""
        return 0.5 * (self.mean**2 + self.logvar.exp() - 1 - self.logvar).sum(-1)


def _heard(last: nn.Linear, dim: int) -> nn.Linear:
    """A layer that tells codes, begun loud: codes that begin as noise are soon not listened to."""
    with torch.no_grad():
        last.weight[:dim] *= LOUD
        last.bias[dim:] = QUIET
    return last


def _perceptron(narrow: int, wide: int, out: nn.Linear) -> nn.Sequential:
    return nn.Sequential(nn.Linear(narrow, wide), nn.SiLU(), nn.Linear(wide, wide), nn.SiLU(), out)


class InverseDynamics(nn.Module):
    """A window of chunks -> parameters of the latent action that led into the newest."""

    def __init__(self, config: LatentActionConfig) -> None:
        super().__init__()
        last = nn.Linear(HIDDEN, 2 * config.dim)
        self.body = _perceptron(config.window * PARTS, HIDDEN, last)
        _heard(last, config.dim)

    def forward(self, window: Tensor) -> Tensor:
        """`(..., window * PARTS)` -> `(..., 2 L)`."""
        return self.body(window)


class ForwardDynamics(nn.Module):
    """Chunks and a latent action -> the chunk that follows, along the basis; what is foretold is
    the past of what comes after it."""

    def __init__(self, config: LatentActionConfig) -> None:
        super().__init__()
        narrow = (config.window - 1) * PARTS + config.dim
        self.body = _perceptron(narrow, HIDDEN, nn.Linear(HIDDEN, PARTS))

    def forward(self, first: Tensor, latent: Tensor) -> Tensor:
        """`(B, window - 1, PARTS)` and T latent actions `(B, T, L)` -> `(B, T, PARTS)`."""
        chunks = list(first.unbind(1))
        for said in latent.unbind(1):
            chunks.append(self.body(torch.cat([*chunks[-first.shape[1] :], said], -1)))
        return torch.stack(chunks[first.shape[1] :], 1)


def _dynamics(
    config: LatentActionConfig,
) -> tuple[InverseDynamics | MovingInverse, ForwardDynamics | MovingForward]:
    if not config.moves:
        return InverseDynamics(config), ForwardDynamics(config)
    inverse = MovingInverse(config.chunk, config.size, config.window, 2 * config.dim)
    _heard(inverse.last, config.dim)
    return inverse, MovingForward(config.chunk, config.size, config.dim)


class LatentActionModel(nn.Module):
    """Both models, and a linear readout of the actions that labels were given of.

    Buffers: `mean` (D,), `basis` (PARTS, D) and `size` (PARTS,), the mean chunk of D = chunk * 3 *
    h * w numbers, the principal components and their standard deviations; `spread` (L,), the
    standard deviation of each number of a latent action, measured after training.
    """

    mean: Tensor
    basis: Tensor
    size: Tensor
    spread: Tensor

    def __init__(self, config: LatentActionConfig) -> None:
        super().__init__()
        self.config = config
        self.inverse, self.ahead = _dynamics(config)
        action = config.action
        outs = sum(action.choices) if action.is_discrete else len(action.low)
        self.readout = None if action.kind == "none" else nn.Linear(config.dim, outs)
        pixels = config.chunk * 3 * config.size[0] * config.size[1]
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("basis", torch.zeros(PARTS, pixels))
        self.register_buffer("size", torch.ones(PARTS))
        self.register_buffer("spread", torch.ones(config.dim))

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.spread.device

    def prepared(self, frames: Tensor) -> Tensor:
        """Frames (B, n * chunk, H, W, 3) uint8 as the networks see them, (B, n, chunk * 3, h, w).

        Raises WorldError for frames of another kind.
        """
        chunk = self.config.chunk
        if frames.ndim != 5 or frames.shape[-1] != 3 or frames.dtype != torch.uint8:
            got = f"{frames.dtype} {tuple(frames.shape)}"
            raise WorldError(f"frames: expected uint8 (B, n * {chunk}, H, W, 3), got {got}")
        if frames.shape[1] % chunk:
            raise WorldError(
                f"frames: expected a multiple of {chunk} (a chunk), got {frames.shape[1]}; cut them"
            )
        flat = rearrange(to_float(frames.to(self.device)), "b t h w k -> (b t) k h w")
        small = F.interpolate(flat, self.config.size, mode="area")
        return rearrange(small, "(b n c) k h w -> b n (c k) h w", b=len(frames), c=chunk)

    def fit_basis(self, chunks: Tensor) -> None:
        """Set the basis from chunks (N, n, chunk * 3, h, w): principal components of the pictures
        and, counted as often again, of the changes from chunk to chunk: what moves may be small."""
        flat = chunks.flatten(2)
        self.mean.copy_(flat.mean((0, 1)))
        pictures = (flat - self.mean).flatten(0, 1)
        rows = torch.cat([pictures, 2 * (flat[:, 1:] - flat[:, :-1]).flatten(0, 1)])
        parts = min(PARTS, *rows.shape)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            axes = torch.svd_lowrank(rows, q=parts, niter=4)[2].T
        self.basis.zero_()
        self.basis[:parts] = axes
        self.size[:parts] = (pictures @ axes.T).std(0).clamp(min=1e-3)

    @property
    def scale(self) -> Tensor:
        """(PARTS,) by which components are divided; the small ones are not blown up to be noise."""
        return self.size + SOFT * self.size.max()

    def components(self, chunks: Tensor) -> Tensor:
        """Chunks (..., chunk * 3, h, w) along the basis, (..., PARTS), about unit variance."""
        return (chunks.flatten(-3) - self.mean) @ self.basis.T / self.scale

    def parts(self, chunks: Tensor) -> Tensor:
        """Chunks (..., chunk * 3, h, w) as the dynamics see them, (..., P): their components, or
        the pixels themselves where these are moved."""
        return chunks.flatten(-3) if self.config.moves else self.components(chunks)

    def pictures(self, parts: Tensor) -> Tensor:
        """`parts` backwards, as near as the basis comes."""
        flat = parts if self.config.moves else (parts * self.scale) @ self.basis + self.mean
        return flat.unflatten(-1, (self.config.chunk * 3, *self.config.size))

    def missed(self, foretold: Tensor, parts: Tensor) -> Tensor:
        """Mean squared error of what was foretold, each of the parts as pixels count."""
        error = (foretold - parts) ** 2
        if self.config.moves:
            return error.mean() / MISSED
        return (error * (self.scale**2 / (self.scale**2).mean())).mean()

    def code(self, parts: Tensor) -> Code:
        """Parameters for the `window`-th chunk on, (B, n, P) -> (B, n - window + 1, L)."""
        config, count = self.config, parts.shape[1] - self.config.window + 1
        window = torch.cat([parts[:, i : i + count] for i in range(config.window)], -1)
        mean, logvar = rearrange(self.inverse(window), "b t (m l) -> m b t l", m=2)
        if config.levels:
            return Code(mean.tanh(), torch.zeros_like(mean))
        return Code(mean, logvar.clamp(-8, 2))

    def quantised(self, values: Tensor) -> Tensor:
        """Values in [-1, 1] at their nearest level; gradients pass as if nothing was rounded."""
        if not self.config.levels:
            return values
        half = (values.new_tensor(self.config.levels) - 1) / 2
        nearest = ((values + 1) * half).round() / half - 1
        return values + (nearest - values).detach()

    def codebook(self) -> Tensor:
        """All latent actions there are, (codes, L), by number; WorldError where there is no end."""
        if not self.config.levels:
            raise WorldError("codes: expected a model of codes, got one of continuous latents")
        axes = [torch.linspace(-1, 1, n) for n in self.config.levels]
        return torch.cartesian_prod(*axes).reshape(-1, self.config.dim)

    def numbers(self, latent: Tensor) -> Tensor:
        """Number of the nearest code, (..., L) -> (...) int64."""
        book = self.codebook().to(latent.device)
        return torch.cdist(latent.flatten(0, -2), book).argmin(-1).reshape(latent.shape[:-1])

    @torch.no_grad()
    def infer(self, frames: Tensor) -> Inferred:
        """Latent actions of clips (B, n * chunk, H, W, 3) uint8, n >= window.

        The confidence is the share of a number's spread that the window settles, or how far from
        its neighbours a code lies; it is 0 where nothing moves: what was done then, no picture can
        tell. Raises WorldError for clips that are too short or of another kind.
        """
        chunks, config = self.prepared(frames), self.config
        before, count = config.window - 1, chunks.shape[1]
        if count <= before:
            raise WorldError(
                f"frames: expected {config.window} chunks of {config.chunk} frames or more, got "
                f"{count}; what one picture was led into by, no model can tell"
            )
        code = self.code(self.parts(chunks))
        latent = self.quantised(code.mean)
        if config.levels:
            sure = code.mean.abs().amin(-1)
        else:
            weight = self.spread**2 / (self.spread**2).sum()
            sure = ((1 - code.logvar.exp()).clamp(0, 1) * weight).sum(-1)
        sure = sure * self._moves(chunks)
        blank = latent.new_zeros(len(latent), before, config.dim)
        return Inferred(
            torch.cat([blank, latent], 1), torch.cat([blank[..., 0], sure.clamp(0, 1)], 1)
        )

    def _moves(self, chunks: Tensor) -> Tensor:
        """(B, n - window + 1) whether anything changes from a window's past to its newest chunk."""
        before = self.config.window - 1
        change = (chunks[:, before:, -3:] - chunks[:, before - 1 : -1, -3:]).abs()
        return change.amax((-3, -2, -1)) > 2 * STILL

    @torch.no_grad()
    def actions(self, latent: Tensor) -> Tensor:
        """The readout's actions in the environment's own numbers, (..., L) -> (..., *action).

        Raises WorldError where no labels were given in training.
        """
        spec = self.config.action
        if self.readout is None:
            raise WorldError("labels: expected a model that was trained with some, got none")
        out = self.readout(latent)
        if spec.is_discrete:
            picked = [x.argmax(-1) for x in out.split(list(spec.choices), -1)]
            return (torch.stack(picked, -1) if spec.shape else picked[0]) + spec.least
        return spec.from_normalized(out.clamp(-1, 1))
