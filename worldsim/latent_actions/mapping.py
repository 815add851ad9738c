"""Real actions mapped to latent ones from few labelled transitions: a world for real actions.

A discrete action is the mean latent of its transitions, a box goes through a line or a small
perceptron, whichever predicts transitions better that it was not fitted to (AdaWorld, 2503.18938).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from worldsim.core import ActionSpec, WorldError
from worldsim.data.columns import columns_of
from worldsim.data.dataset import Dataset
from worldsim.evaluate.measure import measure
from worldsim.models.conditioning import ActionMap
from worldsim.models.latent_actions import LatentActionModel
from worldsim.store.folder import save
from worldsim.world.diffusion import DiffusionWorld

from .labelling import label, mapped_world
from .measures import as_numbers, explained, explained_together, ridge

FEWEST = 8
"""Labelled transitions: fewer say nothing."""

FOLDS = 5
HIDDEN = 64  # units of the perceptron
SHAPES = ((0, 0.0), (HIDDEN, 1.5), (HIDDEN, 6.0))
"""Hidden units, and the standard deviation of their weights: a line, a bend, and what turns within
a tenth of the range, as where an arrow grows with the torque."""
STRENGTHS = (1e-5, 1e-3, 1e-1)
LAGS = (-2, -1, 0, 1, 2)  # chunks by which labels may be misplaced
AHEAD_BY = 0.2  # of R^2 by which another lag must explain more, to be the right one
TELLS = 0.3  # R^2 that says that there is something to be misplaced


class Pairs(NamedTuple):
    """N labelled transitions of episodes: actions (N, *action), latent (N, L), and where."""

    actions: Tensor
    latent: Tensor
    episode: Tensor
    chunk: Tensor

    def rows(self, which: Tensor) -> Pairs:
        """Some of them: indices or a mask."""
        return Pairs(*(x[which] for x in self))


def pairs(
    model: LatentActionModel, data: Dataset, count: int | None = None, seed: int = 0
) -> Pairs:
    """All transitions with a known action, or `count` of them drawn at random."""
    latents, parts = label(data, model), []
    for place, name in enumerate(data.names):
        columns = columns_of(data.episode(place), data.spec.action)
        rows = (columns.known & (latents.confidence[name] > 0)).nonzero()[:, 0]
        whole = torch.full_like(rows, place)
        parts.append((columns.actions[rows], latents.latent[name][rows], whole, rows))
    found = Pairs(*(torch.cat(x) for x in zip(*parts, strict=True)))
    if count is None or count >= len(found.latent):
        return found
    order = torch.randperm(len(found.latent), generator=torch.Generator().manual_seed(seed))
    return found.rows(order[:count].sort().values)


def fit_map(spec: ActionSpec, found: Pairs, seed: int = 0) -> ActionMap:
    """The map of these pairs; raises WorldError for fewer than `FEWEST`."""
    count = len(found.latent)
    if count < FEWEST:
        raise WorldError(
            f"labelled: expected {FEWEST} transitions with known actions and something that moves, "
            f"got {count}; label some more"
        )
    if spec.is_discrete:
        return _means(spec, found)
    fold = torch.randperm(count, generator=torch.Generator().manual_seed(seed)) % FOLDS
    losses = {
        kind: sum(
            float(((_box_map(spec, found.rows(fold != i), *kind, seed)(found.actions[fold == i])
                    - found.latent[fold == i]) ** 2).sum())
            for i in range(FOLDS)
        )
        for kind in product(SHAPES, STRENGTHS)
    }  # fmt: skip
    return _box_map(spec, found, *min(losses, key=losses.__getitem__), seed)


def _means(spec: ActionSpec, found: Pairs) -> ActionMap:
    """Each choice's mean latent; of several entries that add up, by least squares. A choice that
    was never labelled does what the average of all did."""
    made = ActionMap(spec, found.latent.shape[1], 0)
    hot = as_numbers(spec, found.actions)
    mean = found.latent.mean(0)
    entries = len(spec.choices)
    gram = hot.T @ hot + 1e-3 * torch.eye(hot.shape[1])
    weight = torch.linalg.solve(gram, hot.T @ (found.latent - mean))
    with torch.no_grad():
        made.table.weight.copy_(weight + mean / entries)
    return made.requires_grad_(False)


def _box_map(
    spec: ActionSpec, found: Pairs, shape: tuple[int, float], strength: float, seed: int
) -> ActionMap:
    """The map of a box: its last layer by ridge regression, its first, if any, at random (Huang et
    al. 2006): a solution in closed form, so that few transitions are enough."""
    hidden, spread = shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = ActionMap(spec, found.latent.shape[1], hidden).requires_grad_(False)
        if hidden:
            made.lines[0].weight.normal_(0, spread)
            made.lines[0].bias.normal_(0, spread / 1.5)
    inputs = spec.to_normalized(found.actions)
    weight, bias = ridge(made.box[:-1](inputs), found.latent, strength)
    made.lines[-1].weight.copy_(weight.T)
    made.lines[-1].bias.copy_(bias)
    return made


def map_quality(made: ActionMap, test: Pairs) -> dict[str, Any]:
    """R^2 of the latent as the map has it, all its numbers together (each by its variance) and one
    by one, on transitions that it was not fitted to."""
    predicted = made(test.actions)
    return {
        "r2": explained_together(predicted, test.latent),
        "each": explained(predicted, test.latent).tolist(),
    }


def check_aligned(spec: ActionSpec, model: LatentActionModel, data: Dataset) -> None:
    """Raise WorldError where the actions fit the chunk after or before theirs far better."""
    latents = label(data, model)
    told: dict[int, list[tuple[Tensor, Tensor]]] = {lag: [] for lag in LAGS}
    for place, name in enumerate(data.names):
        columns, latent = columns_of(data.episode(place), spec), latents.latent[name]
        known = columns.known & (latents.confidence[name] > 0)
        for lag in LAGS:
            rows = known.nonzero()[:, 0]
            rows = rows[(rows + lag >= 0) & (rows + lag < len(known))]
            rows = rows[latents.confidence[name][rows + lag] > 0]
            told[lag].append((latent[rows + lag], as_numbers(spec, columns.actions[rows])))
    fits = {lag: _fits(*(torch.cat(x) for x in zip(*parts, strict=True)))
            for lag, parts in told.items()}  # fmt: skip
    best = max(fits, key=fits.__getitem__)
    if fits[best] > TELLS and fits[best] - fits[0] > AHEAD_BY:
        raise WorldError(
            f"labelled: expected each action beside the chunk that it led into, got actions that "
            f"fit chunks {abs(best)} {'later' if best > 0 else 'earlier'} (R^2 {fits[best]:.2f} "
            f"against {fits[0]:.2f}); shift them by {best}"
        )


def _fits(latent: Tensor, actions: Tensor) -> float:
    """R^2 of actions read linearly from latents, each half by the other's regression."""
    half = torch.arange(len(latent)) % 2 == 0
    if len(latent) < 2 * FEWEST:
        return 0.0
    predicted = torch.empty_like(actions)
    for mine in (half, ~half):
        weight, bias = ridge(latent[~mine], actions[~mine])
        predicted[mine] = latent[mine] @ weight + bias
    return explained_together(predicted, actions)


