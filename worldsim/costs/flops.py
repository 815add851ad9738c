"""What a world costs: FLOPs of training and of a step, memory of an env, counted on its networks.

The real networks run on the meta device, where nothing is computed and nothing filled, under
PyTorch's `FlopCounterMode`; so whatever a network learns to do is counted as well. Counted are
matrix products and convolutions, a multiply-add as two FLOPs; norms, softmax and other elementwise
work are not. Convolutions count their padded borders, attention the pairs that
its mask throws away.

The counter knows no FLOPs of the fused attention kernel of CPUs, so never count there: the meta
device takes the written-out products.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import prod

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from worldsim.core import ActionSpec, Conditions, WorldError, WorldSpec, WorldState
from worldsim.diffusion.timeline import Clip, predict
from worldsim.models.conditioning import ConditioningConfig
from worldsim.models.dynamics import Dynamics
from worldsim.models.vae import DOWN, SpacetimeVAE
from worldsim.presets import Sizes
from worldsim.train.context import DREAMT_FROM, DREAMT_PASSES
from worldsim.train.distill import DistillationConfig
from worldsim.train.dynamics import DynamicsTrainingConfig
from worldsim.train.recipe import Recipe
from worldsim.world.diffusion import DiffusionWorld, Sampling, Starts, WorldConfig

Parts = dict[str, int]
"""FLOPs of a pass by part: patchify, condition, space, time, mlp, ..., heads, decoder."""

SHARED: dict[str, str] = dict.fromkeys(("noise_level", "mix", "modulation", "last"), "condition")
"""Modules of the denoiser that belong to another's part."""


class Counted:
    """What ran inside `counting`: total FLOPs, and FLOPs by part of the networks."""

    def __init__(self) -> None:
        self.total: int = 0
        self.parts: Parts = {}


@contextmanager
def counting() -> Iterator[Counted]:
    """Count the FLOPs of what runs inside, on the meta device; filled in when the block ends."""
    found = Counted()
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        yield found
    found.total = counter.get_total_flops()
    by_module = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    parts = {name: flops for name, flops in by_module.items() if _part(name)}
    for name, flops in parts.items():
        part = _part(name)
        found.parts[part] = found.parts.get(part, 0) + flops
    if rest := found.total - sum(found.parts.values()):
        found.parts["other"] = rest


def _part(module: str) -> str:
    """The part that a module is, "" if its FLOPs are counted with another module's."""
    match module.split("."):
        case ["Dynamics", "dit", "blocks", _, name] | ["Dynamics", "dit", name] if name != "blocks":
            return SHARED.get(name, name)
        case ["Dynamics", "conditioning"]:
            return "condition"
        case ["Heads" | "Encoder" | "Decoder" as name] | ["Dynamics", "heads" as name]:
            return name.lower()
    return ""


def together(*passes: Parts) -> Parts:
    """Passes one after another, added up by part."""
    names = dict.fromkeys(name for parts in passes for name in parts)
    return {name: sum(parts.get(name, 0) for parts in passes) for name in names}


def repeated(parts: Parts, times: int) -> Parts:
    """The same pass `times` times."""
    return {name: flops * times for name, flops in parts.items()}


