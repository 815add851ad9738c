"""The fidelity card: all measurements of a world in one go, and what they must at least be."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from worldsim.core import WorldError
from worldsim.data.columns import columns_of
from worldsim.data.dataset import Dataset, Episode
from worldsim.data.native import NativeDataset
from worldsim.models.dynamics import Dynamics
from worldsim.recipes.car_racing import landmarks as car_racing
from worldsim.store.folder import load
from worldsim.store.provenance import provenance, training_cost
from worldsim.world.diffusion import DiffusionWorld, Sampling

from . import horizon, reconstruction
from . import long_rollouts as long_dreams
from . import trust as trusted
from .calibrate import harmed
from .report import finite, judge
from .test_clips import Clips, cut_clips, ending_starts, episodes_for, even_starts

ENDINGS = (1, 4, 8, 16)
"""Steps before a real end at which further dreams begin, so that there are ends to foresee."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured.

    Attributes:
        episodes: test episodes, the first ones.
        starts: clips of each.
        horizon: steps of each dream.
        teacher_starts: clips of each episode that the teacher dreams, too.
        teacher_horizon: its steps; teacher_steps: its denoising steps.
        action_steps: steps under shuffled actions.
        harmed_every: every so many-th clip is dreamt recoloured, and another from a standing start.
        dreams, dream_steps: number and length of the long dreams.
        rows: dreams in a batch.
    """

    episodes: int = 50
    starts: int = 4
    horizon: int = 60
    teacher_starts: int = 1
    teacher_horizon: int = 32
    teacher_steps: int = 32
    action_steps: int = 16
    harmed_every: int = 8
    dreams: int = 64
    dream_steps: int = 1000
    rows: int = 64

    def __post_init__(self) -> None:
        least = dict.fromkeys(asdict(self), 1) | {"episodes": 2, "dreams": 2}
        for name, bound in (least | {"dream_steps": long_dreams.LOOK_EVERY}).items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name}: expected at least {bound}, got {getattr(self, name)}")


QUICK = Plan(episodes=5, starts=2, harmed_every=2, dreams=8, dream_steps=200)


@dataclass(frozen=True)
class Measured:
    """What one pass over the test episodes gives."""

    rebuilt: list[reconstruction.Rebuilt]
    clips: Clips
    endings: Clips | None
    real: long_dreams.RealLooks
    actions: list[Tensor]


def evaluate(
    world: DiffusionWorld | Path | str,
    data: Dataset | Path | str,
    *,
    teacher: DiffusionWorld | Path | str | None = None,
    run: Path | None = None,
    plan: Plan | None = None,
    quick: bool = False,
    device: torch.device | str = "cpu",
    command: str | None = None,
    noise_floor: dict[str, Any] | None = None,
    offtrack_reference: dict[str, Any] | None = None,
    policies: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure a world on the test episodes of a dataset; returns its fidelity card (JSON values).

    world: a world, or its folder or name, loaded onto `device`. teacher: what the student is
    compared with: a world, its folder, or a folder with the `final.safetensors` of the teacher's
    training. run: the training run, for its wall time. plan: how much to measure; quick: a tenth of
    it. command: what to quote in the card; the present command line by default. noise_floor:
    what `python -m benchmarks.noise_floor` wrote. offtrack_reference: what `python -m
    benchmarks.offtrack_reference` wrote, reality under recorded actions, for long dreams.
    policies: what `python -m benchmarks.transfer` wrote: how dream and reality rank them.
    Deterministic on one machine and thread count. Raises WorldError where data or teacher do
    not fit the world.
    """
    plan = plan or (QUICK if quick else Plan())
    world = world if isinstance(world, DiffusionWorld) else _load_uncarded(world, device)
    recorded = NativeDataset(data) if isinstance(data, Path | str) else data
    master = None if teacher is None else teacher_of(world, teacher, plan.teacher_steps)
    episodes = episodes_for(recorded, world.spec, plan.episodes)
    clock: dict[str, float] = {}
    with _stage("VAE on test episodes", len(episodes), clock) as advance:
        found = _read(world, episodes, plan, advance)
    figures: dict[str, Any] = {"vae": reconstruction.summarise(found.rebuilt)}
    figures |= _dreams(world, master, found, plan, clock)
    with _stage("long dreams", plan.dream_steps, clock) as advance:
        actions = long_dreams.recorded_actions(found.actions, plan.dreams, plan.dream_steps)
        figures["long"] = long_dreams.summarise(
            long_dreams.dream_long(world, actions, advance), found.real, offtrack_reference
        )
    figures["horizon"]["noise_floor"] = noise_floor and noise_floor["psnr"]["noise_floor"]
    figures["policies"] = _ranking(policies)
    card = {
        "format": "worldsim-card",
        "version": 1,
        "world": world.spec.name,
        "lines": judge(figures),
        "figures": figures,
        "cost": {"training": training_cost(run), "evaluation_seconds": clock},
        "parameters": _parameters(world),
        "plan": asdict(plan),
        "data": {
            "episodes": len(episodes),
            "split": "test",
            "sha256": recorded.split("test").fingerprint(),
        },
        "provenance": provenance(command),
    }
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
    recorded = NativeDataset(data) if isinstance(data, Path | str) else data
    plan, found, clock = Plan(**card["plan"]), [], dict[str, float]()
    episodes, context = episodes_for(recorded, world.spec, plan.episodes), world.spec.context
    for place, episode in enumerate(episodes):
        starts = even_starts(len(episode), context, plan.horizon, plan.starts)
        found.append(cut_clips(episode, place, starts, context, plan.horizon, world.spec.action))
    clips = Clips.cat([c for c in found if c is not None])
    with _stage("dreams", len(clips), clock) as advance:
        dreamt = horizon.dream(world, clips, clips.actions, plan.rows, advance)
    still = horizon.persistence(clips)
    figures = {"policies": None} | card["figures"] | {
        "safe_horizon": trusted.safe_horizon(dreamt.mse, still, clips.episode),
        "trust": _trust(world, clips, dreamt, plan, clock),
    }  # fmt: skip
    if noise_floor is not None:
        curve = noise_floor["psnr"]["noise_floor"]
        figures["horizon"] = figures["horizon"] | {"noise_floor": curve}
    if policies is not None:
        figures["policies"] = _ranking(policies)
    new = {"figures": figures, "lines": judge(figures), "trust_provenance": provenance(command)}
    return finite(card | new)


