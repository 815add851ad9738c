"""What a world costs: FLOPs of training and of a step, memory of an env, from closed formulas.

Counted are matrix products and convolutions, a multiply-add as two FLOPs; norms, softmax and other
elementwise work are not, as in PyTorch's FlopCounterMode, which these formulas equal to the last
digit (tests/test_compute.py). Convolutions count their padded borders.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import nn

from worldsim.core import ActionSpec, WorldError
from worldsim.models.dynamics import Dynamics
from worldsim.models.vae import DOWN, SpacetimeVAE
from worldsim.presets import Sizes
from worldsim.train.context import DREAMT_FROM, DREAMT_PASSES
from worldsim.train.distill import DistillationConfig
from worldsim.train.dynamics import DynamicsTrainingConfig
from worldsim.train.recipe import Recipe


@dataclass(frozen=True)
class Cost:
    """FLOPs of a pass forward, and of the pass back that training adds."""

    forward: int = 0
    backward: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.forward + other.forward, self.backward + other.backward)

    def __mul__(self, times: int) -> Cost:
        return Cost(self.forward * times, self.backward * times)


Parts = dict[str, Cost]
"""The cost of a pass by part: space, time, mlp, condition, patchify, unpatchify, heads, ..."""


def product(rows: int, inside: int, outside: int, *, first: bool = False) -> Cost:
    """A matrix product (rows, inside) @ (inside, outside).

    Going back it costs as much again for each of its two factors; where the left one is data, not
    activations (`first`), nobody asks for its gradient.
    """
    forward = 2 * rows * inside * outside
    return Cost(forward, forward if first else 2 * forward)


def together(*passes: Parts) -> Parts:
    """Passes one after another, added up by part."""
    names = dict.fromkeys(name for parts in passes for name in parts)
    return {name: sum((p.get(name, Cost()) for p in passes), Cost()) for name in names}


def repeated(parts: Parts, times: int) -> Parts:
    """The same pass `times` times."""
    return {name: cost * times for name, cost in parts.items()}


def forward_flops(parts: Parts) -> int:
    """FLOPs of a pass that nobody learns from."""
    return sum(cost.forward for cost in parts.values())


def training_flops(parts: Parts) -> int:
    """FLOPs of a pass and its gradients: three times the forward pass, less what touches data."""
    return sum(cost.forward + cost.backward for cost in parts.values())


@dataclass(frozen=True)
class Networks:
    """The networks of a world at the size of its frames and actions.

    Attributes:
        sizes: a preset, from `worldsim.presets`.
        frame: (height, width) in pixels.
        action: what an action is.
    """

    sizes: Sizes
    frame: tuple[int, int]
    action: ActionSpec

    def __post_init__(self) -> None:
        if min(self.frame) < DOWN or any(side % DOWN for side in self.frame):
            raise WorldError(
                f"frame: expected (height, width), both divisible by {DOWN}, got {self.frame}; "
                "resize or pad the frames"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Latent (height, width)."""
        return self.frame[0] // DOWN, self.frame[1] // DOWN

    @property
    def tokens(self) -> int:
        """Tokens of a chunk."""
        return prod(self.sizes.dit.grid(*self.grid))

    def denoiser(self, chunks: int, keys: int | None = None) -> Parts:
        """A pass of the video DiT over `chunks` that look at `keys` (themselves and the cache).

        Masked products are computed and thrown away, so they count.
        """
        dit, dim, tokens = self.sizes.dit, self.sizes.dit.dim, chunks * self.tokens
        size = prod(dit.patch) * self.sizes.vae.channels
        # A level is 32 waves, each entry of an action 9 (nn/embed.py); a choice is looked up.
        entries = 32 + 9 * len(self.action.low)
        kv = 2 * dit.kv_heads * dit.head_dim
        space = product(tokens, dim, 4 * dim) + product(tokens, dim, 2 * self.tokens)
        time = product(tokens, dim, 2 * dim + kv) + product(tokens, dim, 2 * (keys or chunks))
        return {
            "patchify": product(tokens, 2 * size, dim, first=True),
            # mix, nine modulations for all blocks, two for the last norm: once a chunk, not a token
            "condition": product(chunks, entries, dim, first=True)
            + product(chunks, dim, (1 + 9 + 2) * dim),
            "space": space * dit.depth,
            "time": time * dit.time_layers,
            "mlp": product(tokens, dim, 2 * dit.mlp * dim) * dit.depth,
            "unpatchify": product(tokens, dim, size),
        }

    def heads(self, chunks: int) -> Parts:
        """Reward and end; the latter's single column is a sum, not a product (models/heads.py)."""
        heads = self.sizes.heads
        return {"heads": product(chunks, self.sizes.dit.dim + heads.bins, heads.hidden)}

    def encoder(self, chunks: int) -> Parts:
        """The VAE's way to latents, of `chunks` chunks."""
        vae = self.sizes.vae
        first, blocks, between, last = self._convolutions(chunks, vae.widths, vae.blocks)
        return {
            "encoder": product(first, 9 * 2 * vae.chunk * 48, vae.widths[0], first=True)
            + blocks
            + between
            + product(last, 9 * vae.widths[1], 2 * vae.channels)
        }

    def decoder(self, chunks: int) -> Parts:
        """The VAE's way to pixels, of `chunks` chunks."""
        vae = self.sizes.vae
        widths, counts = vae.decoder_widths or vae.widths, vae.decoder_blocks or vae.blocks
        last, blocks, between, first = self._convolutions(chunks, widths, counts)
        return {
            "decoder": product(first, 9 * 2 * vae.channels, widths[1])
            + blocks
            + between
            + product(last, vae.decoder_reach**2 * widths[0], vae.chunk * 48)
        }

    def _convolutions(
        self, chunks: int, widths: tuple[int, int], counts: tuple[int, int]
    ) -> tuple[int, Cost, Cost, int]:
        """What both ways share: places at 1/4, all blocks, the 1x1 between, places at 1/8."""
        coarse = chunks * prod(self.grid)
        fine = 4 * coarse
        blocks = Cost()
        for places, width, count in zip((fine, coarse), widths, counts, strict=True):
            blocks += product(places, 9 * width, 2 * width) * count
        return fine, blocks, product(coarse, 4 * widths[0], widths[1]), coarse

    def step(self, passes: int = 1, *, pixels: bool = True, cached: bool = True) -> Parts:
        """One step of one env: `passes` denoising passes, the heads, and pixels where asked for.

        The first pass takes the newest chunk along, which joins the cache there; later ones run
        the noisy chunk alone. Without a cache every pass would run the whole context again.
        """
        if passes < 1:
            raise WorldError(f"passes: expected at least 1, got {passes}")
        window = self.sizes.context
        first = self.denoiser(2 if cached else window + 1, window + 1)
        later = self.denoiser(1, window + 1) if cached else first
        shown = self.decoder(1) if pixels else {}
        return together(first, repeated(later, passes - 1), self.heads(1), shown)

    @cached_property
    def parameters(self) -> dict[str, int]:
        """Parameters of vae, dit and heads, counted on the real modules, none of them filled."""
        with torch.device("meta"):
            vae = SpacetimeVAE(self.sizes.vae)
            both = Dynamics(self.sizes.dit, self.sizes.heads, self.sizes.vae.channels, self.action)
        parts: dict[str, nn.Module] = {
            "encoder": vae.encoder, "decoder": vae.decoder, "dit": both.dit, "heads": both.heads,
        }  # fmt: skip
        return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}

    @property
    def kv_bytes(self) -> int:
        """Keys and values of one env, float32: all context chunks but the newest."""
        dit = self.sizes.dit
        each = dit.time_layers * 2 * self.tokens * dit.kv_heads * dit.head_dim
        return 4 * each * (self.sizes.context - 1)

    @property
    def state_bytes(self) -> int:
        """All of an env's `WorldState`: latents, actions, counters, keys and the cache."""
        latent = 4 * prod(self.grid) * self.sizes.vae.channels
        entry = self.action.dtype.itemsize * prod(self.action.shape)
        counters = 8 * (1 + 1 + 2)  # filled, age, key
        return self.sizes.context * (latent + entry) + counters + self.kv_bytes

    def weight_bytes(self, *, pixels: bool = True, width: int = 2) -> int:
        """Weights that stepping needs, `width` bytes each (2 is bf16)."""
        count = self.parameters
        return width * (count["dit"] + count["heads"] + pixels * count["decoder"])

    def traffic(self, batch: int, passes: int = 1, *, pixels: bool = True) -> int:
        """Least bytes to and from memory for one step of `batch` envs.

        Weights are read once a pass for the whole batch, each env's cache once a pass, and each
        state is written once; activations are taken to stay on the chip.
        """
        later = 2 * self.parameters["dit"] + batch * self.kv_bytes
        first = self.weight_bytes(pixels=pixels) + batch * (self.kv_bytes + self.state_bytes)
        return first + (passes - 1) * later


