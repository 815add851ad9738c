"""Training on many processes, against one: losses, checkpoints, kills and bytes.

    python -m benchmarks.scale_out_training

Everything runs on this machine's CPU, on gloo, with networks as small as shows the figure: equality
does not depend on size, and bytes are counted, not timed.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import nn

from worldsim.core import ActionSpec, WorldError
from worldsim.costs.parallel import Sent, ddp_sent, fsdp2_sent, groups_of
from worldsim.data import NativeDataset
from worldsim.data.dataset import Dataset, DatasetSpec, Episode
from worldsim.data.latents import LatentRecording
from worldsim.data.native import NativeWriter
from worldsim.data.windows import Windows
from worldsim.evaluate.report import write_card
from worldsim.flags import refuse_repeated
from worldsim.models.conditioning import ConditioningConfig
from worldsim.models.dit import DiTConfig
from worldsim.models.dynamics import Dynamics
from worldsim.models.heads import HeadsConfig
from worldsim.models.vae import VAEConfig
from worldsim.store.provenance import provenance
from worldsim.train.distill import DistillationConfig, train_student
from worldsim.train.distributed import check_same, is_main
from worldsim.train.dynamics import DynamicsTrainingConfig, train_dynamics
from worldsim.train.loop import FitConfig, Run
from worldsim.train.parallel import Strategy
from worldsim.train.vae import VAETrainingConfig, new_vae, train_vae

from . import RESULTS
from .ranks import sent_bytes, together
from .scale_out_kills import kills, torchrun

STAGES = ("vae", "forced", "teacher", "student")
LATENT = (2, 2, 4)
FORCE = ActionSpec(kind="continuous", low=(-1.0,), high=(1.0,))
WINDOW, TARGETS, BATCH = 3, 6, 8
SMALL = DiTConfig(dim=32, depth=2, heads=2, kv_heads=1, mlp=2, patch=(1, 1))
WIDE = replace(SMALL, dim=128)
"""Wide enough that messages of single numbers (norms, losses, the clock) do not count."""


@dataclass(frozen=True)
class Job:
    """A training of one stage in a folder.

    Attributes:
        stage: vae, forced, teacher or student; "wide" is a wider forced; "sizes" and
            "sizes-student" have several frame sizes and lengths of clips.
        steps: in all, as its schedule knows them.
        strategy: how networks are spread.
        folder: of its run; recordings lie in `data` beside it.
        until: where it stops, which is not where it ends; at the end if None.
        changes: other settings of its `FitConfig`.
    """

    stage: str
    steps: int
    strategy: Strategy
    folder: Path
    until: int | None = None
    changes: tuple[tuple[str, Any], ...] = ()


class Stopped(Exception):
    """A training came as far as it was asked to."""


def train(job: Job) -> list[dict[str, float]]:
    """Train as one rank of those that run; the figures of every step."""
    found: list[dict[str, float]] = []

    def watch(run: Run, figures: dict[str, float]) -> None:
        found.append(figures)
        if run.step == job.until:
            run.save()
            raise Stopped

    try:
        stage(job, watch)
    except Stopped:
        pass
    return found


def stage(job: Job, watch: Callable[[Run, dict[str, float]], None]) -> nn.Module:
    """Run one of the four trainings, small."""
    fit = FitConfig(
        steps=job.steps, batch=BATCH, lr=1e-3, warmup=20, bf16=False, strategy=job.strategy,
        ema=0.98, log_every=1, muon="student" in job.stage,
    )  # fmt: skip
    fit, folder = replace(fit, **dict(job.changes)), job.folder / job.stage
    if job.stage == "vae":
        vae = new_vae(VAEConfig(channels=4, widths=(16, 16), blocks=(1, 1)))
        training = VAETrainingConfig(fit=fit, detail=0.5)
        return train_vae(NativeDataset(job.folder.parent / "data"), vae, training, folder, watch)
    several = job.stage.startswith("sizes")
    latents = sized_recordings((1, 3, 5, 40)) if several else recording()
    model, lengths = dynamics(WIDE if job.stage == "wide" else SMALL), (1, 4) if several else ()
    if "student" in job.stage:
        how = DistillationConfig(fit=fit, targets=TARGETS, resample=0.3, dreamt=0.4, damage=0.3,
                                 masked=0.3, compile=False, lengths=lengths)  # fmt: skip
        return train_student(latents, model, WINDOW, how, folder, watch)
    how = DynamicsTrainingConfig(fit=fit, targets=TARGETS, compile=False, lengths=lengths)
    if job.stage == "teacher":
        how = replace(how, resample=0.5, damage=0.4, masked=0.3)
    return train_dynamics(latents, model, WINDOW, how, folder, watch)


def dynamics(dit: DiTConfig = SMALL) -> Dynamics:
    """An untrained network, the same on every rank."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Dynamics(dit, HeadsConfig(hidden=16), LATENT[-1], ConditioningConfig(action=FORCE))


