"""From one moment, other actions: what they change in reality and in the dream.

The real environment is brought to the moment by playing the episode again from its seed, once for
each way to go on; CarRacing is the same to the byte. Frames on the way are not drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldsim import metrics
from worldsim.collect.environment import RecordedEnv
from worldsim.data.dataset import Episode
from worldsim.evaluate.clips import Clips
from worldsim.metrics import bootstrap, weighted_mean
from worldsim.recipes.recipe import Recipe
from worldsim.world.diffusion import DiffusionWorld
from worldsim.world.rollout import dream_frames

STEPS = 8
CONTROLS = {  # steer, gas, brake, held for all steps
    "hard left": (-1.0, 0.0, 0.0),
    "hard right": (1.0, 0.0, 0.0),
    "full gas": (0.0, 1.0, 0.0),
    "brake": (0.0, 0.0, 0.8),
}


@dataclass(frozen=True)
class Branches:
    """What really followed N moments under the driver's own actions and each of the controls.

    Attributes:
        actions: (1 + controls, N, 8, *action). frames: (1 + controls, N, 8, c, H, W, 3) uint8; the
        driver's own come first.
    """

    actions: Tensor
    frames: Tensor


def branch(recipe: Recipe, episodes: Sequence[Episode], clips: Clips) -> Branches:
    """Play every clip's episode up to its start, and on from there in each way.

    Raises ValueError where the own actions do not give the recorded frames again.
    """
    env, own = recipe.source.open(), clips.actions[:, :STEPS]
    held = [torch.tensor(c).expand_as(own) for c in CONTROLS.values()]
    ways = torch.stack([own, *held])
    frames = torch.zeros(len(ways), *clips.frames[:, :STEPS].shape, dtype=torch.uint8)
    for n, (place, start) in enumerate(zip(clips.episode.tolist(), clips.start, strict=True)):
        for way, actions in enumerate(ways[:, n]):
            frames[way, n] = torch.from_numpy(play(env, episodes[place], int(start), actions))
    env.close()
    if not torch.equal(frames[0], clips.frames[:, :STEPS]):
        raise ValueError(
            "data: the episodes do not replay; they were recorded with other versions of gymnasium "
            "or Box2D: record them anew"
        )
    return Branches(ways, frames)


def play(env: RecordedEnv, episode: Episode, start: int, actions: Tensor) -> NDArray[np.uint8]:
    """Chunks (8, c, H, W, 3) that follow chunk `start` of the episode under `actions` (8, 3)."""
    assert episode.actions is not None
    simulator: Any = env.unwrapped
    drawn, blank = simulator._render, np.zeros((96, 96, 3), np.uint8)
    simulator._render = lambda mode: blank
    try:
        env.reset(seed=episode.seed)
        for action in episode.actions[:start]:
            env.step(action)
    finally:
        del simulator._render
        assert simulator._render == drawn
    return np.stack([env.step(action)[0] for action in actions.numpy()])


@torch.no_grad()
def counterfactual(world: DiffusionWorld, clips: Clips, real: Branches) -> dict[str, Any]:
    """Size of the effect, dream over reality, and error over that under the driver's own actions.

    effect: root of the mean squared difference of frames from those under the driver's own actions,
    after 8 steps, over all controls; and by control. error: mean squared error over the 8 steps
    under the controls, over the same under own actions. With 95% intervals over episodes.
    """
    key = torch.stack([clips.episode, clips.start], 1)
    state = clips.begin(world, key)  # the same noise in all branches: what differs is the action's
    dreamt = torch.stack([
        dream_frames(world, state, actions).reshape(real.frames.shape[1:])
        for actions in real.actions
    ])  # fmt: skip
    error = torch.stack([distance(a, b) for a, b in zip(dreamt, real.frames, strict=True)]).mean(-1)
    effects = [
        torch.stack([distance(x, frames[0])[:, -1] for x in frames[1:]])
        for frames in (dreamt, real.frames)
    ]
    found: dict[str, Any] = {
        "effect": ratio(effects[0].mean(0), effects[1].mean(0), clips.cluster, root=True),
        "error": ratio(error[1:].mean(0), error[0], clips.cluster),
    }
    found["by control"] = {
        name: ratio(effects[0][i], effects[1][i], clips.cluster, root=True)
        for i, name in enumerate(CONTROLS)
    }
    return found


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference of chunks (N, T, c, H, W, 3) uint8, scale 0 to 1: (N, T)."""
    return metrics.squared_error(a, b).mean((-3, -2, -1))


def ratio(above: Tensor, below: Tensor, cluster: Tensor, *, root: bool = False) -> dict[str, float]:
    """Mean of `above` over mean of `below`, both (N,), or its root, with its interval."""
    both = torch.stack([above, below], 1)

    def figure(weights: Tensor) -> Tensor:
        means = weighted_mean(both, weights)
        found = means[:, 0] / means[:, 1]
        return found.sqrt() if root else found

    return bootstrap(figure, cluster)._asdict()
