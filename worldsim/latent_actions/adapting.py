"""A latent action model goes on with another recording, along a basis of that recording's own.

Principal components of the pictures that it was trained on cannot draw others. So the basis is
fitted again, and the networks' outermost layers, which alone see components, are turned to it:
wherever both bases reach, the same differences from the mean picture have the same latent actions
as before. The mean pictures themselves take each other's place: seen from one, the other would be
further off than anything that the networks know.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from worldsim.core import ActionSpec, WorldError
from worldsim.models.latent_actions import PARTS, LatentActionModel


def turned(old: LatentActionModel, new: LatentActionModel) -> Tensor:
    """(PARTS, PARTS) that takes components along the old model's basis to those along the new
    one's, as `old @ turned`; what only one of them reaches is lost."""
    return old.scale[:, None] * (old.basis @ new.basis.T) / new.scale


@torch.no_grad()
def begin_from(model: LatentActionModel, begin: LatentActionModel) -> None:
    """Give `model`, which has a basis, what `begin` learned along its own, but for a readout of
    other actions. Raises WorldError for a model of other sizes."""
    ours, its = (replace(m.config, action=ActionSpec(kind="none")) for m in (model, begin))
    if ours != its:
        raise WorldError(f"begin: expected a model of {ours}, got {its}; choose the same sizes")
    for name in ("inverse", "ahead"):
        getattr(model, name).load_state_dict(getattr(begin, name).state_dict())
    model.spread.copy_(begin.spread)
    if model.config.moves:
        return  # pixels are the same in every recording
    seen, drawn = turned(model, begin), turned(begin, model)
    for network in (model.inverse.body, model.ahead.body):
        _see(network[0], seen)
    _draw(model.ahead.body[-1], drawn)


def _see(layer: nn.Module, seen: Tensor) -> None:
    """Turn a layer whose inputs are components of chunks, and after these other numbers."""
    assert isinstance(layer, nn.Linear)
    for first in range(0, layer.in_features // PARTS * PARTS, PARTS):
        block = layer.weight[:, first : first + PARTS]
        block.copy_(block @ seen.T)


def _draw(layer: nn.Module, drawn: Tensor) -> None:
    """Turn a layer whose outputs are components of a chunk."""
    assert isinstance(layer, nn.Linear)
    layer.weight.copy_(drawn.T @ layer.weight)
    layer.bias.copy_(layer.bias @ drawn)
