"""Where a figure comes from: the machine, the versions, the commit, the command, what it cost."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gymnasium
import numpy
import torch

from worldsim.config import logged_number, read_json_lines

MOST_LOG = 2**26  # bytes of a training's log
PAUSE = 600.0  # seconds without a log line after which a training counts as interrupted


def provenance(command: str | None = None) -> dict[str, Any]:
    """Hardware, versions, commit, command and date, for a results file."""
    return {
        "hardware": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "gymnasium": gymnasium.__version__,
            "worldsim": _version(),
        },
        "commit": _commit(),
        "command": command or shlex.join(["python", *sys.orig_argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(x.partition(":")[2].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _version() -> str:
    try:
        return version("worldsim")
    except PackageNotFoundError:  # run from a source tree
        return "source tree"


def _commit() -> str | None:
    """The repository's commit, with "+" if files differ from it; None outside a repository."""
    home = Path(__file__).resolve().parent
    try:
        run = {"cwd": home, "capture_output": True, "text": True, "timeout": 10, "check": True}
        commit = subprocess.run(["git", "rev-parse", "HEAD"], **run).stdout.strip()
        changes = subprocess.run(["git", "status", "--porcelain", "-uno"], **run).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changes else "")


def training_cost(run: Path | None) -> dict[str, Any]:
    """Wall time of every stage, read from the logs RUN/STAGE/log.jsonl; {} without any.

    Pauses of more than ten minutes between two lines (a training that was stopped and resumed) do
    not count.
    """
    logs = sorted(run.glob("*/log.jsonl")) if run is not None else []
    stages: dict[str, Any] = {}
    for log in logs:
        seconds, last, steps = 0.0, None, None
        for line in read_json_lines(log, MOST_LOG):
            time, step = logged_number(line, "time"), logged_number(line, "step")
            if time is None or step is None:
                continue
            seconds += time - last if last is not None and 0 < time - last < PAUSE else 0.0
            last, steps = time, int(step)
        if steps is not None:
            stages[log.parent.name] = {"seconds": seconds, "steps": steps}
    total = sum(stage["seconds"] for stage in stages.values())
    return {"stages": stages, "seconds": total} if stages else {}
