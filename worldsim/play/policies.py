"""Who a player may hand over to: saved agents, and planners that need no training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from worldsim.agents.deploy import RealPolicy, load_policy
from worldsim.agents.planners import CEM, CategoricalCEM, PlanningPolicy
from worldsim.core import ActionSpec, WorldModel
from worldsim.world.diffusion import DiffusionWorld

from .session import Moment

HORIZON, CANDIDATES, ROUNDS = 8, 12, 1  # of planning: some 100 steps of the world an action


class Agent:
    """A saved agent, which sees frames and remembers what it saw.

    path: without suffix. world: that is played. Raises WorldError where they do not fit.
    """

    def __init__(self, path: Path, world: DiffusionWorld) -> None:
        self.policy: RealPolicy = load_policy(path, world, actions="native")

    def reset(self, past: Sequence[Moment]) -> None:
        """Begin after these moments; it remembers the newest of them."""
        self.policy.reset()
        for moment in past[-1:]:
            self.policy(moment.frames)

    def __call__(self, moment: Moment) -> Any:
        """The action to take, in the world's own range."""
        return self.policy(moment.frames)


class Planner:
    """Plans in dreams of its own from the present state; its draws are not the dream's."""

    def __init__(self, world: WorldModel) -> None:
        generator = torch.Generator().manual_seed(0)
        self.policy = PlanningPolicy(world, planner_for(world.spec.action), generator)

    def reset(self, past: Sequence[Moment]) -> None:
        """Forget the last plan."""
        self.policy.reset()

    def __call__(self, moment: Moment) -> Any:
        """The first action of the plan, in the world's own range."""
        action = self.policy(moment.state.episode.state)[0].cpu().numpy()
        return action if action.ndim else int(action)


def planner_for(action: ActionSpec) -> CEM | CategoricalCEM:
    """A small search that suits the kind of actions."""
    kind = CategoricalCEM if action.is_discrete else CEM
    return kind(horizon=HORIZON, candidates=CANDIDATES, rounds=ROUNDS)
