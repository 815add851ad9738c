"""A training step on many GPUs: what each sends, holds and waits for, with DDP and with FSDP2.

Bytes are counted on the real networks' parameters, grouped and padded as `train/parallel.py` does;
`python -m benchmarks.scale_out_training` compares them with what the kernel counts. The time is
that of the slower of arithmetic and messages, as far as one hides the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, prod

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from worldsim.core import Conditions
from worldsim.diffusion.timeline import Clip, predict
from worldsim.train.parallel import units

from .cluster import Cluster
from .flops import Networks, Stage

GRADIENT = 4
"""Bytes of a gradient's element on its way: float32, always."""

STATE = 20
"""Bytes a parameter: itself, gradient, AdamW's two moments, average, all float32."""

BUCKET = 4
"""And in DDP's buckets."""

BACKWARD = 2 / 3
"""Share of a step's arithmetic that gradients are: what DDP's all-reduce hides behind."""


@dataclass(frozen=True)
class Group:
    """Parameters that FSDP2 gathers at once: those of a block, or all others (the root's)."""

    shapes: tuple[tuple[int, ...], ...]
    root: bool = False

    @property
    def size(self) -> int:
        """Elements."""
        return sum(map(prod, self.shapes))

    def shard(self, ranks: int) -> int:
        """Elements of a rank, padding included: the first axis is split, rounded up."""
        return sum(ceil(shape[0] / ranks) * prod(shape[1:]) for shape in self.shapes)


def groups_of(network: nn.Module) -> tuple[Group, ...]:
    """The groups of a network: its blocks, then the root."""
    blocks = list(units(network))
    inside = {id(p) for block in blocks for p in block.parameters()}
    rest = [p for p in network.parameters() if id(p) not in inside]
    found = [Group(_shapes(block.parameters())) for block in blocks]
    return (*found, Group(_shapes(rest), root=True))


def _shapes(parameters: Iterable[nn.Parameter]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(p.shape) for p in parameters)


@dataclass(frozen=True)
class Sent:
    """What a rank sends in a step.

    Attributes:
        bytes: in all.
        collectives: how many operations of all ranks together.
    """

    bytes: float
    collectives: int


def ddp_sent(groups: Iterable[Group], ranks: int, bucket: int = 25 * 2**20) -> Sent:
    """An all-reduce of all gradients around a ring: each element is sent almost twice."""
    whole = GRADIENT * sum(group.size for group in groups)
    return Sent(2 * (ranks - 1) / ranks * whole, 2 * ceil(whole / bucket))


def fsdp2_sent(
    groups: Iterable[Group], ranks: int, *, width: int = 2, averaged: bool, gloo: bool = False
) -> Sent:
    """Gathered weights and scattered gradients of every group.

    Blocks are gathered for the forward pass and again for gradients, the root once.
    width: bytes of an element that is gathered, 2 for bfloat16.
    averaged: whether the averaged network runs, too, which is gathered once a step.
    gloo: on CPUs, where a reduce-scatter sends what an all-reduce does, twice as much.
    """
    total, count = 0.0, 0
    for group in groups:
        gathers = (1 if group.root else 2) + averaged
        scattered = GRADIENT * (2 if gloo else 1)
        total += (ranks - 1) * group.shard(ranks) * (gathers * width + scattered)
        count += gathers + (2 if gloo else 1)
    return Sent(total, count)


@dataclass(frozen=True)
class Memory:
    """Bytes on a GPU while training: weights with all that belongs to them, and activations."""

    state: float
    gathered: float
    activations: float

    @property
    def total(self) -> float:
        """All of it, without the allocator's waste."""
        return self.state + self.gathered + self.activations


def memory(
    groups: tuple[Group, ...], cluster: Cluster, activations: float, *, fsdp2: bool, averaged: bool
) -> Memory:
    """Of a GPU, with `activations` bytes kept for its clips.

    FSDP2 holds, besides its shards, the root and two blocks in bfloat16, one block's gradients,
    and the averaged network where it runs. DDP holds all, buckets, and bfloat16 copies.
    """
    whole = sum(group.size for group in groups)
    if not fsdp2 or cluster.gpus == 1:
        buckets = BUCKET if cluster.gpus > 1 else 0
        return Memory((STATE + buckets) * whole, 2 * whole, activations)
    shard = sum(group.shard(cluster.gpus) for group in groups)
    block, root = max(g.size for g in groups if not g.root), groups[-1].size
    gathered = 2 * (root + 2 * block) + GRADIENT * (root + block) + 2 * whole * averaged
    return Memory(STATE * shard, gathered, activations)


