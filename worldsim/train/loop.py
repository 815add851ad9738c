"""One training loop: step, average, log, save, resume.

Every random choice of a step comes from a generator seeded by (seed, step), so a run has no hidden
position: killed at any moment it goes on from its last checkpoint and ends in the same weights and
the same log, bit for bit on the same machine and thread count. A checkpoint says what it was
trained with, and no run goes on from one that was trained with anything else.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from math import cos, isfinite, pi
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from worldsim.config import to_json
from worldsim.diffusion.draws import Draws
from worldsim.files import atomic_path, clear_leftovers, sync
from worldsim.nn.dtype import default_float32, narrow

from .checkpoint import (
    CheckpointError,
    Settings,
    check_settings,
    check_tensors,
    read_checkpoint,
    under,
    write_checkpoint,
)
from .optim import Optimizer

Losses = dict[str, Tensor]
LossFn = Callable[[nn.Module, nn.Module, int, torch.Generator], Losses]
"""`(model, ema, step, generator)` -> named losses; their sum is minimised, `_names` only logged."""

Watch = Callable[["Run", dict[str, float]], None]
"""Called after every step with the run and the figures of the step."""


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How to train.

    Attributes:
        steps: optimiser steps in all.
        batch: clips a step.
        lr: peak learning rate; linear warm-up, then a cosine down to 2% of it.
        warmup: steps of warm-up.
        betas: AdamW's.
        weight_decay: AdamW's, on matrices only.
        muon: move the matrices inside blocks by Muon, see `optimizer.py`.
        clip: largest gradient norm.
        ema: decay of the averaged weights (which are what is kept).
        seed: names every random choice of the run.
        save_seconds: time between checkpoints.
        log_every: steps between lines of the log.
        bf16: autocast to bfloat16 where the device is fast at it.
        budgeted: steps follow from a budget of time and may be planned anew while it runs.
    """

    steps: int
    batch: int = 32
    lr: float = 1e-3
    warmup: int = 100
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    muon: bool = False
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    save_seconds: float = 60.0
    log_every: int = 20
    bf16: bool = True
    budgeted: bool = False


class Replanned(Exception):
    """A training is to go on from its checkpoint with another number of steps."""


class Run:
    """A training run in a folder: `log.jsonl` and the newest whole checkpoint.

    Goes on from the checkpoint in `folder` if there is one; raises CheckpointError, with the model
    as it was, for one that is damaged or was made with other `settings`.
    """

    def __init__(
        self, folder: Path, model: nn.Module, config: FitConfig, settings: Settings | None = None
    ) -> None:
        self.folder, self.model, self.config, self.step = folder, model, config, 0
        self.settings = (settings or {}) | {"fit": to_json(config)}
        self.checkpoint, self.logged = folder / "checkpoint", folder / "log.jsonl"
        self.ema = copy.deepcopy(model).requires_grad_(False)
        self.optimizer = Optimizer(
            model, config.lr, config.betas, config.weight_decay, muon=config.muon
        )
        self._logged_at = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        clear_leftovers(self.checkpoint)
        if self.checkpoint.exists():
            self.load()
        self._trim_log()

    def save(self) -> None:
        """Write a checkpoint; once this returns neither it nor the log up to it can be lost."""
        if self.logged.exists():
            sync(self.logged)
        tensors = self._weights() | {f"optimizer.{k}": v for k, v in self.optimizer.tensors()}
        write_checkpoint(self.checkpoint, self.step, self.settings, tensors)

    def _weights(self) -> dict[str, Tensor]:
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        return tensors | {f"ema.{k}": v for k, v in self.ema.state_dict().items()}

    def load(self) -> None:
        """Go on from the checkpoint; all of it is checked before anything changes."""
        path = self.checkpoint
        step, settings, tensors = read_checkpoint(path)
        check_settings(path, settings, self.settings)
        kept = {n: x for n, x in tensors.items() if not n.startswith("optimizer.")}
        check_tensors(path, kept, self._weights())
        moments = under(tensors, "optimizer.")
        if fault := self.optimizer.fault(moments, step):
            raise CheckpointError(f"{path}: {fault}; move it away to start anew")
        self.model.load_state_dict(under(tensors, "model."))
        self.ema.load_state_dict(under(tensors, "ema."))
        self.optimizer.load(moments)
        self.step = step

    def log(self, **figures: float) -> None:
        """Append one JSON line; `seconds` since the line before it, or since this run went on."""
        now = time.monotonic()
        line = {"step": self.step, "time": time.time(), "seconds": now - self._logged_at}
        with open(self.logged, "a") as file:
            file.write(json.dumps({**line, **figures}) + "\n")
        self._logged_at = now

    def _trim_log(self) -> None:
        """Drop what a killed run logged after its last checkpoint: those steps come again."""
        text = self.logged.read_text(errors="replace") if self.logged.exists() else ""
        lines = text.splitlines(True)
        kept = [line for line in lines if _step_of(line) <= self.step]
        if kept != lines:
            with atomic_path(self.logged) as part:
                part.write_text("".join(kept))


