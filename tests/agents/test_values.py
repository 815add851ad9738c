"""A critic at the end of a plan: a short search sees what a long one sees."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.worlds import SPEED, tiny_world
from worldsim.agents.actor_critic import ActorCritic, AgentConfig
from worldsim.agents.cloning import Recorded, cloning_loss, returns_to_go
from worldsim.agents.deploy import RealPolicy
from worldsim.agents.planners import CEM, PlanningPolicy
from worldsim.agents.values import ValueConfig, fit_value, lambda_returns
from worldsim.core import WorldError, row_keys
from worldsim.world.point import PointWorld
from worldsim.world.rollout import imagine


def test_lambda_returns_are_rewards_then_values() -> None:
    rewards, values = torch.tensor([[1.0, 2.0]]), torch.tensor([[9.0, 4.0, 8.0]])
    going = torch.tensor([[0.5, 0.5]])
    assert lambda_returns(rewards, going, values, 1.0).tolist() == [[1 + 0.5 * (2 + 4), 2 + 4]]
    assert lambda_returns(rewards, going, values, 0.0).tolist() == [[1 + 2, 2 + 4]]


@pytest.mark.nightly
def test_a_short_search_with_a_critic_does_what_a_long_one_does() -> None:
    """A heavy point has to brake before the goal; two steps ahead nothing speaks for it."""
    torch.manual_seed(0)
    world: Any = PointWorld(thrust=0.03)
    short = CEM(horizon=2, candidates=24, elites=4, rounds=2, gamma=0.95)

    def distance(planner: CEM) -> float:
        policy = PlanningPolicy(world, planner, torch.Generator().manual_seed(1))
        dream = imagine(world, world.reset(row_keys(range(500, 524))), policy, 24)
        return float((dream.latents[:, -8:, :2] - 0.5).norm(dim=-1).mean())

    agent = ActorCritic(world.spec, AgentConfig(hidden=64))
    config = ValueConfig(
        horizon=20, gamma=0.95, scale=1.0, sweeps=12, steps=100, lr=3e-3, explore=1.0
    )
    start = world.reset(row_keys(range(256)))
    critic = fit_value(world, start, lambda s: world.best_plan(s, 8)[:, 0], agent, config)
    alone, helped = distance(short), distance(replace(short, value=critic))
    assert helped < 0.5 * alone, (alone, helped)


def test_an_agent_may_see_the_state_in_dreams_recordings_and_reality() -> None:
    world = tiny_world(state=SPEED)
    torch.manual_seed(0)
    agent = ActorCritic(world.spec, AgentConfig(width=8, hidden=8, state=True))
    state = world.encode(world.starts.frames, states=torch.full((3, 3, 2), 2.0))
    seen = agent.see(world, state)
    assert seen.shape == (3, 2 * 4 + 3, 3, 4)
    assert seen[:, -3].unique().tolist() == [pytest.approx(-1.0)]  # (2 - 5) / 3
    assert (seen[:, -1] == 1).all() and not agent.see(world, world.encode(world.starts.frames))[
        :, -1
    ].any()
    real = RealPolicy(agent, world, actions="native")
    frames = world.starts.frames[0, :2].numpy()
    one, other, none = (
        (real.reset(), real(frames, told))[1]
        for told in (torch.zeros(2).numpy(), torch.full((2,), 9.0).numpy(), None)
    )
    assert (one != other).any() and (one != none).any()
    with pytest.raises(WorldError, match="state: expected"):
        real(frames, torch.zeros(3).numpy())
    with pytest.raises(WorldError, match="state: expected False, as tiny knows no state"):
        ActorCritic(tiny_world().spec, AgentConfig(state=True))
    data = Recorded(torch.randn(9, 3, 4, 4), torch.zeros(9, 3), torch.zeros(9), (9,),
                    torch.randn(9, 2))  # fmt: skip
    loss = cloning_loss(data, torch.tensor([3, 5]), returns_to_go(data, 0.9, 1.0), 4)
    assert loss(agent, agent, 0, torch.Generator())["action"].isfinite()
