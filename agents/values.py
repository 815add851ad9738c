"""What a plan is worth beyond its end: a learned critic, so that a search may be short.

A plan of a few steps finds haste best until what it did not see. With the value of where it ends,
as a critic judges it, it sees as far as the critic does (TD-MPC, Hansen et al. 2022, 2203.04955):
`CEM(horizon=4, value=CriticValue(world, agent))`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from worldsim.core import WorldError, WorldModel, WorldState
from worldsim.world.rollout import imagine

from .actor_critic import ActorCritic


@dataclass(frozen=True)
class CriticValue:
    """A trained agent's critic as a planner's `value`.

    Attributes:
        world: what the agent sees through. agent: whose critic it is.
        scale: what rewards were multiplied by when it was trained (`ImaginationConfig.scale`). Plan
            with the `gamma` that it was trained with, too.
    """

    world: WorldModel
    agent: ActorCritic
    scale: float = 0.1

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise WorldError(f"scale: expected above 0, got {self.scale}")

    @torch.no_grad()
    def __call__(self, state: WorldState) -> Tensor:
        """What is still to come after `state`, (B,), in the world's rewards."""
        return self.agent.value(self.agent.see(self.world, state))[:, 0] / self.scale


@dataclass(frozen=True, kw_only=True)
class ValueConfig:
    """How a critic learns what a policy is worth, from its dreams.

    Attributes:
        horizon: steps of a dream. gamma, lmbda: discount and lambda of the returns.
        sweeps: passes of fitting, with a new target network each. steps: gradient steps a sweep.
        batch: moments a step. lr: learning rate. scale: of rewards. seed: of everything.
        explore: noise on continuous actions in the dreams, standard deviation of -1 to 1: a planner
            asks for what the policy would not do, and a critic is wrong about what it never saw.
    """

    horizon: int = 20
    gamma: float = 0.97
    lmbda: float = 0.95
    sweeps: int = 8
    steps: int = 60
    batch: int = 256
    lr: float = 1e-3
    scale: float = 0.1
    seed: int = 0
    explore: float = 0.3

    def __post_init__(self) -> None:
        for name in ("horizon", "sweeps", "steps", "batch"):
            if getattr(self, name) < 1:
                raise WorldError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if not 0 < self.gamma < 1 or not 0 <= self.lmbda <= 1:
            got = (self.gamma, self.lmbda)
            raise WorldError(f"gamma, lmbda: expected 0 to below 1, and 0 to 1, got {got}")


def fit_value(
    world: WorldModel,
    start: WorldState,
    policy: Callable[[WorldState], Tensor],
    agent: ActorCritic,
    config: ValueConfig = ValueConfig(),  # noqa: B008
) -> CriticValue:
    """The value of `policy`, learnt by the critic of a copy of `agent` from dreams from `start` on.

    Fitted policy evaluation with lambda-returns (Sutton and Barto 2018, 12.1): dreams are made
    once, as the policy stays as it is; each sweep regresses on returns bootstrapped by the last
    one's critic. A planner that looks ahead with it does better than the policy.
    """
    agent = copy.deepcopy(agent).requires_grad_(True)
    seen: list[Tensor] = []
    g, spec = torch.Generator().manual_seed(config.seed), world.spec.action

    def watched(state: WorldState) -> Tensor:
        seen.append(agent.see(world, state))
        action = policy(state)
        if spec.kind != "continuous" or not config.explore:
            return action
        noise = config.explore * torch.randn(action.shape, generator=g).to(action.device)
        return spec.from_normalized((spec.to_normalized(action) + noise).clamp(-1, 1))

    with torch.no_grad():
        dream = imagine(world, start, watched, config.horizon)
        seen.append(agent.see(world, dream.state))
    views = torch.stack(seen, 1)  # (B, T + 1, ...)
    rewards, going = config.scale * dream.rewards, config.gamma * dream.continue_prob
    optimizer = torch.optim.AdamW(agent.critic.parameters(), lr=config.lr)
    flat = views[:, :-1].flatten(0, 1)
    for _ in range(config.sweeps):
        with torch.no_grad():
            values = agent.value(views.flatten(0, 1)).reshape(views.shape[:2])
        target = lambda_returns(rewards, going, values, config.lmbda).flatten()
        for _ in range(config.steps):
            rows = torch.randint(len(flat), (config.batch,), generator=g)
            loss = torch.nn.functional.smooth_l1_loss(agent.value(flat[rows])[:, 0], target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return CriticValue(world, agent.eval().requires_grad_(False), config.scale)


def lambda_returns(rewards: Tensor, going: Tensor, values: Tensor, lmbda: float) -> Tensor:
    """Returns (B, T) of rewards and discounts times odds (B, T), and values (B, T + 1)."""
    ahead, found = values[:, -1], []
    for t in range(rewards.shape[1] - 1, -1, -1):
        ahead = rewards[:, t] + going[:, t] * torch.lerp(values[:, t + 1], ahead, lmbda)
        found.append(ahead)
    return torch.stack(found[::-1], 1)
