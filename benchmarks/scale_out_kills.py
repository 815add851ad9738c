"""Ranks killed with SIGKILL, again and again: nothing acknowledged is lost, nothing half is loaded.

A small regression saves after every step while it goes on. The steps of a life that begins after a
kill must have, bit for bit, the weights of a training that nobody killed; that is only so if all of
weights, averages and optimiser came from one whole checkpoint. It must also begin no earlier than
at the last checkpoint that was acknowledged.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from worldsim.train.distributed import is_main
from worldsim.train.loop import FitConfig, Losses, Run, fit, step_draws
from worldsim.train.parallel import Strategy, full

from .ranks import Ranks

STEPS, BATCH, RANKS = 60, 8, 2
KINDS = ("one rank", "all ranks", "one rank in a checkpoint", "all ranks in a checkpoint")


class Net(nn.Module):
    """Something to train."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(B, 3)` -> `(B, 1)`."""
        return self.body(x)


def live(folder: Path, strategy: Strategy, saves: bool, steps: int) -> None:
    """Train, as one rank, from where the folder says; note every step and acknowledged save."""
    config = FitConfig(steps=STEPS, batch=BATCH, warmup=5, bf16=False, strategy=strategy,
                       save_seconds=0.0 if saves else 1e9)  # fmt: skip

    def losses(net: nn.Module, ema: nn.Module, step: int, g: torch.Generator) -> Losses:
        draws = step_draws(config, step)
        x = draws.normal((len(draws), 3))
        return {"fit": ((net(x) - x.sum(-1, keepdim=True)) ** 2).mean()}

    def watch(run: Run, figures: dict[str, float]) -> None:
        if saves and run.step % 2 == 0:  # odd ones are written while the next step runs
            run.saved()
        note = {"step": run.step, "saved": run.saved_step, "weights": _hash(run)}
        if is_main():
            with open(folder / "notes.jsonl", "a") as file:
                file.write(json.dumps(note) + "\n")
        if run.step == steps:
            os._exit(0)

    torch.manual_seed(0)
    fit(Net(), losses, config, folder, watch=watch)


def _hash(run: Run) -> list[float]:
    """All weights and averages, exactly: sums in float64 of bits that differ do not agree."""
    parts = [*run.model.parameters(), *run.ema.parameters()]
    return [full(p.detach()).double().square().sum().item() for p in parts]


@dataclass
class Notes:
    """What lives left behind: weights by step, and the last acknowledged checkpoint."""

    first: int
    saved: int
    weights: dict[int, list[float]]


def read_notes(folder: Path) -> Notes:
    """The notes of one life; a line that a kill cut is none."""
    path = folder / "notes.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("]}")]
    path.unlink(missing_ok=True)
    saved = max((x["saved"] for x in found), default=0)
    first = found[0]["step"] if found else 0
    return Notes(first, saved, {x["step"]: x["weights"] for x in found})


def kills(
    count: int = 100, seed: int = 0, strategies: tuple[Strategy, ...] = ("ddp", "fsdp2")
) -> dict[str, Any]:
    """Kill `count` lives of a training, of four kinds in turn, as many with each strategy."""
    draw, bar = random.Random(seed), tqdm(total=count, desc="kills")
    lost = halves = hung = 0
    by_kind = dict.fromkeys(KINDS, 0)
    waited: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        for strategy in strategies:
            folder = Path(name) / f".{strategy}"
            truth = _undisturbed(Path(name) / f".{strategy}-truth", strategy)
            acknowledged, left = 0, count // len(strategies)
            while left:
                kind = KINDS[left % len(KINDS)]
                folder.mkdir(exist_ok=True)
                killed, seconds, said = _kill_one(folder, strategy, kind, draw)
                notes = read_notes(folder)
                if notes.weights:
                    lost += notes.first <= acknowledged
                    halves += any(truth[s] != w for s, w in notes.weights.items())
                hung += said
                waited.append(seconds)
                acknowledged = max(acknowledged, notes.saved)
                if not killed:  # it came to its end before
                    shutil.rmtree(folder)
                    acknowledged = 0
                    continue
                by_kind[kind] += 1
                left -= 1
                bar.update()
    return {"goal": "0 lost, 0 half", "kills": sum(by_kind.values()), "by_kind": by_kind,
            "lost": lost, "half_loaded": halves, "not_ended_or_unclear": hung,
            "seconds_until_others_ended": {"max": max(waited), "mean": sum(waited) / len(waited)},
            }  # fmt: skip


