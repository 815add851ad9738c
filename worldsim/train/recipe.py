"""From recorded episodes to a world: VAE, teacher, student, start clips, in one resumable folder.

The teacher is trained twice: `forced` on true context, then `teacher` on dreamlike context too.

Each stage has a folder of its own under the run: a log, a checkpoint to go on from, and
`final.safetensors`, which the next stage reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from worldsim.core import ActionSpec, EnvironmentSpec, WorldError, WorldSpec
from worldsim.data.columns import columns_of
from worldsim.data.dataset import Dataset
from worldsim.data.labelled import LabelledDataset, latent_width
from worldsim.data.latents import LatentRecording, Workers, latent_cache
from worldsim.data.recoloured import RecolouredDataset
from worldsim.data.sized import SizedDataset
from worldsim.data.view import DatasetView
from worldsim.fields import ABSENT
from worldsim.models.conditioning import ConditioningConfig
from worldsim.models.dynamics import Dynamics
from worldsim.models.vae import DOWN, SpacetimeVAE
from worldsim.presets import Sizes
from worldsim.states import StateSpec
from worldsim.world.diffusion import DiffusionWorld, Sampling, Starts, WorldConfig

from .begin import check_begin, go_on, keep_vae
from .distill import DistillationConfig, begun_by, train_student
from .distributed import rank, wait, world_size
from .dynamics import DynamicsTrainingConfig, train_dynamics
from .final import finish, load_final
from .loop import FitConfig
from .vae import VAETrainingConfig, clips_of, measure_latents, new_vae, train_vae
from .words import wants_recoloured

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train a world of some size; the numbers are about those of the bundled `car-racing`,
    whose student and decoder came about in more than one run (docs/log.md).

    starts: [first, stop) of the training episodes that dreams begin in; all if None.
    """

    vae: VAETrainingConfig = VAETrainingConfig(
        fit=FitConfig(steps=3600, batch=32, lr=1.5e-3, ema=0.998)
    )
    forced: DynamicsTrainingConfig = DynamicsTrainingConfig(
        fit=FitConfig(steps=6300, batch=16, lr=1e-3)
    )
    teacher: DynamicsTrainingConfig = DynamicsTrainingConfig(
        fit=FitConfig(steps=9000, batch=16, lr=6e-4), resample=0.5, damage=0.4
    )
    distill: DistillationConfig = DistillationConfig(
        fit=FitConfig(steps=7800, batch=14, lr=6e-4, ema=0.998, warmup=50, muon=True),
        targets=12,
        resample=0.3,
        dreamt=0.4,
    )
    starts: tuple[int, int] | None = field(default=None, metadata=ABSENT)


QUICK = Recipe(
    vae=VAETrainingConfig(fit=FitConfig(steps=2500, batch=16, lr=2e-3, ema=0.995), detail=1.0),
    forced=DynamicsTrainingConfig(
        fit=FitConfig(steps=4000, batch=16, lr=1.5e-3, ema=0.995, muon=True)
    ),
    teacher=DynamicsTrainingConfig(
        fit=FitConfig(steps=2000, batch=16, lr=8e-4, ema=0.995, muon=True),
        resample=0.5, damage=0.2,
    ),
    distill=DistillationConfig(
        fit=FitConfig(steps=2000, batch=14, lr=6e-4, ema=0.995, warmup=50, muon=True),
        targets=12, resample=0.3, dreamt=0.4, damage=0.2,
    ),
)  # fmt: skip
"""For small networks and up to an hour of two CPU cores: fewer steps, larger ones."""


def recipe_for(preset: str) -> Recipe:
    """The recipe that goes with a preset's size."""
    return QUICK if preset == "tiny" else Recipe()


def default_preset(hours: float | None, device: torch.device) -> str:
    """Larger networks than there is time for stay worse than small ones."""
    return "tiny" if hours is not None and hours <= 1 and device.type == "cpu" else "small"


