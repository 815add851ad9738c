"""Eight codes on Pendulum: whether all are used, and whether each does the same from any start."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldsim.data.dataset import Dataset
from worldsim.latent_actions.measures import (
    Transitions,
    explained,
    perplexity,
    probe,
    steering,
    transitions,
)
from worldsim.models.latent_actions import LatentActionModel
from worldsim.models.vae import to_bytes
from worldsim.play import film

from .latent_actions import PROBED, Setting

HELD = 4  # steps that a code is held in the picture
STARTS = 5  # rows of the picture
PICTURE = "latent-codes.png"


def codes(setting: Setting) -> dict[str, Any]:
    """The row, and the picture beside the trained model."""
    data = setting.recorded("pendulum")
    model, about = setting.model("pendulum-codes", data, None, codes=True)
    test = data.split("test")
    found, known = (transitions(model, x, PROBED) for x in (test, data.split("train")))
    film.save_picture(setting.runs / PICTURE, sheet(model, test, found))
    return {
        **about,
        "perplexity": perplexity(model.numbers(found.latent), model.config.codes),
        "steering": steering(model, test),
        "probe": probe(known, found),
        **by_code(model, known, found),
    }


def by_code(model: LatentActionModel, known: Transitions, found: Transitions) -> dict[str, Any]:
    """The mean true action of each code on training episodes, the share of the transitions of each
    on test episodes, and how much of the true action the code's mean explains there (R^2)."""
    mean = torch.stack([known.actions[model.numbers(known.latent) == i].mean(0)
                        for i in range(model.config.codes)]).nan_to_num()  # fmt: skip
    numbers = model.numbers(found.latent)
    share = torch.bincount(numbers, minlength=len(mean)) / len(numbers)
    return {
        "mean_action": mean[:, 0].tolist(),
        "share": share.tolist(),
        "explained": explained(mean[numbers], found.actions).tolist(),
    }


@torch.no_grad()
def sheet(model: LatentActionModel, data: Dataset, found: Transitions) -> film.Picture:
    """Starts down, codes across by their mean action: what is drawn after each was held."""
    before = model.config.window - 1
    places = range(0, len(data), max(1, len(data) // STARTS))
    frames = [np.array(data.episode(i).frames[:]) for i in places][:STARTS]
    middle = [len(x) // data.spec.chunk // 2 * data.spec.chunk for x in frames]
    cut = [torch.from_numpy(x[m - before * data.spec.chunk : m])
           for x, m in zip(frames, middle, strict=True)]  # fmt: skip
    first = model.parts(model.prepared(torch.stack(cut)))
    means = by_code(model, found, found)["mean_action"]
    order = sorted(range(model.config.codes), key=means.__getitem__)
    columns = [newest(model.pictures(first[:, -1]))]
    for i in order:
        held = model.codebook()[i].expand(len(first), HELD, -1)
        columns.append(newest(model.pictures(model.ahead(first, held)[:, -1])))
    rows = [[column[i] for column in columns] for i in range(len(first))]
    heads = ["start", *(f"{i}: {means[i]:+.1f}" for i in order)]
    return film.sheet(rows, [""] * len(rows), heads)


def newest(chunks: Tensor) -> film.Picture:
    """The last frame of chunks (B, chunk * 3, h, w) as (B, h, w, 3) uint8."""
    return to_bytes(chunks[:, -3:].clamp(-1, 1)).permute(0, 2, 3, 1).numpy()
