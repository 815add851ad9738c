"""The fidelity card: all measurements of a world in one go, for any world and any dataset."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from worldsim.core import WorldError
from worldsim.data import Dataset
from worldsim.recipes.landmarks import Landmarks, landmarks_for
from worldsim.store.folder import load
from worldsim.store.provenance import provenance, training_cost
from worldsim.world.diffusion import DiffusionWorld

from . import horizon, long_rollouts, reconstruction, trust
from .calibrate import CalibrationPlan, perturbed
from .clips import Clips, Recorded, cut_clips, ending_starts, even_starts, split_for
from .plan import QUICK, EvaluationPlan, fitted_to_data, fitted_to_time
from .report import finite, report
from .sizes import by_size, opened_for
from .speed import measure_speed
from .states import state_figures
from .teacher import behind_teacher, taught, teacher_of

ENDINGS = (1, 4, 8, 16)
"""Steps before a real end at which further dreams begin, so that there are ends to foresee."""

SHARE = 0.8
"""Of a time budget that dreams are planned to take; the autoencoder and figures take the rest."""


@dataclass(frozen=True)
class Measured:
    """What one pass over the test episodes gives."""

    rebuilt: list[reconstruction.Rebuilt]
    clips: Clips
    endings: Clips | None
    looks: long_rollouts.RealLooks
    actions: list[Tensor]


@dataclass
class Evaluation:
    """One evaluation under way.

    Attributes:
        world, data: what is measured on what; `data` is one split.
        plan: how much, as the data and the time allow.
        landmarks: eyes for this environment, None where nobody knows it.
        seconds: how long each stage took. not_measured: reasons, by figure.
    """

    world: DiffusionWorld
    data: Dataset
    plan: EvaluationPlan
    landmarks: Landmarks | None
    seconds: dict[str, float]
    not_measured: dict[str, str]

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[[int], Any]]:
        """A progress bar, whose time is kept."""
        start = time.perf_counter()
        with tqdm(total=total, desc=name) as bar:
            yield bar.update
        self.seconds[name] = round(time.perf_counter() - start, 1)

    def dream(
        self, name: str, clips: Clips, actions: Tensor, world: DiffusionWorld | None = None
    ) -> horizon.Dreamt:
        """Dreams from the clips under `actions` (N, T, *action), with a bar."""
        with self.stage(name, len(clips)) as advance:
            some = self.world if world is None else world
            return horizon.dream(some, clips, actions, self.plan.rows, advance)


def evaluate(
    world: DiffusionWorld | Path | str,
    data: Dataset | Path | str,
    *,
    teacher: DiffusionWorld | Path | str | None = None,
    run: Path | None = None,
    plan: EvaluationPlan | None = None,
    quick: bool = False,
    budget_seconds: float | None = None,
    device: torch.device | str = "cpu",
    command: str | None = None,
    noise_floor: dict[str, Any] | None = None,
    offtrack_reference: dict[str, Any] | None = None,
    policies: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure a world on the test episodes of a dataset; returns its fidelity card (JSON values).

    What cannot be measured (rewards where the data have none, actions where there are none) is
    absent, and the card says why under `not_measured`; what had to give way, such as a horizon that
    is longer than the episodes, stands under `adapted`. Without a test split the nearest one there
    is serves, and the card says which.

    world: a world, or its folder or name, loaded onto `device`. teacher: what the student is
    compared with: a world, its folder, or a training run. run: the training run, for its cost.
    plan: how much to measure; quick: a few seconds' worth of it. budget_seconds: measure less
    until it takes about as long. command: what to quote in the card; the present command line by
    default. noise_floor: what `python -m benchmarks.noise_floor` wrote. offtrack_reference: what
    `python -m benchmarks.offtrack_reference` wrote, reality under recorded actions, for long
    dreams. policies: what `python -m benchmarks.transfer` wrote: how dream and reality rank them.
    Deterministic on one machine and thread count, but for `speed` and unless there is a budget.
    Raises WorldError where data or teacher do not fit the world.
    """
    if budget_seconds is not None and not 0 < budget_seconds < float("inf"):
        raise WorldError(f"budget_seconds: expected above 0, got {budget_seconds}")
    world = world if isinstance(world, DiffusionWorld) else load_uncarded(world, device)
    data = opened_for(world, data)
    split, some = split_for(data, world.spec, "test")
    asked = plan or (QUICK if quick else EvaluationPlan())
    fitted, adapted = fitted_to_data(asked, world.spec, some.lengths)
    speed = measure_speed(world, (1, fitted.rows))
    if budget_seconds is not None:
        fitted = fitted_to_time(fitted, SHARE * budget_seconds, 1 / speed[-1]["steps_per_second"])
        adapted["time"] = f"planned for {budget_seconds:g} seconds"
    if split != "test":
        adapted["split"] = f"there are no test episodes: measured on {split} ones"
    landmarks = landmarks_for(some.spec.environment, world.spec.frame_shape)
    job = Evaluation(world, some, fitted, landmarks, {}, {})
    figures = _figures(job, teacher, offtrack_reference)
    figures["horizon"]["noise_floor"] = noise_floor and noise_floor["psnr"]["noise_floor"]
    figures["policies"] = _ranking(policies)
    if policies is None:
        job.not_measured["policies"] = "python -m benchmarks.transfer ranks policies"
    card = {
        "format": "worldsim-card",
        "version": 1,
        "world": world.spec.name,
        "lines": report(figures, speed),
        "figures": figures,
        "not_measured": job.not_measured,
        "adapted": adapted,
        "speed": speed,
        "cost": {"training": training_cost(run), "evaluation_seconds": job.seconds},
        "parameters": _parameters(world),
        "plan": asdict(fitted),
        "data": {"name": some.spec.name, "episodes": fitted.episodes, "split": split,
                 "sha256": some.fingerprint()},
        "provenance": provenance(command),
    }  # fmt: skip
    return finite(card)


