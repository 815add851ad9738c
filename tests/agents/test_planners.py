"""Planners on PointWorld, whose best plan is known in closed form."""

from dataclasses import replace
from math import inf, nan
from typing import Any

import pytest
import torch

from tests.kinds import KINDS, KindWorld, kind_world
from tests.worlds import tiny_world
from worldsim.agents.planners import (
    CEM,
    MPPI,
    CategoricalCEM,
    Plan,
    Planner,
    PlanningPolicy,
    coloured_noise,
)
from worldsim.agents.scoring import plan_returns, trusted_reward
from worldsim.agents.tree_search import TreeSearch
from worldsim.core import Prediction, WorldError, row_keys
from worldsim.world.point import PointWorld
from worldsim.world.rollout import imagine, replay

HORIZON = 6
CONTINUOUS = [
    CEM(horizon=HORIZON, candidates=128, elites=12, rounds=5),
    MPPI(horizon=HORIZON, candidates=128, rounds=6, temperature=0.02),
]
DISCRETE = CategoricalCEM(horizon=HORIZON, candidates=128, elites=12, rounds=5)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("planner", [*CONTINUOUS, DISCRETE], ids=lambda p: type(p).__name__)
def test_a_plan_earns_nearly_what_the_best_plan_earns(planner: Planner) -> None:
    world = PointWorld(discrete=isinstance(planner, CategoricalCEM), thrust=0.05)
    state = world.reset(row_keys(range(16)))
    plan = planner.plan(world, state, generator=generator())
    assert plan.actions.shape == (16, HORIZON, *world.spec.action.shape)
    earned = replay(world, state, plan.actions).rewards.sum(1)
    best = world.best_return(state, HORIZON)
    assert (earned <= best + 1e-5).all()
    assert earned.sum() > 0.95 * best.sum()
    if not isinstance(planner, MPPI):  # whose value is a mean over plans
        torch.testing.assert_close(plan.value, earned)


@pytest.mark.parametrize(
    "planner",
    [CONTINUOUS[0], pytest.param(TreeSearch(simulations=25), marks=pytest.mark.nightly)],
    ids=lambda p: type(p).__name__,
)
def test_a_planning_policy_reaches_the_goal(planner: Planner) -> None:
    world = PointWorld(discrete=isinstance(planner, TreeSearch), thrust=0.05, noise=0.005)
    state = world.reset(row_keys(range(4)))
    before = (state.latent[:, :2] - 0.5).norm(dim=-1)
    patient = replace(planner, gamma=0.9)  # undiscounted, only where a plan ends counts
    policy = PlanningPolicy(world, patient, generator())
    after = imagine(world, state, policy, 20).latents[:, -3:, :2]
    assert before.mean() > 0.5
    assert (after - 0.5).norm(dim=-1).mean() < 0.15


def test_a_warm_start_helps() -> None:
    world = PointWorld(thrust=0.05)
    state = world.reset(row_keys(range(32)))
    poor = CEM(horizon=HORIZON, candidates=12, elites=3, rounds=1)
    first = CONTINUOUS[0].plan(world, state, generator=generator())
    following, _ = world.step(state, first.actions[:, 0])
    warm = poor.plan(world, following, previous=first, generator=generator(1))
    cold = poor.plan(world, following, generator=generator(1))
    assert warm.value.mean() > cold.value.mean() + 0.01