@dataclass(frozen=True)
class Pass:
    """A pass within a training step.

    Attributes:
        parts: of one clip.
        learns: whether gradients are asked for.
        share: of the clips that take it.
    """

    parts: Parts
    learns: bool = True
    share: float = 1.0

    @property
    def flops(self) -> float:
        """FLOPs of a clip, on average."""
        count = training_flops if self.learns else forward_flops
        return self.share * count(self.parts)


@dataclass(frozen=True)
class Stage:
    """A training run: `steps` times `batch` clips times its passes. The optimiser is not counted.

    Attributes:
        name: vae, forced, teacher, student.
        steps, batch: of the run.
        passes: of every step.
    """

    name: str
    steps: int
    batch: int
    passes: tuple[Pass, ...]

    @property
    def flops(self) -> float:
        """FLOPs of the whole run."""
        return self.steps * self.batch * sum(p.flops for p in self.passes)


def stages(networks: Networks, recipe: Recipe) -> tuple[Stage, ...]:
    """The runs of `worldsim.train.recipe`, one after another.

    The recording is encoded once on the way, an encoder pass a chunk, which is not among them.
    """
    vae, student = recipe.vae, recipe.distill
    seen = together(networks.encoder(vae.clip_chunks), networks.decoder(vae.clip_chunks))
    answer = Pass(networks.denoiser(2 * student.targets), learns=False)  # of the averaged student
    return (
        Stage("vae", vae.fit.steps, vae.fit.batch, (Pass(seen),)),
        _dynamics("forced", networks, recipe.forced),
        _dynamics("teacher", networks, recipe.teacher),
        _dynamics("student", networks, student, answer),
    )


def _dynamics(
    name: str, networks: Networks, run: DynamicsTrainingConfig | DistillationConfig, *more: Pass
) -> Stage:
    """A run on dreamlike context: some clips take passes without gradients to make theirs."""
    resampling = Pass(networks.denoiser(2 * run.targets), learns=False, share=run.resample)
    dreaming = Pass(dreamt_context(networks, run.targets), learns=False, share=run.dreamt)
    learning = Pass(two_streams(networks, run.targets))
    return Stage(name, run.fit.steps, run.fit.batch, (resampling, dreaming, *more, learning))


def dreamt_context(networks: Networks, targets: int) -> Parts:
    """A context dreamt chunk by chunk (`dream_context`): its start in one pass, then steps."""
    window = networks.sizes.context
    later = repeated(networks.denoiser(1, window + 1), DREAMT_PASSES - 1)
    chunk = together(networks.denoiser(2, window + 1), later)
    return together(networks.denoiser(window - 1), repeated(chunk, max(0, targets - DREAMT_FROM)))


def two_streams(networks: Networks, targets: int) -> Parts:
    """Clean context beside as many noisy targets (`predict`), and the heads on the targets."""
    return together(networks.denoiser(2 * targets), networks.heads(targets))