@dataclass(frozen=True)
class Activations:
    """Bytes kept for the gradients of a clip: of all, and inside each block, beside what enters."""

    whole: int
    inside: tuple[int, ...]

    @property
    def checkpointed(self) -> int:
        """Where only what enters a block is kept, and the inside of one at a time."""
        return self.whole - sum(self.inside) + max(self.inside)


@lru_cache
def activations(networks: Networks, stage: str, chunks: int) -> Activations:
    """Of a clip of `chunks`, half of what float32 takes.

    Counted on the meta device, where attention keeps its products: a fused kernel keeps less.
    """
    network = networks.world.vae if stage == "vae" else networks.world.dynamics
    network.requires_grad_(True)
    counter = _Kept(network)
    handles = [h for block in units(network) for h in counter.watch(block)]
    hooks = torch.autograd.graph.saved_tensors_hooks(counter.pack, lambda x: x)
    try:
        with torch.device("meta"), hooks:
            kept = _forward(networks, stage, chunks)  # alive: no storage takes another's place
    finally:
        for handle in handles:
            handle.remove()
    del kept
    return Activations(counter.whole // 2, tuple(x // 2 for x in counter.inside))


class _Kept:
    """Counts the storages that autograd saves, weights aside."""

    def __init__(self, network: nn.Module) -> None:
        self.whole, self.inside = 0, list[int]()
        self._seen = {_storage(p) for p in network.parameters()}
        self._given: set[int] | None = None  # to the block that runs
        self._alive: list[Tensor] = []

    def watch(self, block: nn.Module) -> list[RemovableHandle]:
        """Count what this block keeps on its own account, too."""

        def enter(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            self._given = {_storage(x) for x in given if isinstance(x, Tensor)}
            self.inside.append(0)

        def leave(*_: object) -> None:
            self._given = None

        return [block.register_forward_pre_hook(enter), block.register_forward_hook(leave)]

    def pack(self, x: Tensor) -> Tensor:
        """For `saved_tensors_hooks`."""
        self._alive.append(x)
        storage, size = _storage(x), x.untyped_storage().nbytes()
        if storage not in self._seen:
            self._seen.add(storage)
            self.whole += size
            if self._given is not None and storage not in self._given:
                self.inside[-1] += size
        return x


def _storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata


def _forward(networks: Networks, stage: str, chunks: int) -> object:
    spec = networks.world.spec
    if stage == "vae":
        vae, (height, width) = networks.world.vae, networks.frame
        video = torch.zeros(1, chunks * networks.sizes.vae.chunk, height, width, 3)
        return vae.decode_raw(vae.posterior(video).mean)
    latents, level = torch.zeros(1, chunks + 1, *spec.latent_shape), torch.zeros(1, chunks)
    actions = torch.zeros(1, chunks + 1, *spec.action.shape, dtype=spec.action.dtype)
    clip = Clip(latents, latents[:, :-1], level, Conditions.of(actions))
    return predict(networks.world.dynamics, clip, latents[:, 1:], level, spec.context)


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step: of arithmetic, of messages, and of both as far as they overlap."""

    compute: float
    messages: float
    step: float


def step_time(
    stage: Stage, batch: int, sent: Sent, cluster: Cluster, utilisation: float, *, fsdp2: bool
) -> StepTime:
    """A step of `batch` clips, all GPUs together.

    DDP's messages hide behind the computation of gradients; FSDP2's behind all of it.
    """
    flops = stage.clip * batch / cluster.gpus
    compute = cluster.device.seconds(flops, utilisation=utilisation)
    messages = cluster.seconds(sent.bytes, sent.collectives)
    hidden = compute if fsdp2 else BACKWARD * compute
    return StepTime(compute, messages, compute + max(0.0, messages - hidden))
