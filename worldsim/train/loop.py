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
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass
from math import cos, isfinite, pi
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from worldsim.config import logged_number, to_json
from worldsim.core import WorldError
from worldsim.diffusion.draws import Draws
from worldsim.files import clear_leftovers, plain_lines, sync, write_bytes
from worldsim.nn.dtype import default_float32, fast_dtype, narrow
from worldsim.nn.generator import kept_generator
from worldsim.store.provenance import MOST_LOG
from worldsim.store.tensors import under

from .checkpoint import (
    CheckpointError,
    Settings,
    check_settings,
    check_tensors,
    shapes_of,
    write_checkpoint,
)
from .distributed import is_main, mean_figures, own_rows, world_size
from .optim import Optimizer
from .parallel import Strategy, chosen, full, recompute, release, shard, skeleton, spread, whole
from .stored import newest, open_checkpoint, remove_sealed

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
        batch: clips a step, of all processes together.
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
        strategy: how many processes hold the network: "ddp" whole, "fsdp2" in shards, "auto" in
            shards from 30M parameters up; see `parallel.py`. Of no account for one.
        activation_checkpointing: keep no activations inside blocks but compute them again for
            gradients, a third more work for far less memory.
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
    strategy: Strategy = "auto"
    activation_checkpointing: bool = False
    budgeted: bool = False

    def __post_init__(self) -> None:
        rules = {
            "a whole number from 0 up": (self.steps >= 0, "steps"),
            "1 clip a step or more": (self.batch >= 1, "batch"),
            "a number above 0": (0 < self.lr < float("inf"), "lr"),
            "0 or more": (self.warmup >= 0, "warmup"),
            "0 to below 1": (0 <= self.ema < 1, "ema"),
            "above 0": (self.clip > 0, "clip"),
            "1 or more": (self.log_every >= 1, "log_every"),
        }
        for expected, (fits, name) in rules.items():
            if not fits:
                raise WorldError(f"{name}: expected {expected}, got {getattr(self, name)}")


class Replanned(Exception):
    """A training is to go on from its checkpoint with another number of steps."""


class Run:
    """A training run in a folder: `log.jsonl` and the newest whole checkpoint.

    Goes on from the checkpoint in `folder` if there is one; raises CheckpointError, with the model
    as it was, for one that is damaged or was made with other `settings`. Many processes train one
    run together: one writes its checkpoint as a file, many as a folder, and each reads both.

    Attributes:
        model, ema: the network and its average, on every process or sharded over all.
        forward: `forward(loss_fn, ema, step, generator)`, whose gradients are the mean over all.
        clock: seconds that all processes agree on, as of the last step.
        saved_step: the step of the newest checkpoint that can no longer be lost.
    """

    def __init__(
        self, folder: Path, model: nn.Module, config: FitConfig, settings: Settings | None = None
    ) -> None:
        self.folder, self.model, self.config, self.step = folder, model, config, 0
        self.settings = (settings or {}) | {"fit": to_json(config)}
        self.checkpoint, self.logged = folder / "checkpoint", folder / "log.jsonl"
        self._spread(model)
        self.optimizer = Optimizer(
            model, config.lr, config.betas, config.weight_decay, muon=config.muon
        )
        self._logged_at = self.clock = time.monotonic()
        self._saving: tuple[int, Future[Any]] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        lines = _lines_of(self.logged)  # read before anything changes
        self.load()
        self.saved_step = self.step
        if is_main():
            clear_leftovers(self.checkpoint)
            self._trim_log(lines)

    def _spread(self, model: nn.Module) -> None:
        """Put network and average on the processes."""
        config, self._strategy = self.config, chosen(self.config.strategy, model)
        self.ema = copy.deepcopy(model).requires_grad_(False)
        self.sharded = self._strategy == "fsdp2"
        self._like = skeleton(model) if self.sharded else None
        if config.activation_checkpointing:
            recompute(model)
        narrow_type = fast_dtype(next(model.parameters()).device) == "bfloat16"
        bf16 = config.bf16 and narrow_type
        self.forward = spread(model, self._strategy, bf16=bf16)
        if self.sharded:
            shard(self.ema, bf16=bf16, keep=True)

    def averaged(self) -> nn.Module:
        """The averaged network, whole on every process; all have to ask for it together."""
        return self.ema if self._like is None else whole(self.ema, self._like)

    def save(self, *, wait: bool = True) -> None:
        """Write a checkpoint; once this returns neither it nor the log up to it can be lost.

        wait: False lets many processes go on while it is written; the next `save` waits for it.
        """
        if is_main() and self.logged.exists():
            sync(self.logged)
        tensors = self._weights() | {f"optimizer.{k}": v for k, v in self.optimizer.tensors()}
        if world_size() == 1:
            write_checkpoint(self.checkpoint, self.step, self.settings, tensors)
            remove_sealed(self.folder)
            self.saved_step = self.step
            return
        self.saved()
        if self.saved_step == self.step:  # it is there, or on its way until just now
            return
        from .sharded import begin_save  # slow to import

        self._saving = self.step, begin_save(self.folder, self.step, self.settings, tensors)
        if wait:
            self.saved()

    def saved(self) -> None:
        """Wait until the checkpoint that is being written can no longer be lost."""
        if self._saving is not None:
            (step, written), self._saving = self._saving, None
            written.result()
            self.saved_step = step

    def _weights(self) -> dict[str, Tensor]:
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        return tensors | {f"ema.{k}": v for k, v in self.ema.state_dict().items()}

    def load(self) -> None:
        """Go on from the checkpoint, if any; all of it is checked before anything changes."""
        path = newest(self.folder)
        if path is None:
            return
        stored = open_checkpoint(path)
        check_settings(path, stored.settings, self.settings)
        kept = {n: x for n, x in stored.shapes.items() if not n.startswith("optimizer.")}
        check_tensors(path, kept, shapes_of(self._weights()))
        moments = under(stored.shapes, "optimizer.")
        if fault := self.optimizer.fault(moments, stored.step):
            raise CheckpointError(f"{path}: {fault}; move it away to start anew")
        blank = {f"optimizer.{k}": v for k, v in self.optimizer.blank(moments).items()}
        tensors = stored.read(self._weights() | blank)
        self.model.load_state_dict(under(tensors, "model."))
        self.ema.load_state_dict(under(tensors, "ema."))
        self.optimizer.load(under(tensors, "optimizer."))
        self.step = stored.step

    def log(self, **figures: float) -> None:
        """Append one JSON line; `seconds` since the line before it, or since this run went on."""
        if not is_main():
            return
        now = time.monotonic()
        line = {"step": self.step, "time": time.time(), "seconds": now - self._logged_at}
        with open(self.logged, "a") as file:
            file.write(json.dumps({**line, **figures}) + "\n")
        self._logged_at = now

    def _trim_log(self, lines: list[bytes]) -> None:
        """Drop what a killed run logged after its last checkpoint: those steps come again."""
        kept = [line for line in lines if _step_of(line) <= self.step]
        if kept != lines:
            write_bytes(self.logged, b"".join(kept))