@dataclass(frozen=True)
class Networks:
    """The networks of a world at the size of its frames and actions.

    Attributes:
        sizes: a preset, from `worldsim.presets`, or any other.
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
    def tokens(self) -> int:
        """Tokens of a chunk."""
        return prod(self.sizes.dit.grid(self.frame[0] // DOWN, self.frame[1] // DOWN))

    @cached_property
    def world(self) -> DiffusionWorld:
        """The world that has these networks, on the meta device: shapes without numbers."""
        height, width = self.frame
        vae, channels = self.sizes.vae, self.sizes.vae.channels
        spec = WorldSpec(
            name="meta", frame_shape=(height, width, 3), chunk=vae.chunk,
            context=self.sizes.context, latent_shape=(height // DOWN, width // DOWN, channels),
            action=self.action, fps=1.0, time_limit=1,
        )  # fmt: skip
        config = WorldConfig(
            spec=spec, vae=vae, dit=self.sizes.dit, heads=self.sizes.heads,
            conditioning=ConditioningConfig(action=self.action), sampling=Sampling(),
        )  # fmt: skip
        with torch.device("meta"):
            dynamics = Dynamics(config.dit, config.heads, channels, config.conditioning)
            return DiffusionWorld(config, SpacetimeVAE(vae), dynamics, Starts(*torch.empty(3, 0)))

    @cached_property
    def state(self) -> WorldState:
        """The state of one env, on the meta device."""
        with torch.device("meta"):
            return self.world.encode(*self._context())

    def _context(self) -> tuple[Tensor, Tensor]:
        spec = self.world.spec
        frames = torch.zeros(1, spec.context * spec.chunk, *spec.frame_shape, dtype=torch.uint8)
        return frames, torch.zeros(1, spec.context, *spec.action.shape, dtype=spec.action.dtype)

    @cached_property
    def encoding(self) -> Parts:
        """Making a state of a whole context of frames."""
        with counting() as found:
            self.world.encode(*self._context())
        return found.parts

    def step(self, passes: int = 1, *, pixels: bool = True, cached: bool = True) -> Parts:
        """One step of one env: `passes` denoising passes, the heads, and pixels where asked for.

        The first pass takes the newest chunk along, which joins the cache there; later ones run
        the noisy chunk alone. Without a cache every pass would run the whole context again.
        """
        if passes < 1:
            raise WorldError(f"passes: expected at least 1, got {passes}")
        first, later = self._passes
        if not cached:
            longer = Networks(replace(self.sizes, context=self.sizes.context + 2), *self._rest)
            whole = {k: n for k, n in longer.encoding.items() if k != "encoder"}
            first, later = whole | {"heads": first["heads"]}, whole
        shown = self.decoding if pixels else {}
        return together(first, repeated(later, passes - 1), shown)

    @property
    def _rest(self) -> tuple[tuple[int, int], ActionSpec]:
        return self.frame, self.action

    @cached_property
    def _passes(self) -> tuple[Parts, Parts]:
        """A latent step of one pass, and what each further pass adds."""
        one, two = (self._latent_step(passes) for passes in (1, 2))
        return one, {name: two[name] - one[name] for name in two if two[name] > one[name]}

    def _latent_step(self, passes: int) -> Parts:
        world, state = self.world.with_num_steps(passes), self.state
        action = torch.zeros(1, *self.action.shape, dtype=self.action.dtype, device="meta")
        with counting() as found:
            world.step(state, action)
        return found.parts

    @cached_property
    def decoding(self) -> Parts:
        """The newest chunk's pixels."""
        with counting() as found:
            self.world.decode(self.state)
        return found.parts

    @cached_property
    def parameters(self) -> dict[str, int]:
        """Parameters of encoder, decoder, dit (and what conditions it) and heads."""
        vae, dynamics = self.world.vae, self.world.dynamics
        dit = nn.ModuleList([dynamics.conditioning, dynamics.dit])
        parts: dict[str, nn.Module] = {
            "encoder": vae.encoder, "decoder": vae.decoder, "dit": dit, "heads": dynamics.heads,
        }  # fmt: skip
        return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}

    @property
    def kv_bytes(self) -> int:
        """Keys and values of one env: all context chunks but the newest."""
        return self.state.cache.nbytes

    @property
    def state_bytes(self) -> int:
        """All of an env's `WorldState`: latents, conditions, counters, keys and the cache."""
        sizes: list[int] = []
        self.state.map(lambda x: (sizes.append(x.nbytes), x)[1])
        return sum(sizes)

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
class Stage:
    """A training run: `steps` times `batch` clips. The optimiser is not counted.

    Attributes:
        name: vae, forced, teacher, student.
        steps, batch: of the run.
        clip: FLOPs of a clip, on average.
    """

    name: str
    steps: int
    batch: int
    clip: float

    @property
    def flops(self) -> float:
        """FLOPs of the whole run."""
        return self.steps * self.batch * self.clip


def stages(networks: Networks, recipe: Recipe) -> tuple[Stage, ...]:
    """The runs of `worldsim.train.recipe`, one after another.

    The recording is encoded once on the way, an encoder pass a chunk, which is not among them.
    """
    vae, student = recipe.vae, recipe.distill
    target = denoising(networks, student.targets, learns=False)  # of the averaged student
    return (
        Stage("vae", vae.fit.steps, vae.fit.batch, autoencoding(networks, vae.clip_chunks)),
        _dynamics("forced", networks, recipe.forced),
        _dynamics("teacher", networks, recipe.teacher),
        _dynamics("student", networks, student, target),
    )


def _dynamics(
    name: str, networks: Networks, run: DynamicsTrainingConfig | DistillationConfig,
    more: float = 0.0,
) -> Stage:  # fmt: skip
    """A run on dreamlike context: some clips take passes without gradients to make theirs."""
    clip = more + denoising(networks, run.targets)
    if run.resample:
        clip += run.resample * denoising(networks, run.targets, learns=False)
    if run.dreamt:
        clip += run.dreamt * dreamt_context(networks, run.targets)
    return Stage(name, run.fit.steps, run.fit.batch, clip)


@lru_cache
def autoencoding(networks: Networks, chunks: int) -> int:
    """FLOPs of a clip's way through the VAE and back, with its gradients."""
    vae, (height, width) = networks.world.vae, networks.frame
    vae.requires_grad_(True)
    with counting() as found:
        video = torch.zeros(1, chunks * networks.sizes.vae.chunk, height, width, 3)
        vae.decode_raw(vae.posterior(video).mean).sum().backward()
    return found.total


@lru_cache
def denoising(networks: Networks, targets: int, *, learns: bool = True) -> int:
    """FLOPs of clean context beside as many noisy targets; where it learns, heads and gradients."""
    dynamics, spec = networks.world.dynamics, networks.world.spec
    dynamics.requires_grad_(True)
    with counting() as found, torch.set_grad_enabled(learns):
        latents = torch.zeros(1, targets + 1, *spec.latent_shape)
        level = torch.zeros(1, targets)
        actions = torch.zeros(1, targets + 1, *spec.action.shape, dtype=spec.action.dtype)
        clip = Clip(latents, latents[:, :-1], level, Conditions.of(actions))
        x, features = predict(dynamics, clip, latents[:, 1:], level, spec.context)
        if learns:
            out = dynamics.heads(features)
            (x.sum() + out.reward.sum() + out.continue_logits.sum()).backward()
    return found.total


def dreamt_context(networks: Networks, targets: int) -> int:
    """FLOPs of a context dreamt chunk by chunk (`dream_context`): its start, then steps."""
    begin = sum(n for part, n in networks.encoding.items() if part != "encoder")
    step = networks.step(DREAMT_PASSES, pixels=False)
    return begin + max(0, targets - DREAMT_FROM) * (sum(step.values()) - step["heads"])