def _undisturbed(folder: Path, strategy: Strategy) -> dict[int, list[float]]:
    folder.mkdir()
    Ranks(RANKS, live, folder, strategy, False, STEPS).end()
    return read_notes(folder).weights


def _kill_one(
    folder: Path, strategy: Strategy, kind: str, draw: random.Random
) -> tuple[bool, float, int]:
    """One life and its end: whether it was killed, how long the others took, how many said naught.

    The others must end by themselves with an error that names what happened.
    """
    begun = time.time()
    ranks = Ranks(RANKS, live, folder, strategy, True, STEPS)
    ranks.until(lambda: (folder / "notes.jsonl").exists())
    time.sleep(draw.uniform(0.0, 0.3))
    if kind.endswith("checkpoint"):
        ranks.until(lambda: _writes(folder, begun))
    if not ranks.alive:
        ranks.end()
        return False, 0.0, 0
    victims = range(RANKS) if kind.startswith("all") else [draw.randrange(RANKS)]
    ranks.kill(*victims)
    killed = time.monotonic()
    ended = ranks.end(120.0)
    unclear = sum("LostRankError" not in e.error and e.code != 0
                  for r, e in enumerate(ended) if r not in victims)  # fmt: skip
    return True, time.monotonic() - killed, unclear


def _writes(folder: Path, since: float) -> bool:
    """Whether a checkpoint is being written, and not left over from a life before."""
    try:
        return any(p.stat().st_mtime > since for p in folder.glob(".checkpoint-*.part"))
    except FileNotFoundError:  # it was sealed meanwhile
        return False


def _until(ready: Any, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not ready() and time.monotonic() < until:
        time.sleep(0.01)


# --- the real launcher ---

SIZES = ("--dim 32 --depth 2 --heads 2 --widths 16 16 --channels 4 --context 3 --batch 4 "
         "--device cpu --no-card --seed 1 --num-steps 1").split()  # fmt: skip


def torchrun(data: Path, kill_after: tuple[float, ...] = (1.0, 4.0)) -> dict[str, Any]:
    """`worldsim train` under `torchrun --max-restarts`, ranks killed on the way, against one not.

    kill_after: seconds from a change in the run folder that a rank is killed, one life each.
    """
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        calm, _ = _launch(data, root / "calm", ())
        shaken, killed = _launch(data, root / "shaken", kill_after)
        same = all(
            (calm / part).read_bytes() == (shaken / part).read_bytes()
            for part in ("vae/final.safetensors", "student/final.safetensors")
        )
        return {"goal": "same weights", "kills": killed, "same_weights": same}


def _launch(data: Path, root: Path, kill_after: tuple[float, ...]) -> tuple[Path, int]:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone",
        f"--max-restarts={len(kill_after)}", "-m", "worldsim", "train", str(data),
        "--steps", "16", "--out", str(root / "world"), "--run-folder", str(root / "run"), *SIZES,
    ]  # fmt: skip
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    root.mkdir()
    with open(root / "output", "w") as output:
        agent = subprocess.Popen(command, env=env, stdout=output, stderr=output)
        killed = 0
        for seconds in kill_after:
            victim = _a_rank(agent, root / "run", seconds)
            if victim is not None:
                os.kill(victim, signal.SIGKILL)
                killed += 1
        if agent.wait(1800):
            raise RuntimeError((root / "output").read_text()[-2000:])
    return root / "run", killed


def _a_rank(agent: subprocess.Popen[bytes], run: Path, seconds: float) -> int | None:
    """The process of a rank some seconds after the run has come further; None if all ended."""
    before = _progress(run)
    _until(lambda: _progress(run) > before or agent.poll() is not None, 600.0)
    time.sleep(seconds)
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children")
    if agent.poll() is not None or not children.exists():
        return None
    ranks = [int(pid) for pid in re.findall(r"\d+", children.read_text())]
    return ranks[-1] if ranks else None


def _progress(run: Path) -> int:
    """Stages planned and finished."""
    plans = run / "run.json"
    planned = len(json.loads(plans.read_text())["plans"]) if plans.exists() else 0
    return planned + len(list(run.glob("*/final.safetensors")))