def recording(episodes: int = 12, chunks: int = 40) -> LatentRecording:
    """Latents that actions push around; of every third episode rewards are not known."""
    g, count = torch.Generator().manual_seed(0), episodes * chunks
    actions = torch.rand(count, 1, generator=g) * 2 - 1
    pushed = actions.cumsum(0).sin()[:, :, None, None] + torch.zeros(1, *LATENT)
    latents = pushed + 0.3 * torch.randn(count, *LATENT, generator=g)
    rewards = pushed[:, 0, 0, 0]
    known = torch.arange(episodes).repeat_interleave(chunks) % 3 > 0
    ends = torch.arange(count) % chunks == chunks - 1
    return LatentRecording(
        latents.half(), actions, rewards * known, 1.0 - ends.float(), Windows((chunks,) * episodes),
        rewards_known=known, continue_known=known,
    )  # fmt: skip


def sized_recordings(lengths: tuple[int, ...]) -> list[LatentRecording]:
    """The same episodes of so many chunks, at two sizes."""
    count, g = sum(lengths), torch.Generator().manual_seed(1)
    actions = torch.rand(count, 1, generator=g) * 2 - 1
    latents = actions[:, :, None, None] + torch.randn(count, 2, 4, 4, generator=g)
    return [
        LatentRecording(x.half(), actions, actions[:, 0], torch.ones(count), Windows(lengths))
        for x in (latents[:, :, :2], latents)
    ]


def record(folder: Path, episodes: int = 12, chunks: int = 12) -> Dataset:
    """A bright square that jumps about a gradient, 16 x 16."""
    spec = DatasetSpec(name="square", frame_shape=(16, 16, 3), fps=20.0, chunk=2, action=FORCE)
    writer, rng = NativeWriter(folder, spec), np.random.default_rng(0)
    for place in range(episodes):
        frames = np.tile(np.linspace(20, 120, 16, dtype=np.uint8)[None, :, None, None],
                         (2 * chunks, 1, 16, 3))  # fmt: skip
        for frame, (y, x) in zip(frames, rng.integers(0, 12, (2 * chunks, 2)), strict=True):
            frame[y : y + 4, x : x + 4] = 230
        actions = rng.uniform(-1, 1, (chunks, 1)).astype(np.float32)
        writer.write("train", Episode(name=f"e{place}", frames=frames, chunk=2, fps=20.0,
                                      actions=actions))  # fmt: skip
    return NativeDataset(folder)


# --- rows ---


def curves(steps: int = 200, counts: tuple[int, ...] = (2, 4)) -> dict[str, Any]:
    """Loss curves of 1, 2 and 4 processes on the same global batches, DDP and FSDP2, fp32.

    The figure is the largest relative difference from one process over all steps and losses.
    """
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        record(root / "data")
        for which in STAGES:
            alone = together(1, train, Job(which, steps, "auto", root / "alone"))[0]
            found[which] = {"first": losses(alone[0]), "last": losses(alone[-1])}
            for strategy in ("ddp", "fsdp2"):
                for count in counts:
                    job = Job(which, steps, strategy, root / f"{strategy}-{count}")
                    curve = together(count, train, job)[0]
                    found[which][f"{strategy} {count}"] = apart(alone, curve)
            print(which, json.dumps(found[which]), flush=True)
    worst = max(x for row in found.values() for x in row.values() if isinstance(x, float))
    return {"goal": 1e-4, "steps": steps, "worst": worst, "stages": found}


def losses(figures: dict[str, float]) -> dict[str, float]:
    """What is minimised, without what is only logged."""
    return {k: v for k, v in figures.items() if not k.startswith("_") and k != "grad_norm"}


