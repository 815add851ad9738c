"""What a training goes on from: the networks of another world, whole or with new parts beside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from worldsim.core import WorldError
from worldsim.data.dataset import Dataset
from worldsim.models.dynamics import Dynamics
from worldsim.models.vae import SpacetimeVAE
from worldsim.presets import Sizes
from worldsim.store.folder import load
from worldsim.world.diffusion import DiffusionWorld

from .final import finish


def begun_with(
    begin: DiffusionWorld | str | Path | None, data: Dataset, sizes: Sizes
) -> DiffusionWorld | None:
    """The world to go on from, if any. Raises WorldError where it is of another kind or size."""
    old = load(begin) if isinstance(begin, str | Path) else begin
    if old is not None:
        check_begin(old, data, sizes)
    return old


def check_begin(begin: DiffusionWorld, data: Dataset, sizes: Sizes) -> DiffusionWorld:
    """The world to begin with; raises WorldError unless its networks are of this kind."""
    dit = replace(sizes.dit, cross_attention=begin.config.dit.cross_attention)
    kind = (sizes.vae, dit, sizes.heads, data.spec.action)
    config = begin.config
    found = (config.vae, config.dit, config.heads, config.spec.action)
    for name, ours, its in zip(("vae", "dit", "heads", "action"), kind, found, strict=True):
        if ours != its:
            raise WorldError(
                f"begin: expected a world whose {name} is {ours}, got {its} in "
                f"{config.spec.name!r}; choose its size and its kind of actions, or begin anew"
            )
    known = config.spec.state
    if known is not None and known.names != data.spec.state:
        raise WorldError(
            f"begin: expected data with the states {known.names} of {config.spec.name!r}, got "
            f"{data.spec.state}; record them, or begin anew"
        )
    return begin


JOINING = ("conditioning.", "heads.state.")
"""Parts that may join a trained network: they start without a say."""


def go_on(model: Dynamics, begin: Dynamics) -> Dynamics:
    """`model` with the weights of `begin`, which may lack parts that are new in it.

    Raises WorldError where it lacks others.
    """
    missing, extra = model.load_state_dict(begin.state_dict(), strict=False)
    joins = (name for name in missing if not name.startswith(JOINING) and ".cross." not in name)
    wrong = [*joins, *extra]
    if wrong:
        raise WorldError(f"begin: expected weights of the new world's kind, got others: {wrong}")
    return model


def keep_vae(begin: DiffusionWorld, run: Path) -> SpacetimeVAE:
    """First stage, the VAE of another world as it is: what its latents are scaled by, too."""
    if not (run / "vae" / "final.safetensors").exists():
        finish(begin.vae, run / "vae")
    return begin.vae