def renew_trust(
    card: dict[str, Any],
    world: DiffusionWorld,
    data: Dataset | Path | str,
    *,
    command: str | None = None,
    noise_floor: dict[str, Any] | None = None,
    policies: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A card with safe horizon and trust measured anew, and all else as it was.

    For a world that was calibrated after it was measured: neither its weights nor its dreams are
    others. Where the new part is from stands beside the card's own provenance. noise_floor,
    policies: as for `evaluate`; None keeps what the card says of them.
    """
    data = opened_for(world, data)
    _, some = split_for(data, world.spec, "test")
    known = {k: v for k, v in card["plan"].items() if k in EvaluationPlan.__dataclass_fields__}
    known["num_steps"] = tuple(known.get("num_steps", ()))
    plan, _ = fitted_to_data(EvaluationPlan(**known), world.spec, some.lengths)
    job = Evaluation(world, some, plan, None, {}, dict(card.get("not_measured", {})))
    clips = _clips(job, (_recorded(job, place) for place in range(plan.episodes)))
    dreamt = job.dream("dreams", clips, clips.actions)
    figures = card["figures"] | {
        "safe_horizon": trust.safe_horizon(dreamt.mse, horizon.persistence(clips), clips.cluster),
        "trust": _trust(job, clips, dreamt),
    }  # fmt: skip
    if noise_floor is not None:
        curve = noise_floor["psnr"]["noise_floor"]
        figures["horizon"] = figures["horizon"] | {"noise_floor": curve}
    if policies is not None:
        figures["policies"] = _ranking(policies)
        job.not_measured.pop("policies", None)
    lines = report(figures, card.get("speed", ()))
    new = {"figures": figures, "lines": lines, "not_measured": job.not_measured}
    return finite(card | new | {"trust_provenance": provenance(command)})


def _ranking(policies: dict[str, Any] | None) -> dict[str, Any] | None:
    return policies and {key: policies[key] for key in ("ranked", "pearson", "mmrv")}


def load_uncarded(name: Path | str, device: torch.device | str) -> DiffusionWorld:
    """Load a world that is about to be measured, without the warning that it has no card."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*no fidelity card")  # we are about to make it
        return load(name, device)


def _recorded(job: Evaluation, place: int) -> Recorded:
    return Recorded.told(job.world, job.data, place, job.plan.chunks)