def _lines_of(log: Path) -> list[bytes]:
    try:
        return list(plain_lines(log, MOST_LOG)) if log.exists() else []
    except OSError as error:
        raise CheckpointError(
            f"{log}: expected the log of a training, got {error.strerror or error}; move it away"
        ) from error


def _step_of(line: bytes) -> float:
    """The step of a line of the log; beyond all steps where there is none to read."""
    try:
        value = json.loads(line)
        step = logged_number(value, "step") if isinstance(value, dict) else None
    except (ValueError, RecursionError):
        step = None
    return float("inf") if step is None else step


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
    """The random numbers of a step's rows, those that are this process's."""
    return Draws(config.seed, step, own_rows(config.batch), config.batch, device)


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
        losses = run.forward(loss_fn, run.ema, run.step, generator)
    figures, run.clock = mean_figures(losses, time.monotonic())
    if not all(isfinite(v) for k, v in figures.items() if not k.startswith("_")):
        raise FloatingPointError(f"loss is not finite at step {run.step}: {figures}")
    sum(v for k, v in losses.items() if not k.startswith("_")).backward()  # type: ignore[union-attr]
    norm = full(nn.utils.clip_grad_norm_(model.parameters(), config.clip)).item()
    if not isfinite(norm):
        run.optimizer.zero_grad()
        raise FloatingPointError(f"gradient is not finite at step {run.step}: {figures}")
    if run.sharded:
        release(run.ema)
    run.optimizer.step(learning_rate(config, run.step))
    run.step += 1
    decay = min(config.ema, (1 + run.step) / (10 + run.step))  # young averages forget faster
    with torch.no_grad():
        for mean, value in zip(run.ema.parameters(), model.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)
    return figures | {"grad_norm": norm}


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
    with default_float32(), kept_generator():
        run = Run(folder, model, config, settings)
        _train(run, loss_fn, watch)
        return run.averaged()


def _train(run: Run, loss_fn: LossFn, watch: Watch | None) -> None:
    config, saved, mean = run.config, run.clock, None
    bar = None
    while run.step < config.steps:
        figures = train_step(run, loss_fn)
        if bar is None:  # only now: the first step compiles, and would spoil the rate for hours
            name = run.folder.name
            bar = tqdm(
                total=config.steps,
                initial=run.step,
                desc=name,
                disable=name.startswith(".") or not is_main(),
            )
        else:
            bar.update()
        total = sum(v for k, v in figures.items() if k[0] != "_" and k != "grad_norm")
        mean = total if mean is None else 0.98 * mean + 0.02 * total
        bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
        if run.step % config.log_every == 0:
            run.log(**figures)
        done = run.step == config.steps
        if run.clock - saved > config.save_seconds or done:
            run.save(wait=done)
            saved = run.clock
        if watch is not None:
            watch(run, figures)
    if bar is not None:
        bar.close()
