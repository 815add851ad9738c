"""The account of a training on a cluster: memory, bytes, messages against arithmetic, days."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from worldsim.core import WorldError
from worldsim.models.vae import DOWN
from worldsim.train.parallel import SHARD_FROM
from worldsim.train.recipe import Recipe

from .cluster import Cluster
from .flops import Networks, Stage, stages
from .parallel import (
    Memory,
    Sent,
    StepTime,
    activations,
    ddp_sent,
    fsdp2_sent,
    groups_of,
    memory,
    step_time,
)
from .report import span

Row = tuple[str, ...]

HEAD = ("", "clips", "tokens", "sent", "memory", "arithmetic", "messages", "step", "MFU", "time")


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a cluster trains on, and how well its GPUs compute.

    Attributes:
        clips: a GPU and step; a global batch is this times the GPUs.
        chunks: of the recording, all episodes together.
        utilisation: share of a GPU's peak that arithmetic alone reaches.
        checkpointed: whether activations are computed again instead of kept.
    """

    clips: int = 8
    chunks: float = 1e6
    utilisation: float = 0.4
    checkpointed: bool = False

    def __post_init__(self) -> None:
        if self.clips < 1 or self.chunks <= 0:
            raise WorldError(f"load: expected clips and chunks of 1 or more, got {self}")


@dataclass(frozen=True)
class StepAccount:
    """A step of one stage on a cluster, by one strategy."""

    stage: Stage
    strategy: str
    batch: int
    tokens: int
    sent: Sent
    memory: Memory
    time: StepTime
    mfu: float

    @property
    def seconds(self) -> float:
        """Of the whole stage: as many clips as the recipe has, in steps of this batch."""
        return self.stage.steps * self.stage.batch / self.batch * self.time.step


def account(networks: Networks, stage: Stage, chunks: int, cluster: Cluster, load: Load,
            strategy: str) -> StepAccount:  # fmt: skip
    """A step of `stage`, whose clips ask for `chunks`, with DDP or FSDP2."""
    network = networks.world.vae if stage.name == "vae" else networks.world.dynamics
    groups, batch = groups_of(network), load.clips * cluster.gpus
    fsdp2, averaged = strategy == "fsdp2", stage.name in ("teacher", "student")
    sent = (
        fsdp2_sent(groups, cluster.gpus, averaged=averaged)
        if fsdp2 else ddp_sent(groups, cluster.gpus)
    )  # fmt: skip
    kept = activations(networks, stage.name, chunks)
    each = kept.checkpointed if load.checkpointed else kept.whole
    room = memory(groups, cluster, load.clips * each, fsdp2=fsdp2, averaged=averaged)
    again = 4 / 3 if load.checkpointed else 1.0
    time = step_time(
        Stage(stage.name, stage.steps, stage.batch, again * stage.clip), batch, sent, cluster,
        load.utilisation, fsdp2=fsdp2,
    )  # fmt: skip
    useful = cluster.device.seconds(stage.clip * load.clips)
    tokens = batch * chunks * networks.tokens
    return StepAccount(stage, strategy, batch, tokens, sent, room, time, useful / time.step)


def accounts(
    networks: Networks, recipe: Recipe, cluster: Cluster, load: Load
) -> Iterator[StepAccount]:
    """Every stage with both strategies; with one GPU they are the same."""
    asked = (recipe.vae.clip_chunks, recipe.forced.targets, recipe.teacher.targets,
             recipe.distill.targets)  # fmt: skip
    for stage, chunks in zip(stages(networks, recipe), asked, strict=True):
        for strategy in ("ddp", "fsdp2") if cluster.gpus > 1 else ("ddp",):
            yield account(networks, stage, chunks, cluster, load, strategy)


def chosen(networks: Networks, stage: str) -> str:
    """What `--strategy auto` takes."""
    parts = networks.parameters
    vae = parts["encoder"] + parts["decoder"]
    count = vae if stage == "vae" else parts["dit"] + parts["heads"]
    return "fsdp2" if count >= SHARD_FROM else "ddp"


def cluster_table(networks: Networks, recipe: Recipe, cluster: Cluster, load: Load) -> str:
    """The account as plain text, a line for each stage and strategy."""
    found = list(accounts(networks, recipe, cluster, load))
    rows = [HEAD, *(_row(x, networks, cluster) for x in found)]
    wide = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    text = ["  ".join(f"{x:{'<' if i == 0 else '>'}{wide[i]}}" for i, x in enumerate(row))
            for row in rows]  # fmt: skip
    total = sum(x.seconds for x in found if x.strategy == _taken(x, networks, cluster))
    encoding = networks.encoding["encoder"] / networks.sizes.context * load.chunks
    encoding = cluster.device.seconds(encoding / cluster.gpus, utilisation=load.utilisation)
    latent = 2 * prod(side // DOWN for side in networks.frame) * networks.sizes.vae.channels
    return "\n".join([
        *(line.rstrip() for line in text),
        f"training, by the strategies marked *: {span(total)} on {cluster.gpus:,} GPUs, "
        f"{span(total * cluster.gpus)} of one",
        f"encoding {load.chunks:,.0f} chunks: {span(encoding)}, "
        f"{load.chunks * latent / 1e9:,.1f} GB of latents",
        *(f"{x.stage.name}: sees each chunk {_epochs(x, networks, load):.2g} times"
          for x in found if x.strategy == "ddp"),
    ])  # fmt: skip


def _taken(x: StepAccount, networks: Networks, cluster: Cluster) -> str:
    return chosen(networks, x.stage.name) if cluster.gpus > 1 else "ddp"


def _epochs(x: StepAccount, networks: Networks, load: Load) -> float:
    chunks = x.tokens / x.batch / networks.tokens
    return x.stage.steps * x.stage.batch * chunks / load.chunks


def _row(x: StepAccount, networks: Networks, cluster: Cluster) -> Row:
    mark = "*" if x.strategy == _taken(x, networks, cluster) else ""
    fits = "" if x.memory.total <= cluster.device.memory else "!"
    name = f"{x.stage.name} {x.strategy}{mark}" if cluster.gpus > 1 else x.stage.name
    return (
        name, f"{x.batch:,}", f"{x.tokens:,}", _bytes(x.sent.bytes),
        f"{_bytes(x.memory.total)}{fits}", span(x.time.compute), span(x.time.messages),
        span(x.time.step), f"{x.mfu:.1%}", span(x.seconds),
    )  # fmt: skip


def _bytes(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"
