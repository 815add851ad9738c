"""The video DiT: a diffusion transformer over spacetime patches (Peebles and Xie 2022).

Attention is axial: within a chunk over its patches in every block, and over chunks at the same
patch in every `time_every`-th block. The network takes a list of F chunks with a time index each
and a mask that says which chunk may look at which, so training with many noisy targets beside
their clean context and stepping with cached keys are the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from worldsim.nn.attention import attend, attend_shared
from worldsim.nn.embed import NoiseLevelEmbed, PositionEmbed
from worldsim.nn.rope import apply_rope, freqs, grid_freqs, rotary, time_freqs
from worldsim.nn.tables import Tables


@dataclass(frozen=True, kw_only=True)
class DiTConfig:
    """Sizes of the video DiT.

    Attributes:
        dim: width of a token, a multiple of `heads`.
        depth: blocks.
        heads: attention heads.
        kv_heads: keys and values of attention over time, each shared by heads / kv_heads queries.
        time_every: every how many blocks attention over time is found.
        patch: (height, width) of a patch of the latent grid; grids are padded to fit.
        mlp: hidden width of the MLP over `dim`.
        residual: whether the output is a change to a chunk's neighbour, which is then an input.
        cross_attention: whether the blocks with attention over time read the tokens of a prompt.
    """

    dim: int = 256
    depth: int = 6
    heads: int = 4
    kv_heads: int = 2
    time_every: int = 2
    patch: tuple[int, int] = (2, 2)
    mlp: int = 4
    residual: bool = True
    cross_attention: bool = False

    def __post_init__(self) -> None:
        for name in ("dim", "depth", "heads", "kv_heads", "time_every", "mlp"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if min(self.patch) < 1 or self.time_every > self.depth:
            raise ValueError(f"patch, time_every: expected 1 to depth, got {self}")
        if self.dim % self.heads or (self.dim // self.heads) % 4:
            raise ValueError(f"dim: expected a multiple of 4 heads, got {self.dim}/{self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads: expected a divisor of {self.heads}, got {self.kv_heads}")

    @property
    def time_layers(self) -> int:
        """Blocks with attention over time."""
        return self.depth // self.time_every

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.dim // self.heads

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Patches of a latent grid."""
        return -(-height // self.patch[0]), -(-width // self.patch[1])


class DiTOutput(NamedTuple):
    """What a pass returns.

    Attributes:
        x: (B, F, h, w, C) predicted clean latents.
        features: (B, F, dim) pooled tokens, for heads.
        kv: (B, layers, 2, F, S, kv_heads, head_dim) keys and values over time of these chunks.
    """

    x: Tensor
    features: Tensor
    kv: Tensor


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """adaLN: normalise tokens (B, F, S, D), then scale and shift by (B, F, D)."""
    x = F.layer_norm(x, x.shape[-1:])
    return x * (1 + scale[:, :, None]) + shift[:, :, None]


class SpaceAttention(nn.Module):
    """Attention over the patches of one chunk."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.out = nn.Linear(config.dim, config.dim)

    def forward(self, x: Tensor, freqs: Tensor) -> Tensor:
        """`(B, F, S, D)`, freqs (2, S, head_dim / 2) -> `(B, F, S, D)`."""
        q, k, v = rearrange(self.qkv(x), "b f s (n h d) -> n (b f) h s d", n=3, h=self.heads)
        q, k = (apply_rope(F.layer_norm(i, i.shape[-1:]), freqs) for i in (q, k))
        y = attend(q, k, v)
        return self.out(rearrange(y, "(b f) h s d -> b f s (h d)", b=len(x)))


class TimeAttention(nn.Module):
    """Attention over chunks, each patch looking at its own place in other chunks."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.kv_heads
        self.q = nn.Linear(config.dim, config.dim, bias=False)
        self.kv = nn.Linear(config.dim, 2 * config.kv_heads * config.head_dim, bias=False)
        self.out = nn.Linear(config.dim, config.dim)

    def forward(
        self,
        x: Tensor,
        freqs: Tensor,
        mask: Tensor,
        cache: Tensor | None,
        prefix: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, F, S, D) look at cached chunks and each other.

        freqs: (2, K, head_dim / 2) of the K = prefix + cached + F chunks. mask: (B, F, K).
        cache: (B, 2, n, S, kv_heads, head_dim). prefix: (B / rows that share it, 2, older, ...).
        Returns tokens and their own (.., F, ..) kv.
        """
        frames = x.shape[1]
        q = rearrange(self.q(x), "b f s (h d) -> b s h f d", h=self.heads)
        kv = rearrange(self.kv(x), "b f s (n h d) -> b n f s h d", n=2, h=self.kv_heads)
        k, v = kv.unbind(1)
        kv = torch.stack([F.layer_norm(k, k.shape[-1:]), v], 1)
        both = kv if cache is None else torch.cat([cache.to(kv.dtype), kv], 2)
        near = self._placed(both, freqs[:, -both.shape[2] :])
        q = apply_rope(F.layer_norm(q, q.shape[-1:]), freqs[:, -frames:])
        if prefix is None:
            y = attend(q, *near, mask[:, None, None])
        else:
            far = self._placed(prefix.to(kv.dtype), freqs[:, : prefix.shape[2]])
            y = attend_shared(q, near, far, mask[:, None, None])
        return self.out(rearrange(y, "b s h f d -> b f s (h d)")), kv

    @staticmethod
    def _placed(kv: Tensor, freqs: Tensor) -> tuple[Tensor, Tensor]:
        """Keys, rotated to their times, and values, each (B, S, kv_heads, F, head_dim)."""
        k, v = rearrange(kv, "b n f s h d -> n b s h f d")
        return apply_rope(k, freqs), v


class CrossAttention(nn.Module):
    """Patches of a chunk look at tokens of a prompt (PixArt-alpha, Chen et al. 2023)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q = nn.Linear(config.dim, config.dim, bias=False)
        self.kv = nn.Linear(config.dim, 2 * config.dim, bias=False)
        self.out = nn.Linear(config.dim, config.dim)

    def forward(self, x: Tensor, tokens: Tensor, reads: Tensor) -> Tensor:
        """`(B, F, S, D)` and tokens `(B, L, D)`; zeros for chunks that do not read, `(B, F)`."""
        q = rearrange(
            self.q(F.layer_norm(x, x.shape[-1:])), "b f s (h d) -> b h (f s) d", h=self.heads
        )
        k, v = rearrange(self.kv(tokens), "b l (n h d) -> n b h l d", n=2, h=self.heads)
        q, k = (F.layer_norm(i, i.shape[-1:]) for i in (q, k))
        y = rearrange(attend(q, k, v), "b h (f s) d -> b f s (h d)", f=x.shape[1])
        return self.out(y) * reads[:, :, None, None]


class Block(nn.Module):
    """Attention over space, over time where it is this block's turn, and an MLP; gated by adaLN."""

    def __init__(self, config: DiTConfig, *, time: bool) -> None:
        super().__init__()
        dim = config.dim
        self.space = SpaceAttention(config)
        self.time = TimeAttention(config) if time else None
        self.cross = CrossAttention(config) if config.cross_attention and time else None
        self.mlp = nn.Sequential(
            nn.Linear(dim, config.mlp * dim), nn.SiLU(), nn.Linear(config.mlp * dim, dim)
        )
        self.table = nn.Parameter(torch.zeros(9, dim))  # adaLN-single (PixArt-alpha 2023)

    def forward(
        self,
        x: Tensor,
        c: Tensor,
        space: Tensor,
        time: Tensor,
        mask: Tensor,
        cache: Tensor | None,
        prefix: Tensor | None = None,
        prompt: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, F, S, D) under modulations c (B, F, 9, D); returns tokens and new kv."""
        m = (c + self.table).unbind(2)
        x = x + m[2][:, :, None] * self.space(modulate(x, m[0], m[1]), space)
        kv = None
        if self.time is not None:
            y, kv = self.time(modulate(x, m[3], m[4]), time, mask, cache, prefix)
            x = x + m[5][:, :, None] * y
        if self.cross is not None and prompt is not None:
            x = x + self.cross(x, *prompt)
        return x + m[8][:, :, None] * self.mlp(modulate(x, m[6], m[7])), kv


class VideoDiT(nn.Module):
    """Predicts clean latents of noisy chunks from the chunks they may look at and a vector each."""

    def __init__(self, config: DiTConfig, channels: int) -> None:
        super().__init__()
        self.config, self.channels, self.tables = config, channels, Tables()
        size = config.patch[0] * config.patch[1] * channels
        self.noise_level = NoiseLevelEmbed(config.dim)
        self.mix = nn.Linear(config.dim, config.dim)
        self.patchify = nn.Linear((2 if config.residual else 1) * size, config.dim)
        self.position = PositionEmbed(config.dim)
        self.modulation = nn.Linear(config.dim, 9 * config.dim)
        self.blocks = nn.ModuleList(
            Block(config, time=(i + 1) % config.time_every == 0) for i in range(config.depth)
        )
        self.last = nn.Linear(config.dim, 2 * config.dim)
        self.unpatchify = nn.Linear(config.dim, size)
        self._init_weights()

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.noise_level.proj.weight, std=0.02)
        for layer in (self.modulation, self.last, self.unpatchify, self.position.proj):
            nn.init.zeros_(layer.weight)
        for module in self.modules():  # a prompt that joins a trained network starts without a say
            if isinstance(module, CrossAttention):
                nn.init.zeros_(module.out.weight)
        with torch.no_grad():  # gates start a little open: a short training cannot wait for them
            self.modulation.bias.view(9, -1)[[2, 5, 8]] = 0.2

    def _patches(self, x: Tensor) -> Tensor:
        """(B, F, h, w, C) -> (B, F, S, p q C), the grid padded with zeros at bottom and right."""
        ph, pw = self.config.patch
        x = F.pad(x, (0, 0, 0, -x.shape[3] % pw, 0, -x.shape[2] % ph))
        return rearrange(x, "b f (y p) (x q) c -> b f (y x) (p q c)", p=ph, q=pw)

    def forward(
        self,
        x: Tensor,
        noise_level: Tensor,
        vector: Tensor,
        neighbour: Tensor,
        *,
        time: Tensor | Sequence[int],
        mask: Tensor,
        cache: Tensor | None = None,
        prefix: Tensor | None = None,
        prompt: tuple[Tensor, Tensor] | None = None,
    ) -> DiTOutput:
        """One pass over F chunks.

        x: (B, F, h, w, C) latents at `noise_level` (B, F) in [0, 1].
        vector: (B, F, dim) what else is said of each.
        neighbour: (B, F, h, w, C) the chunk beside each that is known in the order of generation,
            zeros where none is; the output is a change to it where `config.residual` is set.
        time: (K,) time of the K = prefix + cached + F chunks; only differences matter. What hangs
            on a sequence of numbers is computed once, on a tensor at every pass.
        mask: (B or 1, F, K) bool, True where chunk f may look at chunk k over time.
        cache: (B, layers, 2, cached, S, kv_heads, head_dim) or None.
        prefix: (R, layers, 2, older, S, kv_heads, head_dim), each row shared by B / R rows beside
            each other, or None.
        prompt: tokens (B, L, dim) for cross-attention and which chunks read them (B, F), or None.
        """
        config, (height, width) = self.config, x.shape[2:4]
        rows, columns = config.grid(height, width)
        tokens = self._embed(x, noise_level, neighbour) + self.position(rows, columns)
        c = F.silu(self.mix(F.silu(self.noise_level(noise_level) + vector)))
        modulation = rearrange(self.modulation(c), "b f (n d) -> b f n d", n=9)
        dim = config.head_dim
        space = self.tables(grid_freqs, rows, columns, dim, device=x.device)
        if isinstance(time, Tensor):
            times = freqs(rotary(time, dim))
        else:
            times = self.tables(time_freqs, tuple(time), dim, device=x.device)
        kvs: list[Tensor] = []
        for block in self.blocks:
            past, older = (None if x is None else x[:, len(kvs)] for x in (cache, prefix))
            tokens, kv = block(tokens, modulation, space, times, mask, past, older, prompt)
            if kv is not None:
                kvs.append(kv)
        shift, scale = self.last(c).chunk(2, -1)
        tokens = modulate(tokens, shift, scale)
        ph, pw = config.patch
        x = rearrange(
            self.unpatchify(tokens), "b f (y x) (p q c) -> b f (y p) (x q) c",
            y=rows, p=ph, q=pw,
        )[:, :, :height, :width].float()  # fmt: skip
        x = neighbour + x if config.residual else x
        return DiTOutput(x, tokens.mean(2).float(), torch.stack(kvs, 1))

    def _embed(self, x: Tensor, noise_level: Tensor, neighbour: Tensor) -> Tensor:
        """Tokens (B, F, S, dim) of chunks (B, F, h, w, C), scaled to unit variance."""
        t = noise_level[..., None, None, None]
        patches = self._patches(x * ((1 - t) ** 2 + t**2).rsqrt())
        if self.config.residual:
            patches = torch.cat([patches, self._patches(neighbour)], -1)
        return self.patchify(patches.to(self.patchify.weight.dtype))
