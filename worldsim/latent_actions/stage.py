"""Inferring actions as the first stage of training a world."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from worldsim.core import WorldError
from worldsim.data.dataset import Dataset
from worldsim.data.labelled import LabelledDataset
from worldsim.models.latent_actions import LatentActionModel
from worldsim.store.latent_actions import load_latent_actions
from worldsim.world.diffusion import DiffusionWorld

from .labelling import coded, label, opened_model, with_model
from .labels import Labels
from .training import LatentActionTraining, train_latent_actions

KNOWN = ("latent_action",)
SHARE = 5  # of a budget of steps that this stage takes one
STAGE = "latent-actions"


def check_conditions(conditions: Sequence[str], model: Any) -> None:
    """Raise WorldError for conditions that training knows nothing of."""
    if isinstance(conditions, str) or not set(conditions) <= set(KNOWN):
        raise WorldError(f"conditions: expected some of {KNOWN}, got {conditions!r}")
    if model is not None and not conditions:
        raise WorldError(
            'latent_actions: expected None without conditions=("latent_action",), got a model'
        )


def told(
    data: Dataset, conditions: Sequence[str], given: Any, run: Path, steps: int | None, seed: int
) -> tuple[Dataset, LatentActionModel | None]:
    """The recording beside its latent actions, where a world is to be told of these, and the model
    that inferred them; else the recording, and None.

    given: the model or its file; without, one is trained in the run's folder: of eight codes for a
    recording without any actions, so that someone can play, else of numbers that are read with the
    help of whatever actions are known.
    """
    if not conditions:
        return data, None
    if given is not None:
        model = opened_model(given)
    else:
        model = _trained(data, run / STAGE, steps, seed)
    return LabelledDataset(data, label(data, model)), model


def stepped(
    world: DiffusionWorld, data: Dataset, model: LatentActionModel | None
) -> tuple[DiffusionWorld, Dataset]:
    """The world with the model, and the recording as it is measured on: one without recorded
    actions is stepped by latent ones."""
    if model is None or not isinstance(data, LabelledDataset):
        return world, data
    acts = data.spec.action.kind != "none"
    return with_model(world, model), data if acts else coded(data, model)


def _trained(data: Dataset, folder: Path, steps: int | None, seed: int) -> LatentActionModel:
    file = folder / "final.safetensors"
    if file.exists():
        return load_latent_actions(file)
    labels = None
    if data.spec.action.kind != "none":
        try:
            labels = Labels.of(data.split("train"))
        except WorldError:  # actions are declared, and not one is known
            labels = None
    most = LatentActionTraining().fit.steps
    return train_latent_actions(
        data, labels, out=file, run=folder, seed=seed, codes=data.spec.action.kind == "none",
        steps=most if steps is None else max(1, min(most, steps // SHARE)),
    )  # fmt: skip