def _ranking(policies: dict[str, Any] | None) -> dict[str, Any] | None:
    return policies and {key: policies[key] for key in ("ranked", "pearson", "mmrv")}


def _load_uncarded(name: Path | str, device: torch.device | str) -> DiffusionWorld:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*no fidelity card")  # we are about to make it
        return load(name, device)


def teacher_of(
    world: DiffusionWorld, source: DiffusionWorld | Path | str, steps: int
) -> DiffusionWorld:
    """The undistilled world at `steps` Euler steps, from a world, a world folder or a run's stage.

    A stage's folder, or the run that holds it as `teacher/`, gives the networks that dream; the VAE
    is the world's own. Raises WorldError if it is neither, or of other sizes.
    """
    sampling = Sampling(method="euler", num_steps=steps)
    if isinstance(source, DiffusionWorld):
        return source.with_sampling(sampling)
    stages = (Path(source) / "final.safetensors", Path(source) / "teacher" / "final.safetensors")
    weights = next((p for p in stages if p.exists()), None)
    if weights is None:
        return _load_uncarded(source, world.device).with_sampling(sampling)
    config = replace(world.config, sampling=sampling)
    channels = world.spec.latent_shape[-1]
    dynamics = Dynamics(config.dit, config.heads, channels, config.conditioning)
    try:
        dynamics.load_state_dict(load_file(weights))
    except RuntimeError as error:
        raise WorldError(
            f"teacher: expected weights of the sizes of {world.spec.name}, got {weights}: "
            f"{str(error)[:300]}; name the run that this world was distilled from"
        ) from error
    return DiffusionWorld(config, world.vae, dynamics.to(world.device), world.starts)


@contextmanager
def _stage(name: str, total: int, clock: dict[str, float]) -> Iterator[Callable[[int], Any]]:
    """A progress bar, whose time is kept in `clock`."""
    start = time.perf_counter()
    with tqdm(total=total, desc=name) as bar:
        yield bar.update
    clock[name] = round(time.perf_counter() - start, 1)


def _read(
    world: DiffusionWorld, episodes: list[Episode], plan: Plan,
    advance: Callable[[int], Any],
) -> Measured:  # fmt: skip
    """Read every test episode once: rebuild it, look at it, cut its clips."""
    context, recognised = world.spec.context, car_racing.recognised(world.spec)
    window = min(long_dreams.WINDOW, plan.dream_steps) // long_dreams.LOOK_EVERY
    rebuilt, clips, endings, looks, actions = [], [], [], [], []
    for place, episode in enumerate(episodes):
        rebuilt.append(reconstruction.rebuild(world, episode))
        starts = even_starts(len(episode), context, plan.horizon, plan.starts)
        clips.append(cut_clips(episode, place, starts, context, plan.horizon, world.spec.action))
        starts = ending_starts(episode, context, ENDINGS)
        endings.append(cut_clips(episode, place, starts, context, max(ENDINGS), world.spec.action))
        looks.append(long_dreams.real_looks(episode, recognised, window))
        actions.append(columns_of(episode, world.spec.action).actions)
        advance(1)
    whole = [c for c in clips if c is not None]
    if len(whole) < 2:
        raise WorldError(
            f"data: expected two or more test episodes of {context + plan.horizon} chunks, got "
            f"{len(whole)} of {len(episodes)}; record longer ones"
        )
    late = [c for c in endings if c is not None]
    return Measured(
        rebuilt, Clips.cat(whole), Clips.cat(late) if late else None,
        long_dreams.RealLooks.cat(looks), actions,
    )  # fmt: skip


