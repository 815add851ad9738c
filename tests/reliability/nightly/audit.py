"""What Python does while something untrusted is read: code it runs, files and sockets it opens."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

FORBIDDEN = (
    "exec", "import", "marshal.loads", "pickle.find_class", "code.__new__", "ctypes.",
    "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "subprocess.Popen", "socket.",
    "os.mkdir", "os.rename", "os.remove", "os.link", "os.symlink", "os.chmod", "shutil.", "urllib.",
)  # fmt: skip


class Audit:
    """Listens to Python's audit events; what a good file causes, too, is learned and then let pass.

    (Dataclasses' annotations are strings that Python itself evaluates. To compile is harmless:
    NumPy parses headers so, and never executes them.)
    """

    _all: list[Audit] = []  # a hook cannot be taken away again: there is one for all

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._seen: list[str] = []
        self._mode: str | None = None
        self._place = ""
        self._roots: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        if not Audit._all:
            sys.addaudithook(_hear)
        Audit._all.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        self._mode = None
        Audit._all[:] = [None if a is self else a for a in Audit._all]  # type: ignore[list-item]

    @contextmanager
    def learning(self) -> Iterator[None]:
        """What happens within is harmless."""
        self._mode = "learn"
        yield
        self._mode = None

    @contextmanager
    def watching(self, place: Path) -> Iterator[None]:
        """What happens within and is not known is found, and files opened outside of `place`."""
        self._mode, self._place = "watch", str(place.resolve())
        try:
            yield
        finally:
            self._mode = None

    def found(self) -> list[str]:
        """What was found since the last look."""
        found, self._seen = self._seen, []
        return found

    def hear(self, event: str, args: tuple[Any, ...]) -> None:
        """One event."""
        if self._mode is None:
            return
        if event == "open":
            path = str(args[0])
            outside = isinstance(args[0], str | bytes) and not path.startswith(self._place)
            if self._mode == "watch" and outside and not _running(path):
                self._seen.append(f"opened {path}")
        elif event.startswith(FORBIDDEN):
            told = f"{event} {_code(args)}"
            if self._mode == "learn":
                self._known.add(told)
            elif told not in self._known:
                self._seen.append(told[:200])


def _running(path: str) -> bool:
    """Whether this is source that runs: a warning or a traceback quotes a line of it."""
    return any(getattr(module, "__file__", None) == path for module in list(sys.modules.values()))


def _code(args: tuple[Any, ...]) -> str:
    """Names the code or thing of an event."""
    code = args[0] if args else ""
    names = getattr(code, "co_names", None)
    return str(args) if names is None else f"{code.co_filename} {names} {code.co_consts}"


def _hear(event: str, args: tuple[Any, ...]) -> None:
    for audit in Audit._all:
        if audit is not None:
            audit.hear(event, args)
