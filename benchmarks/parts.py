"""Parts of a benchmark, each in a process of its own: one that fails or hangs ends no other.

A part is a command that prints its figures as one line of JSON at the end. What it lacks (a
package, a second GPU) it says by `lacking`, and is then listed as not measured.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

LACKING = 75  # exit status, EX_TEMPFAIL: this machine cannot, another could
TAIL = 2000  # characters of what a failed part printed


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        name: of its figures in the results.
        command: without a shell; "python" is this interpreter.
        limit: seconds after which it and all that it started are killed.
        env: variables that differ from ours.
    """

    name: str
    command: Sequence[str]
    limit: float
    env: tuple[tuple[str, str], ...] = ()


def run(part: Part) -> dict[str, Any]:
    """Run a part; `status` is measured, lacking, failed or timed out."""
    words = [sys.executable if word == "python" else word for word in part.command]
    print(f"== {part.name}", file=sys.stderr, flush=True)
    begun = time.monotonic()
    process = subprocess.Popen(
        words, env=os.environ | dict(part.env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=part.limit)
        status = {0: "measured", LACKING: "lacking"}.get(process.returncode, "failed")
    except subprocess.TimeoutExpired:
        said, status = "", "timed out"
    finally:
        _end(process)
    found = {"status": status, "seconds": round(time.monotonic() - begun, 1)}
    lines = [line for line in said.splitlines() if line.startswith("{")]  # Ray logs on after it
    if status in ("measured", "lacking"):
        try:
            return found | json.loads(lines[-1])
        except (IndexError, ValueError):
            found["status"] = "failed"
    return found | {"exit": process.returncode, "said": said[-TAIL:]}


def _end(process: subprocess.Popen[str]) -> None:
    """Kill what is left of a part's session: the processes that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def tell(figures: dict[str, Any]) -> None:
    """Print a part's figures, as its last line."""
    print(json.dumps(figures), flush=True)


def lacking(what: str) -> NoReturn:
    """End a part that this machine cannot measure."""
    tell({"lacking": what})
    sys.exit(LACKING)


def table(found: dict[str, dict[str, Any]]) -> str:
    """A line a part: what came of it, and its short figures."""
    rows = []
    for name, part in found.items():
        told = {k: v for k, v in part.items() if k not in ("status", "seconds", "said", "exit")}
        short = "; ".join(
            f"{k} {_plain(v)}" for k, v in told.items() if not isinstance(v, dict | list)
        )
        rows.append(f"{name:28} {part['status']:10} {part.get('seconds', 0):7.1f} s  {short}")
        if part["status"] == "failed":
            rows.append("    " + "\n    ".join(part["said"].splitlines()[-5:]))
    return "\n".join(rows)


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