def _clips(job: Evaluation, episodes: Iterable[Recorded]) -> Clips:
    """Clips at even starts; one episode at a time is in memory."""
    context, plan, parts = job.world.spec.context, job.plan, []
    for place, episode in enumerate(episodes):
        starts = even_starts(len(episode), context, plan.horizon, plan.starts)
        parts.append(cut_clips(episode, place, starts, context, plan.horizon))
    return Clips.cat([clips for clips in parts if clips is not None])


def _read(job: Evaluation, advance: Callable[[int], Any]) -> Measured:
    """Read every test episode once: rebuild it, look at it, cut its clips."""
    context, plan = job.world.spec.context, job.plan
    looks_a_window = plan.window // long_rollouts.LOOK_EVERY
    rebuilt, endings, looks, actions = [], [], [], []

    def episodes() -> Iterator[Recorded]:
        for place in range(plan.episodes):
            episode = _recorded(job, place)
            rebuilt.append(reconstruction.rebuild(job.world, episode, job.landmarks))
            starts = ending_starts(episode, context, ENDINGS)
            endings.append(cut_clips(episode, place, starts, context, max(ENDINGS)))
            looks.append(long_rollouts.real_looks(episode, job.landmarks, looks_a_window))
            actions.append(episode.actions[episode.known])
            advance(1)
            yield episode

    clips = _clips(job, episodes())
    late = [c for c in endings if c is not None]
    return Measured(
        rebuilt, clips, Clips.cat(late) if late else None,
        long_rollouts.RealLooks.cat(looks), [a for a in actions if len(a)],
    )  # fmt: skip


def _figures(
    job: Evaluation, teacher: DiffusionWorld | Path | str | None,
    offtrack_reference: dict[str, Any] | None,
) -> dict[str, Any]:  # fmt: skip
    """Figures of everything that can be measured on these data."""
    plan, own = job.plan, job.world.config.sampling
    with job.stage("VAE on test episodes", plan.episodes) as advance:
        measured = _read(job, advance)
    clips = measured.clips
    still = horizon.persistence(clips)
    student = own.method == "consistency"
    counts = sorted({*plan.num_steps, own.num_steps}) if student else [own.num_steps]
    dreamt = {
        n: job.dream(f"dreams, {n} steps", clips, clips.actions, job.world.with_num_steps(n))
        for n in counts
    }
    main = dreamt[own.num_steps]
    errors = {n: d.mse for n, d in dreamt.items()}
    return {
        "num_steps": str(own.num_steps),
        "vae": reconstruction.summarise(measured.rebuilt),
        "horizon": {
            "clips": len(clips),
            "psnr": {str(n): horizon.curve(mse) for n, mse in errors.items()},
            "persistence": horizon.curve(still),
            "vae": horizon.curve(_vae_error(measured)),
        },
        "above_persistence": {
            str(n): horizon.above_persistence(mse, still, clips.cluster)
            for n, mse in errors.items()
        },
        "safe_horizon": trust.safe_horizon(main.mse, still, clips.cluster),
        "trust": _trust(job, clips, main),
        "teacher": _teacher(job, teacher, clips, errors),
        "actions": _actions(job, clips, main),
        "reward": _reward(job, clips, main),
        "states": _states(job, clips, main),
        "ends": _ends(job, measured, main),
        "sizes": by_size(job.world, job.data, plan, job.dream, job.not_measured),
        "long": _long(job, measured, offtrack_reference),
    }


def _vae_error(measured: Measured) -> Tensor:
    """What the VAE alone loses on the clips' own frames: (N, T)."""
    clips, steps = measured.clips, torch.arange(measured.clips.frames.shape[1])
    pairs = zip(clips.episode.tolist(), clips.start, strict=True)
    return torch.stack([measured.rebuilt[e].mse[first + steps] for e, first in pairs])