def _step_of(line: str) -> float:
    """The step of a line of the log; beyond all steps where there is none to read."""
    try:
        step = json.loads(line)["step"]
        return step if isfinite(step) else float("inf")
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError):
        return float("inf")


def learning_rate(config: FitConfig, step: int) -> float:
    """Linear warm-up, then a cosine to 2% of the peak."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * (0.02 + 0.98 * 0.5 * (1 + cos(pi * min(1.0, done))))


def step_generator(seed: int, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator of all random choices of one step, where they are needed."""
    return torch.Generator(device).manual_seed((seed << 32) + step)


def step_draws(config: FitConfig, step: int, device: torch.device | str = "cpu") -> Draws:
    """The random numbers of a step's rows."""
    return Draws(config.seed, step, range(config.batch), device=device)


def train_step(run: Run, loss_fn: LossFn) -> dict[str, float]:
    """One optimiser step; a loss or gradient that is not finite stops the run before the weights.

    (A loss may be finite where its slope is not: a square root at 0.)
    """
    config, model = run.config, run.model
    device = next(model.parameters()).device
    generator = step_generator(config.seed, run.step, device)
    # what a loss makes without naming a device belongs beside the weights
    beside = nullcontext() if device.type == "cpu" else device
    with beside, narrow(device, on=config.bf16):
        losses = loss_fn(model, run.ema, run.step, generator)
    total = torch.stack([v for k, v in losses.items() if not k.startswith("_")]).sum()
    if not bool(total.isfinite()):
        raise FloatingPointError(f"loss is not finite at step {run.step}: {losses}")
    total.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip)
    if not bool(norm.isfinite()):
        run.optimizer.zero_grad()
        raise FloatingPointError(f"gradient is not finite at step {run.step}: {losses}")
    run.optimizer.step(learning_rate(config, run.step))
    run.step += 1
    decay = min(config.ema, (1 + run.step) / (10 + run.step))  # young averages forget faster
    with torch.no_grad():
        for mean, value in zip(run.ema.parameters(), model.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)
    return {k: v.item() for k, v in losses.items()} | {"grad_norm": norm.item()}


def fit(
    model: nn.Module,
    loss_fn: LossFn,
    config: FitConfig,
    folder: Path,
    settings: Settings | None = None,
    *,
    watch: Watch | None = None,
) -> nn.Module:
    """Train until `config.steps`, from the newest checkpoint in `folder` if there is one.

    settings: what else decides the run; a checkpoint made with anything else is refused.
    watch: called after every step with the run and its figures.
    Returns the averaged model. Raises FloatingPointError when a loss or gradient stops being
    finite, CheckpointError for a checkpoint that this run cannot go on from.
    """
    with default_float32():
        run = Run(folder, model, config, settings)
        _train(run, loss_fn, watch)
    return run.ema


def _train(run: Run, loss_fn: LossFn, watch: Watch | None) -> None:
    config, saved, mean = run.config, time.monotonic(), None
    bar = None
    while run.step < config.steps:
        figures = train_step(run, loss_fn)
        if bar is None:  # only now: the first step compiles, and would spoil the rate for hours
            name = run.folder.name
            bar = tqdm(
                total=config.steps, initial=run.step, desc=name, disable=name.startswith(".")
            )
        else:
            bar.update()
        total = sum(v for k, v in figures.items() if k[0] != "_" and k != "grad_norm")
        mean = total if mean is None else 0.98 * mean + 0.02 * total
        bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
        if run.step % config.log_every == 0:
            run.log(**figures)
        if time.monotonic() - saved > config.save_seconds or run.step == config.steps:
            run.save()
            saved = time.monotonic()
        if watch is not None:
            watch(run, figures)
    if bar is not None:
        bar.close()
