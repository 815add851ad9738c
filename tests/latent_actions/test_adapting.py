"""A model goes on with other pictures: it draws them, and says the same of those that it knew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.latent_actions.pushes import pushes
from tests.train.films import NONE, Films
from worldsim.core import WorldError
from worldsim.data.dataset import Episode
from worldsim.latent_actions.adapting import begin_from
from worldsim.latent_actions.measures import steering
from worldsim.latent_actions.training import LatentActionTraining, new_model, train_latent_actions
from worldsim.models.latent_actions import LatentActionConfig, LatentActionModel
from worldsim.train.loop import FitConfig

BRIEF = LatentActionTraining(fit=FitConfig(steps=1, batch=32, lr=3e-3, ema=0.98, warmup=10))
SMALL: dict[str, Any] = {"size": (16, 16), "dim": 2, "training": BRIEF}


def fitted(chunks: torch.Tensor, seed: int) -> LatentActionModel:
    model = new_model(LatentActionConfig(chunk=1, size=(8, 8), window=3), seed)
    model.fit_basis(chunks)
    return model


def test_where_both_bases_reach_all_stays_as_it_was() -> None:
    g = torch.Generator().manual_seed(0)
    shapes = torch.randn(90, 3 * 8 * 8, generator=g)
    clips = 0.1 * (torch.randn(200, 6, 90, generator=g) @ shapes).unflatten(-1, (3, 8, 8))
    clips -= clips.mean((0, 1))
    old, new = fitted(clips * 2, 0), fitted(torch.cat([clips, -clips]), 1)
    latent = torch.randn(200, 1, 6, generator=g)

    def said(model: LatentActionModel) -> tuple[torch.Tensor, torch.Tensor]:
        parts = model.parts(clips)
        return model.code(parts).mean, model.pictures(model.ahead(parts[:, :2], latent))

    (code, picture), before = said(old), said(new)
    begin_from(new, old)
    torch.testing.assert_close(said(new)[0], code, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(said(new)[1], picture, atol=1e-2, rtol=0)
    assert (before[0] - code).abs().max() > 0.1 and (before[1] - picture).abs().max() > 0.1


def inverted(data: Films) -> Films:
    """The same films in negative: no picture of theirs is drawn along a basis of the others."""
    splits: dict[str, list[Episode]] = {}
    for name in ("train", "test"):
        part = data.split(name)
        known = [part.episode(i) for i in range(len(part))]
        splits[name] = [replace(x, frames=255 - np.asarray(x.frames)) for x in known]
    return Films(data.spec, splits)


def test_pictures_of_another_kind_are_drawn() -> None:
    seen = train_latent_actions(pushes(NONE), steps=60, **SMALL)
    other = inverted(pushes(NONE))
    adapted = train_latent_actions(other, begin=seen, steps=60, **SMALL)
    drawn = [steering(m, other.split("test"), clips=32)["inferred"] for m in (seen, adapted)]
    assert drawn[1] > drawn[0] + 6


def test_other_sizes_are_refused() -> None:
    seen = train_latent_actions(pushes(NONE), steps=1, **SMALL)
    with pytest.raises(WorldError, match="begin: expected a model of .* choose the same sizes"):
        train_latent_actions(pushes(NONE), begin=seen, steps=1, **{**SMALL, "dim": 3})
