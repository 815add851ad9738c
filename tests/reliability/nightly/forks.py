"""Children to kill, forked from a process that has imported everything: a kill is cheap."""

from __future__ import annotations

import mmap
import os
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from threading import RLock
from types import TracebackType
from typing import Self

import torch
from tqdm import tqdm

torch.set_num_threads(1)  # OpenMP's threads do not survive a fork: a child would wait for them


class Child:
    """A forked process that runs `work(child)` and tells how far it came with `child.tell`.

    Leaving the context ends it.
    """

    def __init__(self, work: Callable[[Child], None]) -> None:
        self._page = mmap.mmap(-1, 8)  # shared: what is told survives the teller
        self.tell(-1)
        self.status: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._live(work)

    def _live(self, work: Callable[[Child], None]) -> None:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # no bars of the dying
            tqdm.set_lock(RLock())  # its own is shared with the parent: the dead would keep it
            work(self)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)  # no clean-up that is the parent's

    def tell(self, value: int) -> None:
        """Make a number known to the parent, at once."""
        self._page[:] = struct.pack("q", value)

    @property
    def told(self) -> int:
        """The last number that was told, -1 before."""
        return struct.unpack("q", self._page[:])[0]

    def running(self) -> bool:
        """Whether it still lives."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = status if pid else None
        return self.status is None

    def kill(self, sign: int = signal.SIGKILL) -> bool:
        """Kill it; whether it was the signal that ended it."""
        if self.running():
            os.kill(self.pid, sign)
        return self.wait() in (-signal.SIGKILL, -signal.SIGTERM)

    def wait(self) -> int:
        """Its exit code, or minus the signal that ended it."""
        if self.status is None:
            self.status = os.waitpid(self.pid, 0)[1]
        return os.waitstatus_to_exitcode(self.status)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.kill()
