"""Processes that train together on this machine, started as a launcher would, without its seconds.

A fork server imports the library once; each process is forked from it and told its rank by
`torchrun`'s variables.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from worldsim.train.distributed import processes

TCPI_BYTES_SENT = slice(200, 208)
"""Where Linux's `struct tcp_info` has `tcpi_bytes_sent` (since 4.19), repeated ones included."""

PRELOAD = ["worldsim.pipeline", "worldsim.train.sharded", "torch.distributed.fsdp"]


@dataclass
class Ended:
    """What became of a process: its function's value, or what it said; -9 is a kill."""

    value: Any
    error: str
    code: int | None


class Ranks:
    """Running processes, each `function(*args)` as one rank of `count`."""

    def __init__(self, count: int, function: Callable[..., Any], *args: Any) -> None:
        context = mp.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        self.running: list[BaseProcess] = []
        self._pipes: list[Connection] = []
        port = _free_port()
        for rank in range(count):
            ours, theirs = context.Pipe(duplex=False)
            child = context.Process(target=_run, args=(rank, count, port, theirs, function, args))
            child.start()
            theirs.close()
            self.running.append(child)
            self._pipes.append(ours)

    def kill(self, *ranks: int) -> None:
        """SIGKILL: no process gets to tidy up."""
        for rank in ranks:
            self.running[rank].kill()

    @property
    def alive(self) -> bool:
        """Whether all of them run."""
        return all(child.is_alive() for child in self.running)

    def until(self, ready: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait for something, as long as all run."""
        until = time.monotonic() + seconds
        while not ready() and self.alive and time.monotonic() < until:
            time.sleep(0.01)

    def end(self, seconds: float = 1800.0) -> list[Ended]:
        """What became of all; one that goes on for longer is killed, and says so."""
        until = time.monotonic() + seconds
        return [self._end(r, max(0.1, until - time.monotonic())) for r in range(len(self.running))]

    def _end(self, rank: int, seconds: float) -> Ended:
        child, pipe = self.running[rank], self._pipes[rank]
        value, error = None, ""
        if pipe.poll(seconds):
            try:
                value, error = pipe.recv()
            except EOFError:
                pass
        else:
            error = f"still running after {seconds:.0f} s"
            child.kill()
        child.join(30)
        return Ended(value, error, child.exitcode)


def together(count: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """The values of `function(*args)` on `count` ranks; raises RuntimeError where one fails."""
    ended = Ranks(count, function, *args).end()
    if faults := [e.error or f"exit code {e.code}" for e in ended if e.error or e.code]:
        raise RuntimeError(faults[0])
    return [e.value for e in ended]


def _run(
    rank: int, count: int, port: int, pipe: Connection, function: Callable[..., Any], args: Any
) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank),
                   "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}  # fmt: skip
    try:
        with processes(torch.device("cpu")):
            value = function(*args)
        pipe.send((value, ""))
    except Exception:
        pipe.send((None, traceback.format_exc()))
        os._exit(1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def sent_bytes() -> int:
    """Bytes that this process has sent over TCP so far, as the kernel counts them (`TCP_INFO`)."""
    total = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as one:
                if one.family in (socket.AF_INET, socket.AF_INET6):
                    info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                    total += int.from_bytes(info[TCPI_BYTES_SENT], "little")
        except OSError:  # closed meanwhile, or another kind of socket
            continue
    return total
