"""What every test runs under: one thread, no screen, no network."""

import os
import socket
from pathlib import Path

import pytest

# Before anything imports torch: the models here are small enough that threads only get in the way,
# and bit-exact comparisons hold for one thread count.
os.environ["OMP_NUM_THREADS"] = "1"  # whatever the shell says
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library downloads nothing: any connection beyond this machine is an error."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else "localhost"  # unix sockets are paths
        if host not in ("localhost", "127.0.0.1", "::1"):
            raise AssertionError(f"a test reached for the network: {host}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)
