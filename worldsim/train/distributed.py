"""Many processes that train as one: ranks, what they agree on, and what becomes of a lost one.

`torchrun` says to each process which it is (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and _PORT).
Every function here works with one process, too, where it costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from worldsim.config import short
from worldsim.core import WorldError

TIMEOUT = timedelta(minutes=10)
"""After which a rank that does not answer in a step counts as lost; one that died does at once."""

PATIENCE = timedelta(days=7)
"""For what one rank does alone while others wait: a card, a checkpoint on a slow disk."""

_side: dist.ProcessGroup | None = None


class LostRankError(WorldError):
    """Another process of a training died or does not answer."""


def launched() -> bool:
    """Whether a launcher made this process one of several, or one that may be restarted."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def rank() -> int:
    """This process's number, 0 for the only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process logs, writes and measures."""
    return rank() == 0


def side_group() -> dist.ProcessGroup | None:
    """A gloo group for what goes on beside the steps; None for one process."""
    return _side


@contextmanager
def processes(device: torch.device, timeout: timedelta = TIMEOUT) -> Iterator[torch.device]:
    """Train inside as one of the processes that a launcher started; yields this one's device.

    A group that the caller made is used and kept. Raises WorldError for a device that processes
    cannot share, and LostRankError where another one is lost on the way.
    """
    global _side
    ours = launched() and not dist.is_initialized()
    place = _own_device(device) if ours else device
    if ours:
        backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timeout)
    if dist.is_initialized() and _side is None:
        _side = dist.new_group(backend="gloo", timeout=PATIENCE)  # type: ignore[assignment]
    try:
        yield place
    except RuntimeError as error:
        if lost := _lost(error):
            raise lost from error
        raise
    if ours:
        dist.destroy_process_group()
        _side = None


def _own_device(device: torch.device) -> torch.device:
    """The device of this process: with several GPUs, that of its number on this machine."""
    if device.type == "cpu":
        return device
    local, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if device.type != "cuda" or device.index is not None or local >= count:
        raise WorldError(
            f"device: expected cpu, or cuda with a GPU for each process of a machine, got "
            f"{str(device)!r} for process {local} and {count} GPUs; start fewer processes"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def _lost(error: RuntimeError) -> LostRankError | None:
    """What an error of a collective says to a user; None for any other error."""
    text = str(error)
    signs = ("gloo", "onnection closed", "Socket", "imed out", "NCCL", "Connection reset")
    if not isinstance(error, dist.DistError) and not any(sign in text for sign in signs):
        return None
    if world_size() == 1 or isinstance(error, WorldError):
        return None
    return LostRankError(
        f"rank {rank()}: expected all {world_size()} processes to go on, got {short(text)}; "
        "start again: training goes on from its last checkpoint "
        "(torchrun --max-restarts does so by itself)"
    )


def own_rows(batch: int) -> range:
    """Which rows of a global batch are this process's: every `world_size`-th.

    Not a block: those whose context is resampled lie first and those that are dreamt last, and all
    processes should have as many of each.
    """
    return range(rank(), batch, world_size())


def total(x: Tensor) -> Tensor:
    """Sum of `x` over all processes; without gradients."""
    x = x.detach()
    if world_size() > 1:
        x = x.clone()
        dist.all_reduce(x)
    return x


def mean_figures(losses: dict[str, Tensor], clock: float) -> tuple[dict[str, float], float]:
    """Losses as numbers, their means over all processes, and the main process's clock."""
    values = torch.stack([x.detach().float() for x in losses.values()])
    if world_size() > 1:
        mine = clock if is_main() else 0.0
        values = torch.cat([values.double() / world_size(), values.new_tensor([mine]).double()])
        dist.all_reduce(values)
        *found, clock = values.tolist()
    else:
        found = values.tolist()
    return dict(zip(losses, found, strict=True)), clock


def agree(value: float, device: torch.device | str = "cpu") -> float:
    """The main process's value, on all."""
    if world_size() == 1:
        return value
    x = torch.tensor([value], dtype=torch.float64, device=device)
    dist.broadcast(x, 0)
    return x.item()


def wait() -> None:
    """Go on when all processes are here, however long one of them takes."""
    if world_size() > 1:
        dist.monitored_barrier(_side, timeout=PATIENCE)


def main_first(do: Callable[[], Any]) -> None:
    """What the main process does while the others wait."""
    if is_main():
        do()
    wait()


def check_same(what: dict[str, Any]) -> None:
    """Raise WorldError on all processes unless each has the same; returns when all have asked.

    what: values by name, as JSON.
    """
    if world_size() == 1:
        return
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, what, _side)
    for other, theirs in enumerate(found):
        for name in sorted(found[0].keys() | theirs.keys()):
            a, b = found[0].get(name), theirs.get(name)
            if a != b:
                raise WorldError(
                    f"{name}: expected the same in all {world_size()} processes, got {short(a)} "
                    f"in rank 0 and {short(b)} in rank {other}; give every machine the same "
                    "data, flags and version"
                )


def check_batch(name: str, batch: int, enough: int | None = None) -> None:
    """Raise WorldError unless a global batch divides by the processes.

    enough: what to give instead, where this batch follows from another one.
    """
    count = world_size()
    if batch % count:
        raise WorldError(
            f"{name}: expected clips a step that divide by {count} processes, got {batch}; "
            f"give --batch {enough or -(-batch // count) * count}"
        )
