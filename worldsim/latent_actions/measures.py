"""What latent actions are worth: how much they steer, and how much of the true ones they hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from worldsim import metrics
from worldsim.core import ActionSpec
from worldsim.data.clips import ClipLoader
from worldsim.data.columns import columns_of
from worldsim.data.dataset import Dataset
from worldsim.models.latent_actions import LatentActionModel

AHEAD = 4
"""Steps after which Genie compares what was drawn under inferred and under random actions."""

RIDGE = 1e-3  # of the features' own variance


@dataclass(frozen=True)
class Transitions:
    """N chunks of episodes, what is inferred of them and what was recorded.

    Attributes:
        latent: (N, L). confidence: (N,). actions: (N, A) float, choices one-hot; of a box in units
        of its range, -1 to 1.
        before: (N, PARTS) the chunks before, along the model's basis. episode: (N,) int64.
    """

    latent: Tensor
    confidence: Tensor
    actions: Tensor
    before: Tensor
    episode: Tensor

    def __len__(self) -> int:
        return len(self.latent)

    def rows(self, which: Tensor) -> Transitions:
        """Some of them: indices or a mask."""
        return Transitions(**{n: x[which] for n, x in vars(self).items()})


def as_numbers(spec: ActionSpec, actions: Tensor) -> Tensor:
    """Actions (N, *action) as floats (N, A): a box from -1 to 1, choices one-hot."""
    if not spec.is_discrete:
        return spec.to_normalized(actions)
    entries = (actions - spec.least).reshape(len(actions), -1).unbind(-1)
    pairs = zip(entries, spec.choices, strict=True)
    return torch.cat([torch.nn.functional.one_hot(x, n).float() for x, n in pairs], -1)


def transitions(model: LatentActionModel, data: Dataset, most: int = 10**6) -> Transitions:
    """All labelled transitions of a recording with known actions, `most` of each episode."""
    parts: list[tuple[Tensor, ...]] = []
    for place in range(len(data)):
        episode = data.episode(place)
        count = min(len(episode), most + model.config.window - 1)
        columns = columns_of(episode, data.spec.action)
        frames = torch.from_numpy(np.array(episode.frames[: count * episode.chunk]))[None]
        if count < model.config.window:
            continue
        latent, sure = (x[0] for x in model.infer(frames))
        chunks = model.components(model.prepared(frames))[0]
        actions = as_numbers(data.spec.action, columns.actions[:count])
        seen = columns.known[:count].clone()
        seen[: model.config.window - 1] = False
        rows = seen.nonzero()[:, 0]
        parts.append((latent[rows], sure[rows], actions[rows], chunks[rows - 1],
                      torch.full_like(rows, place)))  # fmt: skip
    return Transitions(*(torch.cat(x) for x in zip(*parts, strict=True)))


def ridge(x: Tensor, y: Tensor, strength: float = RIDGE) -> tuple[Tensor, Tensor]:
    """Linear regression of `y` (N, A) on `x` (N, F): weight (F, A) and bias (A,).

    Solved in the smaller of features and rows (the dual form where there are more features).
    """
    x, y = x.double(), y.double()
    shift, mean = x.mean(0), y.mean(0)
    x, y = x - shift, y - mean
    rows, features = x.shape
    scale = strength * max(1e-12, float((x**2).sum())) / features
    if features <= rows:
        weight = torch.linalg.solve(x.T @ x + scale * torch.eye(features, dtype=x.dtype), x.T @ y)
    else:
        weight = x.T @ torch.linalg.solve(x @ x.T + scale * torch.eye(rows, dtype=x.dtype), y)
    return weight.float(), (mean - shift @ weight).float()


def explained(predicted: Tensor, real: Tensor) -> Tensor:
    """R^2 of each column, (N, A) -> (A,); NaN where nothing varies."""
    total = ((real - real.mean(0)) ** 2).sum(0)
    return 1 - ((real - predicted) ** 2).sum(0) / torch.where(total > 1e-9, total, torch.nan)


def explained_together(predicted: Tensor, real: Tensor) -> float:
    """R^2 of all columns together, each by its variance."""
    total = ((real - real.mean(0)) ** 2).sum()
    return float(1 - ((real - predicted) ** 2).sum() / total)


def probe(train: Transitions, test: Transitions) -> dict[str, list[float]]:
    """R^2 of the true action on test episodes, read linearly from the latent and from the frame
    before alone: what the latter tells was to be guessed from where the player was."""
    found = {}
    for name in ("latent", "before"):
        strength = RIDGE if name == "latent" else 1.0  # there are many
        weight, bias = ridge(getattr(train, name), train.actions, strength)
        found[name] = explained(getattr(test, name) @ weight + bias, test.actions).tolist()
    found["minus"] = [a - b for a, b in zip(found["latent"], found["before"], strict=True)]
    return found


@torch.no_grad()
def steering(
    model: LatentActionModel, data: Dataset, clips: int = 256, ahead: int = AHEAD, seed: int = 0
) -> dict[str, float]:
    """Genie's delta PSNR, dB: frames `ahead` steps on, drawn under the latent actions that were
    inferred, against those drawn under the ones of other clips (of the reduced frames). `pooled`:
    PSNR of the mean error instead of the mean PSNR, where clips that hardly move count little."""
    before = model.config.window - 1
    loader = ClipLoader(data, batch=32, length=before + ahead, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    batches = range(-(-clips // 32))
    chunks = torch.cat([model.prepared(loader.clips(i).flatten(1, 2)) for i in batches])
    parts = model.parts(chunks)
    every = model.quantised(model.code(parts).mean)
    flat = every.flatten(0, 1)
    mixed = flat[torch.randint(len(flat), (len(flat),), generator=generator)].reshape(every.shape)
    real, known = chunks[:, -1], chunks[:, before - 1, -3:].repeat(1, model.config.chunk, 1, 1)

    def error(pictures: Tensor) -> Tensor:
        return ((pictures.clamp(-1, 1) - real) ** 2).mean((1, 2, 3)) / 4

    inferred, random = (
        error(model.pictures(model.ahead(parts[:, :before], x)[:, -1])) for x in (every, mixed)
    )
    errors = {"inferred": inferred, "random": random, "still": error(known)}
    found = {name: float(metrics.psnr(x).mean()) for name, x in errors.items()}
    pooled = {f"{name}_pooled": float(metrics.psnr(x.mean())) for name, x in errors.items()}
    found |= pooled | {"clips": len(every), "delta": found["inferred"] - found["random"]}
    return found | {"delta_pooled": pooled["inferred_pooled"] - pooled["random_pooled"]}


def perplexity(numbers: Tensor, codes: int) -> float:
    """How many of the codes are used, as if evenly: exp of the entropy of their shares."""
    share = torch.bincount(numbers.flatten(), minlength=codes).double()
    share = share / share.sum()
    return float((-(share * share.clamp(min=1e-12).log()).sum()).exp())