def default_time_limit(data: Dataset) -> int:
    """Steps: as long as the environment's episodes may be, or the longest recorded one."""
    environment = data.spec.environment
    if environment is not None:
        return max(1, environment.max_frames // data.spec.chunk)
    return max(1, *data.lengths)


def changed_fit(recipe: Recipe, batch: int | None, *, bf16: bool, **same: Any) -> Recipe:
    """The recipe with these fields of `FitConfig` in all stages.

    batch: None leaves each stage its own. bf16: False turns it off.
    """
    stages = {"vae": recipe.vae, "forced": recipe.forced, "teacher": recipe.teacher,
              "distill": recipe.distill}  # fmt: skip
    if batch is not None and batch < 1:
        raise WorldError(f"batch: expected 1 clip a step or more, got {batch}")
    changed = {}
    for name, part in stages.items():
        own = {"batch": batch or part.fit.batch, "bf16": part.fit.bf16 and bf16}
        changed[name] = replace(part, fit=replace(part.fit, **same, **own))
    return replace(recipe, **changed)


def action_spec(data: Dataset) -> ActionSpec:
    """The dataset's actions in the words of the house."""
    return data.spec.action


def world_spec(
    data: Dataset, sizes: Sizes, name: str, time_limit: int, state: StateSpec | None = None
) -> WorldSpec:
    """The spec of a world of these sizes on this data; `state` is of its `state_spec`."""
    height, width, _ = data.spec.frame_shape
    return WorldSpec(
        name=name,
        frame_shape=data.spec.frame_shape,
        chunk=data.spec.chunk,
        context=sizes.context,
        latent_shape=(height // DOWN, width // DOWN, sizes.vae.channels),
        action=action_spec(data),
        fps=data.spec.fps,
        time_limit=time_limit,
        state=state,
    )


MEASURED = 512
"""Episodes, at most, by which state vectors are measured."""


def state_spec(data: Dataset, begin: DiffusionWorld | None = None) -> StateSpec | None:
    """The training episodes' state vectors, measured, or as `begin` knows them; None without."""
    known = None if begin is None else begin.spec.state
    if known is not None or not data.spec.state:
        return known
    train, states = data.split("train"), []
    for place in range(0, len(train), -(-len(train) // MEASURED)):
        state = train.episode(place).state
        if state is not None:
            states.append(state)
    return StateSpec.measured(data.spec.state, states) if states else None


def new_dynamics(
    data: Dataset, sizes: Sizes, seed: int = 0, state: StateSpec | None = None
) -> Dynamics:
    """An untrained dynamics model; `state` is of its `state_spec`."""
    text = {"text": sizes.text, "text_tokens": sizes.text_tokens} if sizes.encoder else {}
    conditioning = ConditioningConfig(
        action=action_spec(data),
        latent_action=latent_width(data),
        state=state,
        encoder=sizes.encoder,
        **text,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Dynamics(sizes.dit, sizes.heads, sizes.vae.channels, conditioning)


def fit_vae(
    data: Dataset, sizes: Sizes, training: VAETrainingConfig, run: Path,
    begin: DiffusionWorld | None = None,
) -> SpacetimeVAE:  # fmt: skip
    """First stage, from nothing or from the VAE of another world, which no steps keep."""
    old = None if begin is None else check_begin(begin, data, sizes).vae
    if begin is not None and not training.fit.steps:
        return keep_vae(begin, run)
    model = new_vae(sizes.vae, training.fit.seed)
    if old is not None:
        model.load_state_dict(old.state_dict())
    clips = clips_of(data.split("train"), training)
    vae = train_vae(data.split("train"), model, training, run / "vae", clips=clips)
    measure_latents(vae, clips)
    finish(vae, run / "vae")
    return vae


def fit_forced(
    data: Dataset, sizes: Sizes, training: DynamicsTrainingConfig, run: Path
) -> Dynamics:
    """Second stage, on the latents of the first."""
    model = new_dynamics(data, sizes, training.fit.seed, state_spec(data))
    return _fit_dynamics(model, data, sizes, training, run, "forced")


def fit_teacher(
    data: Dataset, sizes: Sizes, training: DynamicsTrainingConfig, run: Path
) -> Dynamics:
    """Third stage, from the second's weights."""
    model = load_final(new_dynamics(data, sizes, state=state_spec(data)), run / "forced")
    return _fit_dynamics(model, data, sizes, training, run, "teacher")


def _fit_dynamics(
    model: Dynamics,
    data: Dataset,
    sizes: Sizes,
    training: DynamicsTrainingConfig,
    run: Path,
    stage: str,
) -> Dynamics:
    latents = latents_of(data, "train", sizes, run, recoloured=wants_recoloured(training))
    trained = train_dynamics(latents, model, sizes.context, training, run / stage)
    finish(trained, run / stage)
    return trained


def fit_student(
    data: Dataset, sizes: Sizes, training: DistillationConfig, run: Path,
    begin: DiffusionWorld | None = None,
) -> Dynamics:  # fmt: skip
    """Fourth stage, from the third's weights or from the dynamics of another world."""
    model = new_dynamics(data, sizes, state=state_spec(data, begin))
    if begin is None:
        load_final(model, run / "teacher")
    else:
        go_on(model, check_begin(begin, data, sizes).dynamics)
        training = begun_by(training, begin.config.sampling)
    latents = latents_of(data, "train", sizes, run, recoloured=wants_recoloured(training))
    student = train_student(latents, model, sizes.context, training, run / "student")
    finish(student, run / "student")
    return student


def assemble(
    data: Dataset, sizes: Sizes, run: Path, name: str, *, stage: str = "student",
    time_limit: int = 475, clips: int = 48, num_steps: int = 2,
    begin: DiffusionWorld | None = None, frame_sizes: tuple[tuple[int, int], ...] = (),
    starts: tuple[int, int] | None = None,
) -> DiffusionWorld:  # fmt: skip
    """The world of a finished run; `stage="teacher"` gives the undistilled one at 32 steps.

    num_steps: of the student. begin: the world that the run went on from, if any. frame_sizes: that
    it was trained on, where they are several. starts: [first, stop) of the
    episodes that dreams begin in; all if None.
    """
    teacher = Sampling(method="euler", num_steps=32)
    sampling = Sampling(num_steps=num_steps) if stage == "student" else teacher
    state = state_spec(data, begin)
    spec = world_spec(data, sizes, name, time_limit, state)
    vae = load_final(SpacetimeVAE(sizes.vae), run / "vae")
    dynamics = load_final(new_dynamics(data, sizes, state=state), run / stage)
    shown = start_clips(data, sizes.context, clips, starts)
    environment = data.spec.environment
    return world_of(spec, sizes, vae, dynamics, sampling, shown, environment, frame_sizes)


def world_of(
    spec: WorldSpec, sizes: Sizes, vae: SpacetimeVAE, dynamics: Dynamics, sampling: Sampling,
    starts: Starts, environment: EnvironmentSpec | None = None,
    frame_sizes: tuple[tuple[int, int], ...] = (),
) -> DiffusionWorld:  # fmt: skip
    """A world of these networks."""
    config = WorldConfig(
        spec=spec,
        vae=sizes.vae,
        dit=dynamics.dit.config,
        heads=sizes.heads,
        conditioning=dynamics.conditioning.config,
        sampling=sampling,
        environment=environment,
        sizes=frame_sizes,
    )
    return DiffusionWorld(config, vae, dynamics, starts)


def start_clips(
    data: Dataset, context: int, count: int, episodes: tuple[int, int] | None = None
) -> Starts:
    """Clips to start dreams from: one of each of `count` training episodes, at a random time.

    episodes: [first, stop) of those that they are of; all if None.
    """
    data = data.split("train")
    among = range(*(episodes or (0, len(data))))
    long = [i for i in among if i < len(data) and data.lengths[i] >= context]
    if not long:
        raise WorldError(
            f"starts: expected training episodes of {context} chunks or more among {among}, got "
            f"none of {len(data)}; widen the range"
        )
    pick = torch.Generator().manual_seed(0)
    chosen = [long[i] for i in torch.randperm(len(long), generator=pick)[:count].tolist()]
    width = len(data.spec.state)
    frames, actions, known, states = [], [], [], []
    for i in sorted(chosen):
        episode = data.episode(i)
        first = int(torch.randint(len(episode) - context + 1, (1,), generator=pick))
        span = slice(first * episode.chunk, (first + context) * episode.chunk)
        columns = columns_of(episode, data.spec.action, width)
        frames.append(torch.from_numpy(np.array(episode.frames[span])))
        actions.append(columns.actions[first : first + context])
        known.append(columns.known[first : first + context])
        told = columns.states.where(columns.states_known[:, None], torch.nan)
        states.append(told[first : first + context])
    return Starts(
        torch.stack(frames), torch.stack(actions), torch.stack(known),
        torch.stack(states) if width else None,
    )  # fmt: skip


def latents_of(
    data: Dataset, split: str, sizes: Sizes, run: Path, *, recoloured: bool = False
) -> LatentRecording:
    """Latents of a split by the run's VAE, computed once, by all processes together.

    Those of a data set at another size than its own lie in a file of their own. recoloured: whether
    to have the latents of the same in other colours, too.
    """
    vae = load_final(SpacetimeVAE(sizes.vae), run / "vae")
    some, workers = data.split(split), Workers(rank(), world_size(), wait)
    recording = latent_cache(vae, some, run / f"latents-{split}{_size_of(data)}", workers)
    if recoloured and some.spec.has_text:
        file = run / f"latents-{split}-recoloured{_size_of(data)}"
        other = latent_cache(vae, RecolouredDataset(some), file, workers)
        recording = replace(recording, recoloured=other.latents)
    return some.beside(recording) if isinstance(some, LabelledDataset) else recording


def _size_of(data: Dataset) -> str:
    """The end of a latent file's name."""
    while isinstance(data, DatasetView):
        if isinstance(data, SizedDataset):
            return "-{}x{}.safetensors".format(*data.size)
        data = data.data
    return ".safetensors"