def apart(one: list[dict[str, float]], other: list[dict[str, float]]) -> float:
    """The largest difference of the total loss of a step, relative to it."""
    a, b = (np.array([sum(losses(x).values()) for x in curve]) for curve in (one, other))
    if len(a) != len(b):
        raise RuntimeError(f"curves of {len(a)} and {len(b)} steps")
    return float((abs(a - b) / abs(a)).max())


def resharding(more: int = 20) -> dict[str, Any]:
    """A checkpoint of 2 ranks, loaded on 1, 2 and 4: the next losses, against those of 2."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for strategy in ("ddp", "fsdp2"):
            job = Job("forced", 10 + more, strategy, root / strategy, until=10)
            together(2, train, job)
            nexts = {}
            for count in (2, 1, 4):
                folder = root / f"{strategy}-{count}"
                shutil.copytree(root / strategy, folder)
                nexts[count] = together(count, train, replace(job, folder=folder, until=None))[0]
            for count in (1, 4):
                found[f"{strategy}: 2 to {count}"] = apart(nexts[2], nexts[count])
    return {"goal": 1e-4, "steps": more, "worst": max(found.values()), "relative": found}


def traffic(steps: int = 6) -> dict[str, Any]:
    """Bytes that a rank sends a step, as the kernel counts them, against the account.

    The network is wide enough that messages of single numbers (norms, losses, the clock) vanish.
    """
    found: dict[str, Any] = {}
    groups = groups_of(dynamics(WIDE))
    with tempfile.TemporaryDirectory() as name:
        for count in (2, 4):
            accounts: dict[Strategy, Sent] = {
                "ddp": ddp_sent(groups, count),
                "fsdp2": fsdp2_sent(groups, count, width=4, averaged=False, gloo=True),
            }
            for strategy, sent in accounts.items():
                job = Job("wide", 100, strategy, Path(name) / f"{strategy}-{count}", until=steps)
                ranks = together(count, bytes_of_steps, job)
                measured = float(np.median([x for rank in ranks for x in rank]))
                found[f"{strategy}, {count} ranks"] = {
                    "measured": measured, "account": sent.bytes, "ratio": measured / sent.bytes,
                }  # fmt: skip
    off = max(abs(x["ratio"] - 1) for x in found.values())
    return {"goal": 0.05, "worst": off, "bytes": found}


def bytes_of_steps(job: Job) -> list[int]:
    """What this rank sent in each step but the first two, which connect and warm up."""
    marks: list[int] = []

    def watch(run: Run, figures: dict[str, float]) -> None:
        marks.append(sent_bytes())
        if run.step == job.until:
            raise Stopped

    try:
        stage(job, watch)
    except Stopped:
        pass
    return [b - a for a, b in zip(marks[1:], marks[2:], strict=False)]


def same_everywhere() -> str:
    """What is said where one rank was given other data."""
    try:
        check_same({"data": "abc" if is_main() else "other", "steps": 3})
    except WorldError as error:
        return str(error)
    return ""


def launcher() -> dict[str, Any]:
    """`torchrun -m worldsim train` with ranks killed, against one that nobody killed."""
    with tempfile.TemporaryDirectory() as name:
        record(Path(name) / "data")
        return torchrun(Path(name) / "data")


# --- all of it ---

ROWS: dict[str, Callable[[], dict[str, Any]]] = {
    "curves": curves, "resharding": resharding, "kills": kills, "torchrun": launcher,
    "traffic": traffic,
}  # fmt: skip


def main(rows: tuple[str, ...] = tuple(ROWS), out: Path | None = None) -> None:
    """Measure rows and write them.

    Args:
        rows: which of curves, resharding, kills, torchrun and traffic; others in the file stay.
        out: file to write; by default benchmarks/results/scale-out-training.json.
    """
    path = out or RESULTS / "scale-out-training.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    for name in rows:
        if name not in ROWS:
            raise WorldError(f"rows: expected some of {list(ROWS)}, got {name!r}")
        found[name] = ROWS[name]()
        print(name, json.dumps(found[name]), flush=True)
        found[name] |= {"provenance": provenance()}
        write_card(found, path)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, args=refuse_repeated(sys.argv[1:]))