def map_actions(
    world: DiffusionWorld,
    labelled: Dataset,
    *,
    out: str | Path | None = None,
    count: int | None = None,
    card: bool = True,
    seconds: float | None = None,
    overwrite: bool = False,
    seed: int = 0,
) -> DiffusionWorld:
    """A world on latent actions as one that takes an environment's own actions.

        mapped = worldsim.map_actions(world, labelled=few, out="worlds/mapped")

    Args:
        world: one that infers actions, see `worldsim.train(conditions=("latent_action",))`.
        labelled: a recording of the same picture and chunk with actions: some hundred transitions.
        out: a world folder to write.
        count: transitions to use, drawn at random; all if None.
        card: fit trust and measure the mapped world on `labelled`, as far as it goes; what cannot
            be measured is named in the card.
        seconds: about how long to measure, in full if None.
        overwrite: replace a world at `out`.
        seed: of the draw.

    Raises WorldError where the world infers no actions, where the recording is of another kind or
    without actions, with too few transitions, or with actions beside the wrong chunks.
    """
    if world.latent_actions is None:
        raise WorldError(
            f"world: expected one that infers actions, got {world.spec.name}; train it with "
            'conditions=("latent_action",)'
        )
    spec = labelled.spec
    if spec.action.kind == "none":
        raise WorldError(f"labelled: expected actions in {spec.name}, got none")
    for field in ("frame_shape", "chunk"):
        expected, got = getattr(world.spec, field), getattr(spec, field)
        if expected != got:
            raise WorldError(f"labelled: {field}: expected {expected}, got {got} in {spec.name}")
    train = labelled.split("train") if "train" in labelled.splits else labelled
    found = pairs(world.latent_actions, train, count, seed)
    made = fit_map(spec.action, found, seed)
    check_aligned(spec.action, world.latent_actions, train)
    mapped = mapped_world(world, spec.action, made)
    mapped.config = replace(
        mapped.config, environment=spec.environment or mapped.config.environment
    )
    figures: dict[str, Any] | None = None
    if card:
        mapped, figures = measure(mapped, labelled, None, seconds)
        figures = figures | {"action_map": {"transitions": len(found.latent)}}
    mapped.card = figures
    if out is not None:
        save(mapped, out, overwrite=overwrite)
    return mapped