def _trust(job: Evaluation, clips: Clips, dreamt: horizon.Dreamt) -> dict[str, Any] | None:
    """Whether trust came true, also from perturbed starts; None if the world is uncalibrated."""
    world, every = job.world, job.plan.perturbed_every
    if world.trust is None or not world.calibrated:
        job.not_measured["trust"] = "unknown: the world is not calibrated as it is sampled"
        return None
    job.not_measured.pop("trust", None)
    bound, parts = float(world.trust.bound), {"recorded": (clips, dreamt)}
    kinds = CalibrationPlan(recoloured=every, frozen=every, turned=every)
    for name, some in perturbed(clips, kinds, seed=1).items():
        if name not in parts:
            parts[name] = (some, job.dream(f"trust, {name}", some, some.actions))
    steps = [h for h in trust.STEPS if h <= dreamt.mse.shape[1]]
    along = trust.by_step(dreamt.trust, dreamt.mse <= bound, steps)
    return trust.summarise(parts, bound) | {"along": along}


def _teacher(
    job: Evaluation, source: DiffusionWorld | Path | str | None, clips: Clips,
    errors: dict[int, Tensor],
) -> dict[str, Any] | None:  # fmt: skip
    """Gaps between teacher and students on the same clips."""
    if source is None:
        job.not_measured["teacher"] = "no teacher was named"
        return None
    teacher, plan = teacher_of(job.world, source, job.plan.teacher_steps), job.plan
    with job.stage("teacher", int(taught(clips, plan).sum())) as advance:
        return behind_teacher(teacher, clips, errors, plan, advance)


def _actions(job: Evaluation, clips: Clips, dreamt: horizon.Dreamt) -> dict[str, Any] | None:
    """Error under another clip's actions against error under the true ones."""
    cut = clips.upto(min(job.plan.action_steps, job.plan.horizon))
    if job.world.spec.action.kind == "none" or not cut.valid.any():
        job.not_measured["actions"] = "the data have no actions"
        return None
    false = horizon.shuffled(cut)
    if false is None:
        job.not_measured["actions"] = "all clips have the same actions"
        return None
    error = job.dream("shuffled actions", cut, false).mse
    return horizon.action_following(dreamt.mse, error, clips.cluster)


def _reward(job: Evaluation, clips: Clips, dreamt: horizon.Dreamt) -> dict[str, Any] | None:
    figures = horizon.reward_figures(clips, dreamt)
    if figures is None:
        job.not_measured["reward"] = "the data have no rewards"
    elif figures["pearson"] is None:
        job.not_measured["reward, Pearson"] = f"no clip has {figures['steps']} rewarded steps"
    return figures


def _states(job: Evaluation, clips: Clips, dreamt: horizon.Dreamt) -> dict[str, Any] | None:
    spec = job.world.spec.state
    if spec is None:
        return None
    figures = state_figures(clips, dreamt.states, spec.names)
    if figures is None:
        job.not_measured["states"] = "the data have none, or others than the world"
    return figures


def _ends(job: Evaluation, measured: Measured, dreamt: horizon.Dreamt) -> dict[str, Any]:
    parts = [(measured.clips, dreamt)]
    if (late := measured.endings) is not None:
        parts.append((late, job.dream("before ends", late, late.actions)))
    else:
        job.not_measured["end: F1"] = "no test episode terminates"
    return horizon.end_figures(parts)


def _long(
    job: Evaluation, measured: Measured, offtrack_reference: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Whether long dreams stay finite and still look like the world."""
    plan, reason = job.plan, ""
    if not plan.dreams:
        reason = "there was no time for them, or episodes are shorter than a window"
    elif len(measured.looks.windows) < 2:
        reason = f"the data have fewer than two windows of {plan.window} chunks"
    if reason:
        job.not_measured["long dreams"] = reason
        return None
    actions = measured.actions or [torch.zeros(1, *job.world.spec.action.shape, dtype=torch.int64)]
    with job.stage("long dreams", plan.dream_steps) as advance:
        given = long_rollouts.recorded_actions(actions, plan.dreams, plan.dream_steps)
        dreams = long_rollouts.dream_long(job.world, given, advance, job.landmarks)
    size = plan.window // long_rollouts.LOOK_EVERY
    return long_rollouts.summarise(dreams, measured.looks, offtrack_reference, size)


def _parameters(world: DiffusionWorld) -> dict[str, int]:
    parts = {"vae": world.vae, "dit": world.dynamics.dit, "heads": world.dynamics.heads}
    return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
