"""Beta distributions of actions are what torch's are, stretched, and no draw has no density."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from worldsim.agents.actor_critic import ActorCritic, AgentConfig
from worldsim.agents.distributions import ScaledBeta
from worldsim.agents.settings import ImaginationConfig
from worldsim.core import ActionSpec, WorldError, WorldSpec

SPEC = WorldSpec(
    name="film", frame_shape=(32, 32, 3), fps=20.0, chunk=2, context=4, time_limit=50,
    latent_shape=(4, 4, 8),
    action=ActionSpec(kind="continuous", low=(-1.0, 0.0), high=(1.0, 1.0)),
)  # fmt: skip
BETA = AgentConfig(width=8, hidden=16, distribution="beta", spread=0.3, start=(0.2, 0.05))


def test_a_density_sums_to_one_and_has_the_mean_deviation_and_entropy_it_says() -> None:
    beta = ScaledBeta(torch.tensor([3.0]).double(), torch.tensor([1.5]).double())
    at = torch.linspace(-1, 1, 20_001).double()
    density = beta.log_prob(at[:, None]).exp()
    whole = lambda x: torch.trapezoid(x, at).item()  # noqa: E731
    assert whole(density) == pytest.approx(1, abs=1e-3)
    mean = whole(density * at)
    assert beta.mean.item() == beta.deterministic_sample.item() == pytest.approx(mean, abs=1e-3)
    assert beta.stddev.item() ** 2 == pytest.approx(whole(density * (at - mean) ** 2), abs=1e-3)
    surprise = torch.where(density > 0, -density * density.log(), 0)
    assert beta.entropy().item() == pytest.approx(whole(surprise), abs=2e-3)


def test_draws_are_of_that_density_and_what_is_drawn_at_an_end_is_possible() -> None:
    torch.manual_seed(0)
    wide = ScaledBeta(torch.tensor([2.0, 1.0]), torch.tensor([4.0, 1.0]))
    drawn = wide.sample(torch.Size((20_000,)))
    torch.testing.assert_close(drawn.mean(0), wide.mean, atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.std(0), wide.stddev, atol=0.02, rtol=0)
    sharp = ScaledBeta(torch.tensor([1.0, 1e6]), torch.tensor([1e6, 1.0]))
    ends = sharp.sample(torch.Size((1000,)))
    assert ends.abs().max() <= 1
    assert sharp.log_prob(ends).isfinite().all()
    assert sharp.log_prob(torch.tensor([-1.0, 1.0])).isfinite()


def test_an_untrained_agent_begins_where_it_is_told_as_widely_as_one_peak_allows() -> None:
    torch.manual_seed(0)
    agent = ActorCritic(SPEC, BETA)
    seen = torch.zeros(4, 16, 4, 4)
    agent.actor[-1].weight.data.zero_()  # type: ignore[operator, union-attr]
    told = SPEC.action.to_normalized(torch.tensor(BETA.start)).clamp(-0.9, 0.9)
    torch.testing.assert_close(agent.loc(seen), told.expand(4, 2))
    spread = ScaledBeta(*agent.concentrations(seen)).stddev[0]
    assert spread[0].item() == pytest.approx(0.3, rel=1e-4)
    assert 0.05 < spread[1] < 0.3  # near the end of a pedal
    assert all((part > 1).all() for part in agent.concentrations(seen))
    wider = ActorCritic(SPEC, replace(BETA, spread=0.4))
    assert wider.spread(seen) > agent.spread(seen)


def test_choices_and_names_that_are_none_are_refused() -> None:
    buttons = replace(SPEC, action=ActionSpec(kind="discrete", n=3))
    with pytest.raises(WorldError, match='distribution: expected "normal", as actions of film'):
        ActorCritic(buttons, replace(BETA, start=None))
    with pytest.raises(WorldError, match="distribution: expected normal or beta, got 'gauss'"):
        AgentConfig(distribution="gauss")  # type: ignore[arg-type]
    with pytest.raises(WorldError, match="action_repeat: expected at least 1, got 0"):
        ImaginationConfig(action_repeat=0)
