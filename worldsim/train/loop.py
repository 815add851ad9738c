"""One training loop: step, average, log, save, resume.

Every random choice of a step comes from a generator seeded by (seed, step), so a run has no hidden
position: killed at any moment it goes on from its last checkpoint and ends in the same weights, bit
for bit on the same machine and thread count.
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import cos, pi
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from .optimizer import Optimizer

Losses = dict[str, Tensor]
LossFn = Callable[[nn.Module, nn.Module, int, torch.Generator], Losses]
"""`(model, ema, step, generator)` -> named losses; their sum is minimised, `_names` only logged."""


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
        bf16: autocast to bfloat16.
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
    """A training run in a folder: `log.jsonl` and the newest whole checkpoint."""

    def __init__(self, folder: Path, model: nn.Module, config: FitConfig) -> None:
        self.folder, self.model, self.config, self.step = folder, model, config, 0
        self.ema = copy.deepcopy(model).requires_grad_(False)
        self.optimizer = Optimizer(
            model, config.lr, config.betas, config.weight_decay, muon=config.muon
        )
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "checkpoint").exists():
            self.load()

    def save(self) -> None:
        """Write a checkpoint beside the old one, sync it, then swap: what is there is whole."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.state_dict().items()}
        tensors |= {f"optimizer.{k}": v for k, v in self.optimizer.tensors()}
        meta = {"step": str(self.step), "config": json.dumps(asdict(self.config))}
        handle, name = tempfile.mkstemp(dir=self.folder, suffix=".tmp")
        os.close(handle)
        try:
            save_file({k: v.contiguous() for k, v in tensors.items()}, name, metadata=meta)
            with open(name, "rb") as file:
                os.fsync(file.fileno())
            os.replace(name, self.folder / "checkpoint")
        finally:
            Path(name).unlink(missing_ok=True)

    def load(self) -> None:
        """Go on from the checkpoint; refuse one that was made under another config."""
        path = self.folder / "checkpoint"
        meta, tensors = read_checkpoint(path)
        config = json.loads(json.dumps(asdict(self.config)))
        if {k: v for k, v in meta["config"].items() if k != "save_seconds"} != {
            k: v for k, v in config.items() if k != "save_seconds"
        }:
            raise ValueError(
                f"{path}: made with {meta['config']}, asked for {config}; "
                "use the same flags to resume, or another folder to start anew"
            )
        self.model.load_state_dict(_under(tensors, "model."))
        self.ema.load_state_dict(_under(tensors, "ema."))
        self.optimizer.load(_under(tensors, "optimizer."))
        self.step = meta["step"]

    def log(self, **figures: float) -> None:
        """Append one JSON line."""
        with open(self.folder / "log.jsonl", "a") as file:
            file.write(json.dumps({"step": self.step, "time": time.time(), **figures}) + "\n")


def read_checkpoint(path: Path) -> tuple[dict, dict[str, Tensor]]:
    """The step and config of a training checkpoint, and its tensors."""
    with safe_open(path, "pt") as file:
        meta = file.metadata()
    return {"step": int(meta["step"]), "config": json.loads(meta["config"])}, load_file(path)


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
    """One optimiser step; a loss that is not finite stops the run before it harms the weights."""
    config, model = run.config, run.model
    device = next(model.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
        losses = loss_fn(model, run.ema, run.step, step_generator(config.seed, run.step))
    total = torch.stack([v for k, v in losses.items() if not k.startswith("_")]).sum()
    if not bool(total.isfinite()):
        raise FloatingPointError(f"loss is not finite at step {run.step}: {losses}")
    total.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip)
    run.optimizer.step(learning_rate(config, run.step))
    run.step += 1
    decay = min(config.ema, (1 + run.step) / (10 + run.step))  # young averages forget faster
    with torch.no_grad():
        for mean, value in zip(run.ema.parameters(), model.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)
    return {k: v.item() for k, v in losses.items()} | {"grad_norm": norm.item()}


def fit(model: nn.Module, loss_fn: LossFn, config: FitConfig, folder: Path) -> nn.Module:
    """Train until `config.steps`, from the newest checkpoint in `folder` if there is one.

    Returns the averaged model. Raises FloatingPointError when a loss stops being finite.
    """
    run = Run(folder, model, config)
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