def test_a_plan_is_carried_on_for_some_steps_and_then_made_anew() -> None:
    world = PointWorld(thrust=0.05)
    made: list[Plan] = []

    class Spy(CEM):
        def plan(self, world: Any, state: Any, **how: Any) -> Plan:
            made.append(super().plan(world, state, **how))
            return made[-1]

    policy = PlanningPolicy(world, Spy(horizon=5, candidates=8, elites=2), generator(), every=3)
    state = world.reset(row_keys(range(2)))
    taken = torch.stack([policy(state) for _ in range(6)])
    assert len(made) == 2
    for step, action in enumerate(taken):
        assert torch.equal(action, made[step // 3].actions[:, step % 3])
    policy.reset()
    policy(state)
    assert len(made) == 3 and len(policy(state[:1])) == 1  # other rows: a plan of their own
    with pytest.raises(WorldError, match="every: expected at least 1"):
        PlanningPolicy(world, Spy(), every=0)


HELD = (0.25, -0.75)


@pytest.mark.parametrize(
    "planner",
    [
        CEM(horizon=4, candidates=4, elites=2, rounds=1, spread=1e-6, start=HELD),
        MPPI(horizon=4, candidates=4, rounds=1, spread=1e-6, start=HELD),
    ],
)
def test_a_first_plan_begins_where_it_is_told(planner: CEM | MPPI) -> None:
    world = PointWorld(thrust=0.05)
    state = world.reset(row_keys(range(2)))
    found = planner.plan(world, state, generator=generator()).actions
    torch.testing.assert_close(found, torch.tensor(HELD).expand_as(found), atol=1e-4, rtol=0)
    other = Plan(torch.ones(2, 4, 2), torch.zeros(2), torch.ones(2, 0, 4, 2))
    drawn = replace(planner, home=0.25).plan(world, state, previous=other, generator=generator())
    back = 0.75 + 0.25 * torch.tensor(HELD)
    torch.testing.assert_close(drawn.actions, back.expand(2, 4, 2), atol=1e-4, rtol=0)
    with pytest.raises(WorldError, match="start: expected 2 numbers"):
        replace(planner, start=(0.0,)).plan(world, state)
    with pytest.raises(WorldError, match="home: expected 0 to 1"):
        replace(planner, home=2.0)


def test_every_action_may_have_a_spread_of_its_own() -> None:
    world = PointWorld(thrust=0.05)
    planner = CEM(horizon=4, candidates=64, elites=2, rounds=1, spread=(0.3, 1e-6))
    found = planner.plan(world, world.reset(row_keys([0])), generator=generator()).elites
    assert found[..., 0].std() > 0.1 and found[..., 1].std() < 1e-4
    with pytest.raises(WorldError, match="spread: expected 1 or 2 numbers"):
        replace(planner, spread=(0.3, 0.3, 0.3)).plan(world, world.reset(row_keys([0])))


def test_plans_do_not_foresee_the_worlds_noise() -> None:
    world = PointWorld(noise=1.0)
    state = world.reset(row_keys([0]))
    seen = []

    class Spy:
        def plan(self, world, state, **rest):  # noqa: ANN001, ANN003, ANN202
            seen.append(state.key)
            return CONTINUOUS[0].plan(world, state, **rest)

    PlanningPolicy(world, Spy(), generator())(state)
    assert not torch.equal(seen[0], state.key)


@pytest.mark.parametrize("planner", [CONTINUOUS[0], DISCRETE, TreeSearch(simulations=12)])
def test_rows_are_planned_for_on_their_own(planner: Planner) -> None:
    """A search that mixes up rows would score one row's plan from another's state."""
    world = PointWorld(discrete=not isinstance(planner, CEM), thrust=0.05)
    state = world.reset(row_keys(range(5)))
    plan = planner.plan(world, state, generator=generator())
    if not isinstance(planner, TreeSearch):
        earned = plan_returns(world, state, plan.actions[:, None])[:, 0]
        torch.testing.assert_close(plan.value, earned)
        return
    for row in range(5):  # draws nothing: exactly the same alone
        alone = planner.plan(world, state[[row]])
        assert torch.equal(alone.actions[0], plan.actions[row])
        torch.testing.assert_close(alone.value[0], plan.value[row])


def test_tree_search_finds_the_best_next_step_where_no_other_counts() -> None:
    world = PointWorld(discrete=True, thrust=0.3)
    state = world.reset(row_keys(range(8)))
    actions = torch.arange(5).expand(8, 5)
    best = plan_returns(world, state, actions[..., None]).argmax(1)
    plan = TreeSearch(simulations=60, gamma=1e-3).plan(world, state)
    assert torch.equal(plan.actions[:, 0], best)


def test_a_likely_end_makes_what_follows_count_less() -> None:
    world = PointWorld(arena=0.9, goal=(50.0, 0.0), thrust=0.5)
    state = world.reset(row_keys([3]))
    push = torch.tensor([1.0, 0.0]).expand(1, 1, 8, 2)
    ends = plan_returns(world, state, push)
    free = plan_returns(replace(world, arena=None), state, push)
    assert ends < free


def test_distrust_costs_and_unknown_trust_does_not() -> None:
    one = torch.ones(3)
    prediction = Prediction(one, one, torch.tensor([1.0, 0.25, float("nan")]))
    assert trusted_reward(prediction, 2.0).tolist() == [1.0, -0.5, 1.0]
    assert trusted_reward(prediction, 0.0).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("colour", [0.0, 1.0, 2.0])
def test_coloured_noise_has_unit_variance_and_its_colour(colour: float) -> None:
    noise = coloured_noise((4000, 13, 1), colour, generator())
    assert noise.var().item() == pytest.approx(1, abs=0.05)
    power = torch.fft.rfft(noise, dim=1).abs().square().mean((0, 2))
    assert (power[1] / power[4]).item() == pytest.approx(4**colour, rel=0.15)


@pytest.mark.parametrize("planner", [CEM(horizon=2, candidates=6, elites=2, rounds=2),
                                     MPPI(horizon=2, candidates=4, rounds=1)])  # fmt: skip
def test_a_diffusion_world_can_be_planned_in(planner: Planner) -> None:
    world = tiny_world()
    state = world.reset(row_keys([0, 1]))
    plan = planner.plan(world, state, generator=generator())
    world.spec.action.check(plan.actions, (2, 2))


def test_refusals_name_what_was_expected() -> None:
    discrete, continuous = PointWorld(discrete=True), PointWorld()
    for world, planner in ((discrete, CEM()), (continuous, TreeSearch()), (continuous, DISCRETE)):
        with pytest.raises(WorldError, match="expected"):
            planner.plan(world, world.reset(row_keys([0])))
    bounds: dict[str, Any] = {
        "horizon": (0, 1.5), "elites": (1, 65, 2.5), "gamma": (0.0, nan), "home": (nan, -1.0),
        "spread": (0.0, (1.0, nan)), "colour": (nan, -1.0), "shrink": (0.0, inf), "kept": (2.0,),
    }  # fmt: skip
    for name, values in bounds.items():
        for bad in values:
            with pytest.raises(WorldError, match=f"{name}: expected"):
                CEM(**{name: bad})
    with pytest.raises(WorldError, match="temperature: expected"):
        MPPI(temperature=0.0)
    with pytest.raises(WorldError, match="start: expected"):
        CEM(start=(nan, 0.0)).plan(continuous, continuous.reset(row_keys([0])))


SEARCHES = {
    "continuous": [CEM(horizon=3, candidates=24, elites=4), MPPI(horizon=3, candidates=24)],
    "discrete": [CategoricalCEM(horizon=3, candidates=24), TreeSearch(simulations=30, gamma=0.5)],
    "multi_discrete": [CategoricalCEM(horizon=3, candidates=64, rounds=4)],
    "multi_binary": [CategoricalCEM(horizon=3, candidates=48, rounds=4)],
    "none": [CategoricalCEM(horizon=3, candidates=8), TreeSearch(simulations=4)],
}
KIND_CASES = [(kind, planner) for kind, planners in SEARCHES.items() for planner in planners]


@pytest.mark.parametrize(("kind", "planner"), KIND_CASES)
def test_every_kind_of_action_is_planned(kind: str, planner: Planner) -> None:
    """Nothing else than pushing up and to the right pays; the goal is far away."""
    world = kind_world(kind, noise=0.0, goal=(50.0, 50.0))
    state = world.reset(row_keys([0, 1]))
    plan = planner.plan(world, state, generator=generator())
    spec = world.spec.action
    spec.check(plan.actions[:, 0], (2,))
    again = planner.plan(world, state, previous=plan, generator=generator(1)).actions[:, 0]
    best = {
        "continuous": [2.0, 1.0], "discrete": 6, "multi_discrete": [2, 4], "none": 0,
    }  # fmt: skip
    if kind == "multi_binary":  # the third entry pushes nothing
        assert again[:, :2].tolist() == [[1, 1]] * 2
    elif kind != "continuous":
        assert again.tolist() == [best[kind]] * 2
    else:
        assert (again > 0.6 * torch.tensor(best[kind])).all()


class Broken(KindWorld):
    """Says NaN of the most rewarding actions, infinity of the second choice."""

    def step(self, state: Any, action: Any = None, **rest: Any) -> Any:
        after, prediction = super().step(state, action, **rest)
        first = action if self.spec.action.shape == () else action[:, 0]
        spoilt = prediction.reward.where(first != 4, torch.inf)
        most = 6 if self.spec.action.is_discrete else 1.0
        return after, replace(prediction, reward=spoilt.where(first < most, torch.nan))


@pytest.mark.parametrize(
    ("kind", "planner"),
    [
        ("continuous", CEM(horizon=2, candidates=32, elites=6)),
        ("continuous", MPPI(horizon=2, candidates=32)),
        ("discrete", CategoricalCEM(horizon=2, candidates=32)),
        ("discrete", TreeSearch(simulations=20)),
    ],
)
def test_what_is_not_finite_wins_no_ranking(kind: str, planner: Planner) -> None:
    world = Broken(size=16, action=KINDS[kind], goal=(50.0, 50.0))
    state = world.reset(row_keys(range(4)))
    plan = planner.plan(world, state, generator=generator())
    assert plan.actions.isfinite().all() and plan.value.isfinite().all()
    first = plan.actions[:, 0]
    if kind == "discrete":
        assert first.tolist() == [5] * 4
    elif isinstance(planner, CEM):
        assert (first[:, 0] < 1).all()
    hopeless = Broken(size=16, action=KINDS[kind], goal=(float("nan"), 0.0))
    assert planner.plan(hopeless, state, generator=generator()).actions.isfinite().all()
