"""From a dataset to a world in one call: what `worldsim.train` does.

All stages in one resumable run folder: VAE, latents, teacher on true context (`forced`) and on
context as dreams show it (`teacher`), few-step student, then calibration, card, and the world.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from worldsim.config import to_json
from worldsim.core import WorldError
from worldsim.data.dataset import Dataset
from worldsim.data.open import open_dataset
from worldsim.data.sized import Windows, check_sizes, views_at
from worldsim.data.view import OfLength
from worldsim.evaluate.measure import measure
from worldsim.latent_actions.stage import check_conditions, stepped, told
from worldsim.models.dynamics import Dynamics
from worldsim.models.latent_actions import LatentActionModel
from worldsim.models.vae import SpacetimeVAE
from worldsim.nn.dtype import default_float32
from worldsim.play.sample import write_sample
from worldsim.presets import Sizes, sizes_of
from worldsim.store.folder import load, save
from worldsim.train.adversarial import dynamics_of
from worldsim.train.begin import begun_with, go_on, keep_vae
from worldsim.train.checkpoint import fingerprint
from worldsim.train.checks import (
    check_budget,
    check_data,
    check_device,
    check_disk,
    check_lengths,
    check_output,
    check_processes,
    fit_to_data,
    needed_bytes,
)
from worldsim.train.distill import begun_by, train_student
from worldsim.train.distributed import agree, check_same, is_main, processes, wait
from worldsim.train.dynamics import train_dynamics
from worldsim.train.final import finish, load_final
from worldsim.train.loop import Replanned, Run, Watch
from worldsim.train.parallel import Strategy
from worldsim.train.plan import (
    GOING_ON,
    STAGES,
    Budget,
    StagePlan,
    measure_step,
    plan_by_steps,
    plan_by_time,
    replanned,
    time_left,
    with_steps,
)
from worldsim.train.recipe import (
    Recipe,
    assemble,
    changed_fit,
    default_preset,
    default_time_limit,
    latents_of,
    new_dynamics,
    recipe_for,
    start_clips,
    state_spec,
    world_of,
    world_spec,
)
from worldsim.train.state import RunState
from worldsim.train.tracking import Write, check_trackers, trackers
from worldsim.train.vae import Clips, clips_of, measure_latents, new_vae, train_vae
from worldsim.train.words import wants_recoloured
from worldsim.world.diffusion import DiffusionWorld, Sampling

Stage = Callable[..., nn.Module]
"""`(training, folder, watch=None)` -> a trained network."""

LOOK_EVERY = 30.0
"""Seconds between looks at whether a stage will end in its time."""

SAMPLE_EVERY = 600.0
"""Seconds between films of what a network in training dreams."""


def train(
    data: Dataset | str | Path,
    *,
    out: str | Path,
    preset: str | None = None,
    hours: float | None = None,
    steps: int | None = None,
    run: str | Path | None = None,
    device: str | torch.device | None = None,
    seed: int = 0,
    bf16: bool = True,
    batch: int | None = None,
    strategy: Strategy = "auto",
    activation_checkpointing: bool = False,
    compile: bool | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
    windows: Windows = "centred",
    lengths: Sequence[int] = (),
    changed: dict[str, Any] | None = None,
    recipe: Recipe | None = None,
    begin: DiffusionWorld | str | Path | None = None,
    conditions: Sequence[str] = (),
    latent_actions: LatentActionModel | str | Path | None = None,
    num_steps: int = 2,
    time_limit: int | None = None,
    card: bool = True,
    tensorboard: bool = False,
    wandb: bool = False,
    overwrite: bool = False,
) -> DiffusionWorld:
    """Train a world on recorded video and save it as a folder; typed again, it goes on.

    Started by `torchrun`, all processes train one world: each makes the same call.

    Args:
        data: a dataset, or what `worldsim.open` opens.
        out: the world folder to write; its name is the world's.
        preset: sizes of the networks: tiny, small, medium, base or xl. By default tiny where the
            budget is an hour of a CPU or less, else small.
        hours: budget of time, all stages, calibration and card together.
        steps: budget of optimiser steps instead. With neither, the recipe's own numbers of steps.
        run: folder of checkpoints and logs, `runs/NAME` by default; kept.
        device: where to train, the accelerator by default if there is one.
        seed: names every random choice.
        bf16: autocast to bfloat16 where the device is fast at it.
        batch: clips a step in every stage, of all processes together; by default the recipe's.
        strategy: how many processes hold a network: "ddp" whole, "fsdp2" in shards; by default in
            shards from 30M parameters up.
        activation_checkpointing: compute activations again instead of keeping them.
        compile: fuse the networks by torch.compile; by default where the run is long enough.
        sizes: (height, width) of frames, one or several: the world learns all of them at once and
            is stepped at the first. Frames are cropped to each shape and reduced, so none may be
            larger than the recording. By default the recording's own.
        windows: of these shapes, in training: the largest "centred" ones, or, for sizes that it is
            not trained on, half of them "drawn": a little nearer and moved, another an episode.
        lengths: chunks of shorter clips beside the recipe's own, such as (1, 4, 8): each episode
            serves the longest that it holds, so that short films and single pictures count, too.
        changed: sizes other than the preset's by name (dim, depth, heads, context, channels,
            widths, ...), see `worldsim.presets.sizes_of`.
        recipe: losses, rates and batches of your own.
        begin: a world whose networks go on here, of the same sizes: its student, and its VAE for
            the recipe's steps, kept as it is for none. No teacher is trained.
        conditions: what the world is told besides its recorded actions: ("latent_action",) for
            actions inferred from the video, see `worldsim.train_latent_actions`. A world without
            recorded actions is stepped by these.
        latent_actions: the model that infers them, or its file; one of eight codes is trained if
            there are no recorded actions, one of continuous numbers if there are.
        num_steps: denoising steps in which the world draws a chunk.
        time_limit: steps after which an episode is truncated; by default as long as the longest
            recorded episode or as its environment says.
        card: measure fidelity and trust at the end.
        tensorboard: write event files for TensorBoard into the run folder, too.
        wandb: log to Weights & Biases, too.
        overwrite: replace a world at `out`.

    Raises WorldError, before the first step, for settings, data, budget or places that cannot do.
    """
    with default_float32(), processes(check_device(device)) as place:
        check_output(out := Path(out), overwrite)
        check_budget(hours, steps)
        check_trackers(tensorboard=tensorboard, wandb=wandb)
        check_conditions(conditions, latent_actions)
        trained = () if sizes is None else check_sizes(sizes)
        views = views_at(open_data(data), trained, windows)
        check_data(opened := views[0])
        chosen = preset or default_preset(hours, place)
        same = {"strategy": strategy, "activation_checkpointing": activation_checkpointing}
        base = changed_fit(recipe or recipe_for(chosen), batch, bf16=bf16, seed=seed, **same)
        networks = sizes_of(chosen, **(changed or {}))
        networks, base = fit_to_data(opened, networks, base, check_lengths(lengths))
        check_processes(base, views)
        old = begun_with(begin, opened, networks)
        folder = Path("runs") / out.name if run is None else Path(run)
        check_disk(folder, needed_bytes(views, networks))
        settings = {
            "data": opened.fingerprint(), "sizes": to_json(networks), "recipe": to_json(base),
            "hours": hours, "steps": steps, "begin": old and fingerprint(old.dynamics),
        } | ({"frame_sizes": to_json(trained)} if trained else {})  # fmt: skip
        state = RunState(folder, settings)
        check_same(settings | {"torch": torch.__version__})
        state.save()
        opened, model = told(opened, conditions, latent_actions, folder, steps, seed)
        views, main, world = views_at(opened, trained, windows), is_main(), None
        budget = Budget(hours, steps, compile)
        writers = trackers(folder, out.name, tensorboard=tensorboard and main, wandb=wandb and main)
        Pipeline(views, networks, base, state, place, budget, writers, old).fit()
        if main:
            limit = time_limit or default_time_limit(opened)
            world = assemble(opened, networks, folder, out.name, num_steps=num_steps, begin=old,
                             time_limit=limit, frame_sizes=trained, starts=base.starts)  # fmt: skip
            world, opened = stepped(world.to(place), opened, model)
            if card:
                some = OfLength(opened, networks.context + 2) if lengths else opened
                world, world.card = measure(world, some, folder, state.left(hours))
            save(world.to("cpu"), out, overwrite=overwrite)
        wait()
    return (world or load(out)).to(place)


def open_data(data: Dataset | str | Path) -> Dataset:
    """The dataset, or what `worldsim.open` makes of its name."""
    return open_dataset(data) if isinstance(data, str | Path) else data


class Pipeline:
    """The stages of one run; views: the data at each frame size, the world's own first."""

    def __init__(
        self, views: Sequence[Dataset], sizes: Sizes, recipe: Recipe, state: RunState,
        device: torch.device, budget: Budget, writers: Sequence[Write],
        begin: DiffusionWorld | None,
    ) -> None:  # fmt: skip
        self.views, self.data = views, views[0]
        self.sizes, self.recipe, self.state = sizes, recipe, state
        self.device, self.budget, self.writers, self.begin = device, budget, writers, begin
        self.sampled: float | None = None
        self.stages = STAGES if begin is None else GOING_ON
        if begin is not None and not recipe.vae.fit.steps:
            keep_vae(begin, state.folder)
            self.stages = GOING_ON[1:]
        self.states = state_spec(self.data, begin)
        student = (
            recipe.distill if begin is None else begun_by(recipe.distill, begin.config.sampling)
        )
        self.trainings: dict[str, Any] = dict(
            zip(STAGES, (recipe.vae, recipe.forced, recipe.teacher, student), strict=True)
        )

    def fit(self) -> None:
        """Train every stage that is not finished."""
        for stage in self.stages:
            folder = self.state.folder / stage
            if (folder / "final.safetensors").exists():
                continue
            training, network = self._train(stage, self.stage(stage))
            if isinstance(network, SpacetimeVAE):
                measure_latents(network, self.clips)  # on all alike: what one alone knows is lost
            else:
                self.sample(stage, network, training.fit.steps)
            finish(network, folder)
            self.state.save()

    def _train(self, stage: str, function: Stage) -> tuple[Any, nn.Module]:
        """Train a stage to its end, over all that it is planned anew."""
        while True:
            training = self.planned(stage, function)
            try:
                return training, function(training, self.state.folder / stage, self.watch(stage))
            except Replanned:
                continue

    def planned(self, stage: str, function: Stage) -> Any:
        """The stage's training, as long as its share of the budget."""
        training = self.trainings[stage]
        if stage not in self.state.plans:
            self.state.plan(stage, self._plan(stage, training, function))
        plan = self.state.plans[stage]
        words = f"{plan.steps} steps"
        if plan.step_seconds:
            words += f" of {plan.step_seconds:.2f} s, about {plan.seconds / 60:.0f} min"
        if plan.compile and stage != "vae":
            words += "; compiling first, a minute or some"
        if is_main():
            tqdm.write(f"{stage}: {words}")
        return with_steps(training, plan)

    def _plan(self, stage: str, training: Any, function: Stage) -> StagePlan:
        budget = self.budget
        stills = stage != "vae" and self.data.spec.has_text and training.stills > 0
        shapes = len(self.views) * (1 + len(training.lengths) + stills)
        if budget.steps is not None:
            return plan_by_steps(stage, budget.steps, budget.compile, self.stages, shapes)
        if budget.hours is None:
            return StagePlan(training.fit.steps, budget.compile is not False)
        took = measure_step(function, training, self.state.folder)
        left = budget.hours * 3600 - agree(self.state.seconds, self.device)
        share, first = time_left(left, stage, self.stages), stage == self.stages[0]
        plan = plan_by_time(stage, share, took, budget.compile, first=first, shapes=shapes)
        return replace(plan, until=budget.hours * 3600 - left + share)

    @cached_property
    def clips(self) -> Clips:
        """The VAE's: what is decoded serves the trial, every plan, and the measurement."""
        return clips_of(self.training_data, self.trainings["vae"])

    @cached_property
    def training_data(self) -> Dataset | list[Dataset]:
        """Training episodes; of several frame sizes, those at each."""
        parts = [view.split("train") for view in self.views]
        return parts[0] if len(parts) == 1 else parts

    def stage(self, stage: str) -> Stage:
        """The function that trains a stage from what the ones before it left."""
        sizes, folder = self.sizes, self.state.folder
        if stage == "vae":

            def fit_vae(training: Any, where: Path, watch: Watch | None = None) -> SpacetimeVAE:
                model = new_vae(sizes.vae, training.fit.seed)
                if self.begin is not None:
                    model.load_state_dict(self.begin.vae.state_dict())
                return train_vae(self.training_data, model, training, where, watch, self.clips)

            return fit_vae
        recoloured = wants_recoloured(self.trainings[stage])
        cached = [
            latents_of(view, "train", sizes, folder, recoloured=recoloured) for view in self.views
        ]
        latents = cached[0] if len(cached) == 1 else cached
        before = {"teacher": "forced", "student": "teacher"}.get(stage)
        fit = train_student if stage == "student" else train_dynamics

        def fit_dynamics(training: Any, where: Path, watch: Watch | None = None) -> Dynamics:
            model = new_dynamics(self.data, sizes, training.fit.seed, self.states)
            if self.begin is not None:
                go_on(model, self.begin.dynamics)
            elif before is not None:
                load_final(model, folder / before)
            return fit(latents, model.to(self.device), sizes.context, training, where, watch)

        return fit_dynamics

    def watch(self, stage: str) -> Watch:
        """Tell the trackers, keep to the time, and dream a sample every so often."""
        begun: tuple[int, float] | None = None

        def watch(run: Run, figures: dict[str, float]) -> None:
            nonlocal begun
            now = run.clock
            if begun is None:  # after the first step, which compiles
                begun = run.step, now
            elif now - begun[1] > LOOK_EVERY and run.step < run.config.steps:
                self.keep_time(stage, run, (now - begun[1]) / (run.step - begun[0]))
                begun = run.step, now
            if run.step % run.config.log_every == 0:
                for write in self.writers:
                    write(stage, run.step, figures)
            self.sampled = self.sampled or now
            if stage != "vae" and now - self.sampled > SAMPLE_EVERY:
                self.sample(stage, dynamics_of(run.averaged()), run.step)
                self.sampled = now

        return watch

    def keep_time(self, stage: str, run: Run, step_seconds: float) -> None:
        """Plan the stage anew, and raise Replanned, where it would end far from its time."""
        plan = self.state.plans[stage]
        seconds = agree(self.state.seconds, self.device)
        changed = replanned(plan, run.step, step_seconds, seconds)
        if not plan.until or changed is None:
            return
        run.save()
        self.state.plan(stage, changed)
        raise Replanned

    def sample(self, stage: str, network: nn.Module, step: int) -> None:
        """Film a dream into the run's `samples`; a sample that fails stops no training."""
        if not is_main():
            return
        assert isinstance(network, Dynamics)
        data, sizes, folder = self.data, self.sizes, self.state.folder
        sampling = (
            Sampling(num_steps=2) if stage == "student" else Sampling(method="euler", num_steps=4)
        )
        try:
            vae = load_final(SpacetimeVAE(sizes.vae), folder / "vae").to(self.device)
            spec = world_spec(data, sizes, "sample", default_time_limit(data), self.states)
            starts = start_clips(data, sizes.context, 1)
            world = world_of(spec, sizes, vae, copy.deepcopy(network), sampling, starts)
            figures = write_sample(world, data, folder / "samples", f"{stage}-{step:06d}")
        except (OSError, WorldError, ValueError) as error:
            warnings.warn(f"sample of {stage} at step {step}: {error}", stacklevel=2)
            return
        for write in self.writers:
            write(stage, step, figures)
        words = ", ".join(f"{name} {value:.1f}" for name, value in figures.items())
        tqdm.write(f"{stage} at step {step}: {words or 'sampled'}; see {folder / 'samples'}")
