"""A budget of time or of steps, split over the stages of training.

A cosine schedule must know its end before its first step. So each stage is tried for a few steps on
a copy, its share of the time that is left is divided by what a step took, and the number of steps
stays in the run: a run that is resumed has the same schedule, wherever it goes on.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from worldsim.config import logged_number, read_json_lines
from worldsim.core import WorldError
from worldsim.store.provenance import MOST_LOG

from .distill import DistillationConfig
from .distributed import agree, is_main, main_first
from .dynamics import DynamicsTrainingConfig
from .vae import VAETrainingConfig

Training = TypeVar("Training", VAETrainingConfig, DynamicsTrainingConfig, DistillationConfig)

STAGES = ("vae", "forced", "teacher", "student")

GOING_ON = ("vae", "student")
"""Stages where networks go on from those of another world, which needs no teacher."""

TIME_SHARES = {"vae": 0.38, "forced": 0.24, "teacher": 0.10, "student": 0.20, "card": 0.08}
"""Of the time: latents are encoded on the teacher's; calibration and card have the last share.

No dream is sharper than the VAE, so it has the largest share: where little moves, its error alone
is as large as that of copying the last frame.
"""

STEP_SHARES = {"vae": 0.25, "forced": 0.35, "teacher": 0.15, "student": 0.25}

LEAST_STEPS = 30
"""Of a stage: with fewer there is nothing to warm up, to average and to anneal."""

COMPILING = 150.0
"""Seconds that compiling a stage's network takes on one CPU core or more, all graphs together."""

SAVED = 0.2
"""Share of a step's time that compiling saves, see docs/speed.md."""

LATE, EARLY, SLACK = 1.25, 0.6, 15.0
"""A stage that would take more or less than these shares of its time is planned anew."""

TRIED = 6
"""Steps of a trial; those after the second count."""


@dataclass(frozen=True)
class StagePlan:
    """How long a stage trains.

    Attributes:
        steps: optimiser steps.
        compile: whether its network is compiled.
        step_seconds: what a step took when this was planned, 0 where that was not measured.
        until: when the stage should end, in seconds of the run; 0 without a budget of time.
    """

    steps: int
    compile: bool
    step_seconds: float = 0.0
    until: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise WorldError(f"steps: expected 1 or more of a stage, got {self.steps}")

    @property
    def seconds(self) -> float:
        """How long all steps take, by the trial."""
        return self.steps * self.step_seconds


@dataclass(frozen=True)
class Budget:
    """Hours or optimiser steps in all, or the recipe's own; whether to compile, None to choose."""

    hours: float | None
    steps: int | None
    compile: bool | None


def time_left(left: float, stage: str, stages: Sequence[str] = STAGES) -> float:
    """A stage's share of the seconds that are left for it and all that come after it."""
    names = [*stages[stages.index(stage) :], "card"]
    return left * TIME_SHARES[stage] / sum(TIME_SHARES[name] for name in names)


def plan_by_time(
    stage: str, seconds: float, step_seconds: float, compile: bool | None, *, first: bool,
    shapes: int = 1,
) -> StagePlan:  # fmt: skip
    """Steps that fill `seconds`, and never fewer than `LEAST_STEPS`.

    first: whether nothing has been trained yet: then WorldError says that the budget is too small.
    shapes: of batches, for each of which the network is compiled.
    """
    steps = int(seconds / step_seconds)
    if first and steps < LEAST_STEPS:
        hours = 2 * LEAST_STEPS * step_seconds / TIME_SHARES[stage] / 3600
        raise WorldError(
            f"hours: expected time for {LEAST_STEPS} steps or more of stage {stage!r}, got "
            f"{seconds:.0f} s at {step_seconds:.2f} s a step; give {hours:.2g} hours or more, "
            "or take a smaller preset"
        )
    pays = SAVED * seconds > 2 * COMPILING * shapes
    return StagePlan(max(steps, LEAST_STEPS), pays if compile is None else compile, step_seconds)


def plan_by_steps(
    stage: str, steps: int, compile: bool | None, stages: Sequence[str] = STAGES, shapes: int = 1
) -> StagePlan:
    """A stage's share of `steps` in all, at least one."""
    share = STEP_SHARES[stage] / sum(STEP_SHARES[name] for name in stages)
    own = max(1, round(steps * share))
    return StagePlan(own, own >= 2000 * shapes if compile is None else compile)


def replanned(plan: StagePlan, step: int, step_seconds: float, now: float) -> StagePlan | None:
    """Another plan if this one misses its end by far at the present rate, else None.

    step: where the training stands. step_seconds: what its last steps took. now: seconds of the
    run. A machine that others use is not as fast as it was when the plan was made.
    """
    left, needed = max(0.0, plan.until - now), (plan.steps - step) * step_seconds
    late = needed > LATE * left + (COMPILING if plan.compile else SLACK)
    early = needed < EARLY * left and step < plan.steps // 2
    steps = max(step + LEAST_STEPS, step + int(left / step_seconds))
    if not (late or early) or steps == plan.steps or (late and steps > plan.steps):
        return None
    return replace(plan, steps=steps, step_seconds=step_seconds)


def with_steps(training: Training, plan: StagePlan) -> Training:
    """The training as planned: warm-up and averaging shrink with its length."""
    fit = training.fit
    short = max(0.9, 1 - 10 / plan.steps)
    fit = replace(
        fit,
        steps=plan.steps,
        warmup=min(fit.warmup, plan.steps // 10),
        ema=min(fit.ema, short),
        budgeted=plan.until > 0,
    )
    if isinstance(training, VAETrainingConfig):
        return replace(training, fit=fit)
    return replace(training, fit=fit, compile=plan.compile)


def measure_step(train: Callable[[Any, Path], Any], training: Training, folder: Path) -> float:
    """Seconds of one step of `train(training, folder)`, by a few that leave nothing behind.

    Many processes try together and agree on what the main one measured.
    """
    fit = replace(training.fit, steps=TRIED, log_every=1, save_seconds=1e9)
    tried = replace(training, fit=fit)
    if not isinstance(tried, VAETrainingConfig):
        tried = replace(tried, compile=False)
    trial = folder / ".trial"
    main_first(lambda: shutil.rmtree(trial, ignore_errors=True))  # of one that was killed
    took = 0.0
    try:
        train(tried, trial)
        if is_main():
            lines = list(read_json_lines(trial / "log.jsonl"))
            took = statistics.median(line["seconds"] for line in lines[2:])
    finally:
        if is_main():
            shutil.rmtree(trial, ignore_errors=True)
    return max(1e-4, agree(took))


def trained_seconds(stage: Path) -> float:
    """Seconds that a stage's log tells of, over all that it was resumed."""
    lines = read_json_lines(stage / "log.jsonl", MOST_LOG)
    return sum(max(0.0, logged_number(line, "seconds") or 0.0) for line in lines)
