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
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from math import cos, pi
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from worldsim.config import short, to_json
from worldsim.core import WorldError
from worldsim.files import atomic_path, clear_leftovers, sync
from worldsim.nn.dtype import narrow

from .optim import Optimizer

Losses = dict[str, Tensor]
LossFn = Callable[[nn.Module, nn.Module, int, torch.Generator], Losses]
"""`(model, ema, step, generator)` -> named losses; their sum is minimised, `_names` only logged."""

Settings = dict[str, Any]
"""All that decides a run, as JSON: the fields of its training, its model, hashes of its data and of
the weights that it begins with."""

HARMLESS = ("save_seconds", "compile")  # settings that a resumed run may change


class CheckpointError(WorldError):
    """A training checkpoint that is damaged, or that was made with other settings."""


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
        bf16: autocast to bfloat16 where the device is fast at it.
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
    bf16: bool = True


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
        folder.mkdir(parents=True, exist_ok=True)
        clear_leftovers(self.checkpoint)
        if self.checkpoint.exists():
            self.load()
        self._trim_log()

    def save(self) -> None:
        """Write a checkpoint; once this returns neither it nor the log up to it can be lost."""
        if self.logged.exists():
            sync(self.logged)
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.state_dict().items()}
        tensors |= {f"optimizer.{k}": v for k, v in self.optimizer.tensors()}
        # one key: safetensors writes several in any order, and equal runs should be equal files
        meta = {"run": json.dumps({"step": self.step, "settings": self.settings})}
        with atomic_path(self.checkpoint) as part:
            save_file({k: v.contiguous() for k, v in tensors.items()}, part, metadata=meta)

    def load(self) -> None:
        """Go on from the checkpoint."""
        meta, tensors = read_checkpoint(self.checkpoint)
        check_settings(self.checkpoint, meta["settings"], self.settings)
        wanted = {f"model.{name}": x.shape for name, x in self.model.state_dict().items()}
        found = {name: x.shape for name, x in tensors.items() if name.startswith("model.")}
        if found != wanted:
            differ = sorted(n for n in found.keys() | wanted if found.get(n) != wanted.get(n))
            raise CheckpointError(
                f"{self.checkpoint}: expected the tensors of this model, got others: "
                f"{short(differ)}; use the same sizes to resume, or another folder to start anew"
            )
        self.model.load_state_dict(_under(tensors, "model."))
        self.ema.load_state_dict(_under(tensors, "ema."))
        self.optimizer.load(_under(tensors, "optimizer."))
        self.step = meta["step"]

    def log(self, **figures: float) -> None:
        """Append one JSON line."""
        with open(self.logged, "a") as file:
            file.write(json.dumps({"step": self.step, "time": time.time(), **figures}) + "\n")

    def _trim_log(self) -> None:
        """Drop what a killed run logged after its last checkpoint: those steps come again."""
        lines = self.logged.read_text().splitlines(True) if self.logged.exists() else []
        kept = [line for line in lines if _step_of(line) <= self.step]
        if kept != lines:
            with atomic_path(self.logged) as part:
                part.write_text("".join(kept))


def _step_of(line: str) -> float:
    """The step of a line of the log; beyond all steps where it was cut short."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return float("inf")


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of all weights and buffers: what a run begins with."""
    whole = sha256()
    for name, value in model.state_dict().items():
        whole.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        whole.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The step and settings of a training checkpoint, and its tensors.

    Raises CheckpointError for a damaged one. Checkpoints made before November 2026 know of their
    settings only those of the loop.
    """
    try:
        with safe_open(path, "pt") as file:
            meta = file.metadata()
        if "run" in meta:
            return json.loads(meta["run"]), load_file(path)
        settings = {"fit": {"muon": False} | json.loads(meta["config"])}
        return {"step": int(meta["step"]), "settings": settings}, load_file(path)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: expected a training checkpoint, got {error!r}; remove it to start anew"
        ) from error


def check_settings(path: Path, found: Settings, asked: Settings) -> None:
    """Raise CheckpointError, with every difference, unless a run may go on from a checkpoint."""
    if found.keys() == {"fit"} and asked.keys() > found.keys():
        message = f"{path}: does not say what data and losses it was made with: take care yourself"
        warnings.warn(message, stacklevel=2)
        asked = {"fit": asked["fit"]}
    a, b = dict(_leaves(found)), dict(_leaves(asked))
    names = [n for n in sorted(a.keys() | b) if n.split(".")[-1] not in HARMLESS]
    differ = [f"{n} was {a.get(n)!r}, is {b.get(n)!r}" for n in names if a.get(n) != b.get(n)]
    if differ:
        raise CheckpointError(
            f"{path}: made with other settings: {'; '.join(differ)}; "
            "use the same flags to resume, or another folder to start anew"
        )


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested objects by dotted name."""
    if not isinstance(value, dict):
        yield name, value
        return
    for key, item in value.items():
        yield from _leaves(item, f"{name}.{key}" if name else key)


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def learning_rate(config: FitConfig, step: int) -> float:
    """Linear warm-up, then a cosine to 2% of the peak."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * (0.02 + 0.98 * 0.5 * (1 + cos(pi * min(1.0, done))))


def step_generator(seed: int, step: int) -> torch.Generator:
    """The generator of all random choices of one step."""
    return torch.Generator().manual_seed((seed << 32) + step)


def train_step(run: Run, loss_fn: LossFn) -> dict[str, float]:
    """One optimiser step; a loss or gradient that is not finite stops the run before the weights.

    (A loss may be finite where its slope is not: a square root at 0.)
    """
    config, model = run.config, run.model
    device = next(model.parameters()).device
    with narrow(device, on=config.bf16):
        losses = loss_fn(model, run.ema, run.step, step_generator(config.seed, run.step))
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
) -> nn.Module:
    """Train until `config.steps`, from the newest checkpoint in `folder` if there is one.

    settings: what else decides the run; a checkpoint made with anything else is refused.
    Returns the averaged model. Raises FloatingPointError when a loss or gradient stops being
    finite, CheckpointError for a checkpoint that this run cannot go on from.
    """
    run = Run(folder, model, config, settings)
    saved, mean = time.monotonic(), None
    bar = tqdm(range(run.step, config.steps), initial=run.step, total=config.steps)
    bar.set_description(folder.name)
    for _ in bar:
        figures = train_step(run, loss_fn)
        total = sum(v for k, v in figures.items() if k[0] != "_" and k != "grad_norm")
        mean = total if mean is None else 0.98 * mean + 0.02 * total
        bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
        if run.step % 20 == 0:
            run.log(**figures)
        if time.monotonic() - saved > config.save_seconds or run.step == config.steps:
            run.save()
            saved = time.monotonic()
    return run.ema
