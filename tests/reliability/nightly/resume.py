"""D2: a training that is killed and goes on ends in the same bytes as one that nobody killed.

The one that nobody killed saves as often and lives on past its checkpoints, so a state that no
checkpoint holds would part the two. Compared are the last checkpoint (weights, averages, optimiser,
step), the final weights, and every line of the log. All kinds of training are tried: the VAE's, the
forced one's, the teacher's (with resampled and damaged context), the student's.
"""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tqdm import tqdm

from tests.measured_data import stored
from tests.reliability.nightly.forks import Child
from tests.reliability.nightly.rows import Outcome, Row, main
from tests.reliability.nightly.writers import log_of
from tests.train.test_recipe import FILM, SIZES_HERE, film, recipe
from worldsim.data import Dataset
from worldsim.train import loop
from worldsim.train import recipe as recipes
from worldsim.train.recipe import fit_forced, fit_student, fit_teacher, fit_vae
from worldsim.train.vae import measure_latents

STEPS = 6
LONGEST = 0.08  # seconds from a step's begin to the kill: it may be done and saved by then
Stage = Callable[[Path], Any]


def stages(data: Dataset) -> dict[str, Stage]:
    """The trainings by name, each in a run's folder."""
    vae, dynamics, distill = recipe(STEPS)
    often = replace(vae.fit, save_seconds=0.0, log_every=2)
    faulty = replace(dynamics, fit=often, resample=0.5, damage=0.5)
    return {
        "vae": lambda run: fit_vae(data, SIZES_HERE, replace(vae, fit=often), run),
        "forced": lambda run: fit_forced(data, SIZES_HERE, replace(dynamics, fit=often), run),
        "teacher": lambda run: fit_teacher(data, SIZES_HERE, faulty, run),
        "student": lambda run: fit_student(data, SIZES_HERE, replace(distill, fit=often), run),
    }


def recorded(folder: Path) -> Dataset:
    """Six small films."""
    return stored(folder, FILM, train=[film(seed) for seed in range(6)])


def train(stage: Stage, run: Path, child: Child) -> None:
    """In a child: train and tell every step."""
    generator = loop.step_generator

    def begin(seed: int, step: int, *where: Any) -> Any:
        child.tell(step)
        return generator(seed, step, *where)

    with patch.object(loop, "step_generator", begin):
        stage(run)


def told(run: Path, name: str) -> dict[str, Any]:
    """All that must be the same, by name."""
    stage = run / name
    files = {n: sha256((stage / n).read_bytes()).hexdigest()
             for n in ("checkpoint", "final.safetensors")}  # fmt: skip
    return files | {"log": log_of(stage)}


def finish(stage: Stage, run: Path) -> None:
    """Train to the end in a process of its own."""
    with Child(lambda child: train(stage, run, child)) as child:
        if child.wait():
            raise RuntimeError(f"a training ended with exit {child.wait()}")


def kill_at(stage: Stage, run: Path, step: int, pause: float) -> bool:
    """Train until `step` and a moment longer, then kill; False if it was over by then."""
    with Child(lambda child: train(stage, run, child)) as child:
        while child.told < step and child.running():
            time.sleep(0.0005)
        time.sleep(pause)
        return child.kill(signal.SIGKILL)


def resumes(count: int) -> Outcome:
    """Kill trainings `count` times in all, each stage as often, go on, and compare."""
    draw, failures, killed = random.Random(0), [], Counter()
    brief = patch.object(recipes, "measure_latents", partial(measure_latents, clips=32))
    with tempfile.TemporaryDirectory() as name, brief:
        root = Path(name)
        (root / "data").mkdir()
        trainings = stages(recorded(root / "data"))
        for train_stage in trainings.values():
            train_stage(root / "warm")  # children are forked with all imported that they need
        begun = {stage: root / stage for stage in trainings}  # the runs as each stage finds them
        expected, whole = {}, root / "whole"
        whole.mkdir()
        for stage, train_stage in trainings.items():
            shutil.copytree(whole, begun[stage])
            finish(train_stage, whole)
            expected[stage] = told(whole, stage)
        with tqdm(total=count, desc="kills", leave=False) as bar:
            while killed.total() < count:
                stage = list(trainings)[killed.total() % len(trainings)]
                run, step = root / "run", draw.randrange(STEPS)
                shutil.copytree(begun[stage], run)
                was = kill_at(trainings[stage], run, step, draw.uniform(0, LONGEST))
                killed[stage] += was  # else it was over by then, and another moment is tried
                bar.update(was)
                finish(trainings[stage], run)
                got = told(run, stage)
                failures += [
                    f"{stage} killed at step {step}: {what} differs"
                    for what, value in expected[stage].items()
                    if got[what] != value
                ]
                shutil.rmtree(run)
    return Outcome(failures=failures, figures={"kills": dict(killed), "steps": STEPS})


ROWS = (
    Row(name="D2", promise="a killed training ends in the bytes of one that nobody killed (CPU)",
        unit="kills", ci=4, full=1200, attempt=resumes),
)  # fmt: skip

if __name__ == "__main__":
    main(ROWS)
