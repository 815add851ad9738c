"""What a newcomer waits for: from a wheel in an empty folder to a stepped env, a film and a page.

    python -m benchmarks.first_hour [--torch torch==2.13.0] [--index URL]

Builds the wheel, installs it by pip into a new virtual environment in an empty folder (torch
first), and runs there what the manual says. Writes benchmarks/results/first-hour.json and the table
of docs/tutorials/first-dream.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from worldsim.core import WorldError
from worldsim.flags import refuse_repeated
from worldsim.store.provenance import provenance

from .page import put

STEP = """import gymnasium, worldsim
env = gymnasium.make("WorldSim-v0")
obs, info = env.reset(seed=0)
for _ in range(50):
    obs, *_ = env.step(env.action_space.sample())
print(obs.shape)
"""
PAGE = Path("docs/tutorials/first-dream.md")
ENV = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "OMP_NUM_THREADS": "1"}


class Folder:
    """An empty folder with a virtual environment of its own; every command in it is timed."""

    def __init__(self, root: Path) -> None:
        self.root, self.steps = root, []
        self.env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        self.env |= ENV | {"HOME": str(root), "WORLDSIM_CACHE": str(root / "cache")}
        self.env["PATH"] = f"{root / 'venv/bin'}:{self.env['PATH']}"

    def run(self, name: str, command: Sequence[str]) -> str:
        """Run a command and keep its time; returns what it printed. WorldError if it fails."""
        begun = time.perf_counter()
        done = subprocess.run(command, cwd=self.root, env=self.env, capture_output=True, text=True)
        if done.returncode:
            raise WorldError(
                f"{name}: expected {' '.join(command)} to work, got {done.stderr[-900:]}"
            )
        self._keep(name, command, begun)
        return done.stdout

    def page(self, name: str, command: Sequence[str]) -> None:
        """Time from a command to the page that it serves."""
        begun = time.perf_counter()
        served = subprocess.Popen(
            command, cwd=self.root, env=self.env, stdout=subprocess.PIPE, text=True
        )
        try:
            assert served.stdout is not None
            address = next(line.strip() for line in served.stdout if "http://" in line)
            with urllib.request.urlopen(address.partition("/#")[0], timeout=10) as answer:
                assert b"page.js" in answer.read()
            self._keep(name, command, begun)
        finally:
            served.terminate()
            served.wait(10)

    def _keep(self, name: str, command: Sequence[str], begun: float) -> None:
        seconds = round(time.perf_counter() - begun, 1)
        text = " ".join(command).replace(str(self.root), ".").replace(sys.executable, "python")
        self.steps.append({"step": name, "command": text, "seconds": seconds})
        print(f"{seconds:8.1f} s  {name}", flush=True)


def main(
    torch: str = "torch",
    index: str | None = None,
    out: Path = Path("benchmarks/results/first-hour.json"),
) -> None:
    """Measure, print and keep the seconds of each step.

    torch: what pip is asked for. index: where pip finds it, pip's own setting by default; on Linux
    without a GPU https://download.pytorch.org/whl/cpu has the small torch.
    """
    with tempfile.TemporaryDirectory() as root:
        folder = Folder(Path(root))
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
        built = subprocess.run([*command, "-w", root, "."], capture_output=True, text=True)
        if built.returncode:
            raise WorldError(f"wheel: expected it to build here, got {built.stderr[-900:]}")
        [wheel] = Path(root).glob("worldsim-*.whl")
        pip = ["pip", "install", "-q"] + (["--index-url", index] if index else [])
        folder.run("a virtual environment", [sys.executable, "-m", "venv", "venv"])
        folder.run("torch", [*pip, torch])
        folder.run("worldsim", ["pip", "install", "-q", f"{wheel}[web,box2d]"])
        folder.run("worldsim doctor", ["worldsim", "doctor"])
        (folder.root / "steps.py").write_text(STEP)
        folder.run("50 steps of the env", ["python", "steps.py"])
        folder.run("a film", ["worldsim", "demo", "--seconds", "4", "--out", "demo.mp4"])
        folder.page("a page to play on", ["worldsim", "play", "--no-browser"])
        size = sum(p.stat().st_size for p in (Path(root) / "venv").rglob("*") if p.is_file())
        made = {name: (Path(root) / name).stat().st_size for name in ("demo.mp4", wheel.name)}
        result: dict[str, Any] = {
            "steps": folder.steps, "seconds": round(sum(s["seconds"] for s in folder.steps), 1),
            "installed_mib": round(size / 2**20), "bytes": made, "provenance": provenance(),
        }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    put(PAGE, table(folder.steps))


def table(steps: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row a step."""
    rows = [f"| {s['step']} | `{s['command']}` | {s['seconds']:.0f} s |" for s in steps]
    return "\n".join(["| | command | takes |", "|---|---|---|", *rows])


if __name__ == "__main__":
    tyro.cli(main, args=refuse_repeated(sys.argv[1:]))