def _dreams(
    world: DiffusionWorld, teacher: DiffusionWorld | None, found: Measured, plan: Plan,
    clock: dict[str, float],
) -> dict[str, Any]:  # fmt: skip
    """Figures of all dreams that are compared with what really happened."""
    clips, rows = found.clips, plan.rows
    still = horizon.persistence(clips)
    own = world.config.sampling
    counts = sorted({1, 2, own.num_steps}) if own.method == "consistency" else [own.num_steps]
    dreamt = {}
    for count in counts:
        with _stage(f"dreams, {count} steps", len(clips), clock) as advance:
            some = world.with_num_steps(count)
            dreamt[count] = horizon.dream(some, clips, clips.actions, rows, advance)
    main = dreamt[own.num_steps]
    with _stage("shuffled actions", len(clips), clock) as advance:
        cut = clips.upto(min(plan.action_steps, plan.horizon))
        false = horizon.dream(world, cut, horizon.shuffled(cut), rows, advance)
    parts = [(clips, main)]
    if found.endings is not None:
        with _stage("before ends", len(found.endings), clock) as advance:
            end = found.endings
            parts.append((end, horizon.dream(world, end, end.actions, rows, advance)))
    floor = _floor(found)
    return {
        "horizon": {
            "clips": len(clips),
            "psnr": {str(n): horizon.curve(d.mse) for n, d in dreamt.items()},
            "persistence": horizon.curve(still),
            "vae": horizon.curve(floor),
        },
        "above_persistence": {
            str(n): horizon.above_persistence(d.mse, still, clips.episode)
            for n, d in dreamt.items()
        },
        "safe_horizon": trusted.safe_horizon(main.mse, still, clips.episode),
        "trust": _trust(world, clips, main, plan, clock),
        "teacher": _teacher(teacher, clips, {n: d.mse for n, d in dreamt.items()}, plan, clock),
        "actions": horizon.action_following(main.mse, false.mse, clips.episode),
        "reward": horizon.reward_figures(clips, main),
        "ends": horizon.end_figures(parts),
    }


def _trust(
    world: DiffusionWorld, clips: Clips, dreamt: horizon.Dreamt, plan: Plan,
    clock: dict[str, float],
) -> dict[str, Any] | None:  # fmt: skip
    """Whether what was said of trust came true, also from harmed starts; None if uncalibrated."""
    if world.trust is None or not world.calibrated:
        return None
    every, bound = plan.harmed_every, float(world.trust.bound)
    parts = {"recorded": (clips, dreamt)}
    for name, some in harmed(clips, every, every, seed=1).items():
        if name not in parts:
            with _stage(f"trust, {name}", len(some), clock) as advance:
                told = horizon.dream(world, some, some.actions, plan.rows, advance)
                parts[name] = (some, told)
    steps = [h for h in trusted.STEPS if h <= dreamt.mse.shape[1]]
    along = trusted.by_step(dreamt.trust, dreamt.mse <= bound, steps)
    return trusted.summarise(parts, bound) | {"along": along}


def _floor(found: Measured) -> Tensor:
    """What the VAE alone loses on the clips' own frames: (N, T)."""
    clips, steps = found.clips, torch.arange(found.clips.frames.shape[1])
    pairs = zip(clips.episode.tolist(), clips.start, strict=True)
    return torch.stack([found.rebuilt[e].mse[first + steps] for e, first in pairs])


def _teacher(
    teacher: DiffusionWorld | None, clips: Clips, students: dict[int, Tensor], plan: Plan,
    clock: dict[str, float],
) -> dict[str, Any] | None:  # fmt: skip
    """Gaps between teacher and students on the same clips; None without a teacher."""
    if teacher is None:
        return None
    order = torch.arange(len(clips))
    first = torch.stack([(clips.episode[:i] == clips.episode[i]).sum() for i in order])
    # another one in every episode, so that early and late clips are among them
    mine = (first - clips.episode) % plan.starts < plan.teacher_starts
    some = clips[mine].upto(min(plan.teacher_horizon, plan.horizon))
    with _stage(f"teacher, {plan.teacher_steps} steps", len(some), clock) as advance:
        told = horizon.dream(teacher, some, some.actions, plan.rows, advance)
    return {
        "clips": len(some),
        "steps": plan.teacher_steps,
        "psnr": horizon.curve(told.mse),
        "gaps": {
            str(n): horizon.teacher_gaps(mse[mine][:, : told.mse.shape[1]], told.mse, some.episode)
            for n, mse in students.items()
        },
    }


def _parameters(world: DiffusionWorld) -> dict[str, int]:
    parts = {"vae": world.vae, "dit": world.dynamics.dit, "heads": world.dynamics.heads}
    return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
