"""Cloning and learning in dreams: on worlds whose answer is known, and on tiny networks."""

import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from tests.kinds import KINDS, kind_world
from tests.worlds import BUTTONS, CAR, tiny_world
from worldsim.agents.actor_critic import (
    ActorCritic,
    AgentConfig,
    DreamPolicy,
    latents_seen,
)
from worldsim.agents.cloning import Recorded, cloning_loss, moments, returns_to_go
from worldsim.agents.imagination import DreamEnv, Learner
from worldsim.agents.settings import ImaginationConfig
from worldsim.agents.training import Material, load_agent, save_agent
from worldsim.core import ActionSpec, Prediction, WorldError, WorldModel, WorldState, row_keys
from worldsim.train.loop import FitConfig, fit
from worldsim.world.diffusion import DiffusionWorld
from worldsim.world.point import PointWorld
from worldsim.world.rollout import imagine

SMALL = AgentConfig(width=8, hidden=16)
SEVERAL = ActionSpec(kind="multi_discrete", nvec=(4, 5))


class Bandit(DiffusionWorld):
    """A tiny world whose reward is how near the action is to full left, no gas, full brake.

    It begins in one of 64 states, which are encoded once.
    """

    end_at = -1
    trusted = float("nan")

    @cached_property
    def pool(self) -> WorldState:
        return super().reset(row_keys(range(64)))

    def reset(self, key: Tensor) -> WorldState:  # noqa: D102
        return replace(self.pool[key[:, 0] % 64], key=key)

    def step(  # noqa: D102
        self, state: WorldState, action: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[WorldState, Prediction]:
        after = replace(state, latents=state.latents.roll(1, 1), age=state.age + 1)
        if self.spec.action.is_discrete:
            reward = (action == 3).float().reshape(len(action), -1).mean(1)
        else:
            reward = -(action - torch.tensor([-1.0, 0.0, 1.0])).abs().mean(-1)
        continue_prob = (after.age != self.end_at).float()
        return after, Prediction(reward, continue_prob, torch.full_like(reward, self.trusted))


def bandit(action: object = CAR) -> Bandit:
    w = tiny_world(action)  # type: ignore[arg-type]
    return Bandit(w.config, w.vae, w.dynamics, w.starts)


def learner(
    world: WorldModel, how: ImaginationConfig, lr: float = 3e-3, config: AgentConfig = SMALL
) -> Learner:
    torch.manual_seed(0)
    agent = ActorCritic(world.spec, replace(config, spread=0.4))
    starts = lambda rows, g: world.reset(torch.randint(2**31, (rows, 2), generator=g))  # noqa: E731
    env = DreamEnv(world, agent, how, starts)
    return Learner(env, agent, how, torch.optim.Adam(agent.parameters(), lr))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("method", "action", "agent"),
    [
        ("ppo", CAR, SMALL),
        ("ppo", CAR, replace(SMALL, distribution="beta")),
        ("actor-critic", BUTTONS, SMALL),
        ("actor-critic", SEVERAL, SMALL),
    ],
)
def test_a_dreaming_agent_learns_what_pays(method: str, action: object, agent: AgentConfig) -> None:
    world = bandit(action)
    config = ImaginationConfig(
        method=method, rows=32, horizon=2, minibatch=64, gamma=0.5, scale=1.0,  # type: ignore[arg-type]
    )  # fmt: skip
    student, turns = learner(world, config, 1e-2, agent), 12 if method == "ppo" else 40
    rewards = [student.learn(generator(i))["return"] / 2 for i in range(turns)]
    chance = rewards[0]
    best = 1.0 if world.spec.action.is_discrete else 0.0
    assert np.mean(rewards[-3:]) > chance + 0.5 * (best - chance)


@pytest.mark.nightly
def test_dreams_of_eight_steps_teach_to_reach_a_goal_far_beyond_them() -> None:
    """PointWorld: braking at the goal pays only beyond the horizon, so the critic must say so."""
    world = PointWorld(thrust=0.05)
    config = ImaginationConfig(rows=48, horizon=8, minibatch=192, gamma=0.9, scale=5.0)
    student = learner(world, config, 3e-3, AgentConfig(hidden=64))
    state = world.reset(row_keys(range(32)))
    policy = DreamPolicy(world, student.agent)
    before = imagine(world, state, policy, 30).latents[:, -6:, :2]
    for i in range(40):
        student.learn(generator(i))
    after = imagine(world, state, policy, 30).latents[:, -6:, :2]
    goal = torch.tensor(world.goal)
    assert (before - goal).norm(dim=-1).mean() > 0.5
    assert (after - goal).norm(dim=-1).mean() < 0.2


@pytest.mark.nightly
def test_dreams_of_pixels_teach_what_pays_on_average() -> None:
    """Up and to the right; 12 batches are too few to find a point of two pixels."""
    world = PointWorld(thrust=0.05, size=16)
    config = ImaginationConfig(rows=48, horizon=4, minibatch=96, gamma=0.9, scale=5.0)
    student = learner(world, config, 4e-3, AgentConfig(sees="pixels", width=16, hidden=64))
    state = world.reset(row_keys(range(32)))
    policy, best = DreamPolicy(world, student.agent), world.best_return(state, 6).sum()
    before = imagine(world, state, policy, 6).rewards.sum()
    for i in range(12):
        student.learn(generator(i))
    assert imagine(world, state, policy, 6).rewards.sum() > before + 0.2 * best


def test_a_horizon_bootstraps_and_an_end_does_not() -> None:
    world = bandit()
    config = ImaginationConfig(rows=4, horizon=3, gamma=0.9, lmbda=1.0, scale=1.0)
    student = learner(world, config)
    torch.nn.init.zeros_(student.agent.critic[-1].weight)  # type: ignore[arg-type]
    torch.nn.init.constant_(student.agent.critic[-1].bias, 10.0)  # type: ignore[arg-type]
    batch = student.dream(generator())
    reward = batch["next", "reward"][..., 0]
    ahead = reward[:, 0] + 0.9 * reward[:, 1] + 0.81 * reward[:, 2]
    torch.testing.assert_close(batch["value_target"][:, 0, 0], ahead + 0.729 * 10)
    world.end_at = 3
    batch = student.dream(generator())
    reward = batch["next", "reward"][..., 0]
    ahead = reward[:, 0] + 0.9 * reward[:, 1] + 0.81 * reward[:, 2]
    torch.testing.assert_close(batch["value_target"][:, 0, 0], ahead)


def test_an_end_and_lost_trust_begin_another_dream_and_only_the_end_is_final() -> None:
    world = bandit()
    student = learner(world, ImaginationConfig(rows=4, horizon=4, least_trust=0.5))
    assert not student.dream(generator())["next", "done"].any()  # unknown trust cuts nothing
    world.trusted, world.end_at = 0.9, 2
    ended = student.dream(generator())
    assert ended["next", "terminated"][:, :, 0].tolist() == [[False, True] * 2] * 4
    seen, before = ended["observation"], ended["next", "observation"]
    assert torch.equal(seen[:, 1], before[:, 0])
    assert not torch.equal(seen[:, 2], before[:, 1])  # a start, not what followed the end
    world.trusted, world.end_at = 0.2, -1
    cut = student.dream(generator())
    assert cut["next", "truncated"].all() and not cut["next", "terminated"].any()


def test_a_decision_is_held_and_pays_what_its_steps_pay_until_an_end() -> None:
    world = bandit()
    single = learner(world, ImaginationConfig(rows=4, horizon=6, scale=1.0))
    held = learner(world, ImaginationConfig(rows=4, horizon=2, action_repeat=3, scale=1.0))
    assert single.config.steps == held.config.steps == 24
    batch = held.dream(generator())
    assert isinstance(held.env, DreamEnv) and held.env.state is not None
    assert held.env.state.age.tolist() == [6] * 4
    one = -(held.env.taken(batch["action"]) - torch.tensor([-1.0, 0.0, 1.0])).abs().mean(-1)
    torch.testing.assert_close(batch["next", "reward"][..., 0], 3 * one)
    world.end_at = 2  # in the midst of a decision
    batch = held.dream(generator())
    one = -(held.env.taken(batch["action"]) - torch.tensor([-1.0, 0.0, 1.0])).abs().mean(-1)
    torch.testing.assert_close(batch["next", "reward"][..., 0], 2 * one)
    assert batch["next", "terminated"].all()
    held.env.step(held.env.reset().set("action", batch["action"][:, 0]))
    assert held.env.state.age.tolist() == [2] * 4  # stays where it ended


def test_some_rows_begin_anew_and_the_others_dream_on() -> None:
    world = bandit()
    student = learner(world, ImaginationConfig(rows=4, horizon=2))
    student.dream(generator())
    env = student.env
    assert isinstance(env, DreamEnv)
    before = env.state
    assert before is not None
    asked = torch.tensor([[True], [False], [True], [False]])
    env.reset(TensorDict({"_reset": asked}, [4]))
    assert env.state is not None
    assert env.state.age.tolist() == [0, 2, 0, 2]
    assert torch.equal(env.state.latents[1], before.latents[1])


def test_a_batch_of_dreams_is_named_by_its_generator_and_torchs() -> None:
    student = learner(bandit(), ImaginationConfig(rows=4, horizon=2))
    seen = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        seen.append(student.dream(generator(seed)))
    assert torch.equal(seen[0]["action"], seen[2]["action"])
    assert torch.equal(seen[0]["observation"], seen[2]["observation"])
    assert not torch.equal(seen[0]["action"], seen[1]["action"])


def recording(spec_shape: tuple[int, ...]) -> Recorded:
    """The right steering is the sign of the newest latent's mean."""
    g = torch.Generator().manual_seed(0)
    side = torch.randn(600, generator=g).sign()
    seen = side[:, None, None, None] + 0.3 * torch.randn(600, *spec_shape, generator=g)
    steer = torch.zeros(600).index_copy(0, torch.arange(1, 600), 0.8 * side[:-1])
    actions = torch.stack([steer, torch.full_like(steer, 0.5), torch.zeros_like(steer)], -1)
    rewards = torch.cat([torch.ones(300), torch.zeros(300)])
    return Recorded(seen, actions, rewards, (300, 300))


def test_a_clone_does_what_was_recorded(tmp_path: Path) -> None:
    world = tiny_world()
    data = recording(world.spec.latent_shape)
    torch.manual_seed(0)
    agent = ActorCritic(world.spec, SMALL)
    loss = cloning_loss(data, moments(data), returns_to_go(data, 0.9, 0.1), 64)
    config = FitConfig(steps=300, lr=3e-3, warmup=5, bf16=False, ema=0.9)
    clone = fit(agent, loss, config, tmp_path)
    assert isinstance(clone, ActorCritic)
    rows = torch.arange(1, 599)
    acted = clone.act(latents_seen(data.seen[rows[:, None] + torch.arange(-1, 1)]))
    assert torch.equal(acted[:, 0].sign(), data.actions[2:, 0].sign())
    assert (acted - data.actions[2:]).abs().mean() < 0.1  # some of the means are seen in noise
    save_agent(clone, tmp_path / "agent")
    again = load_agent(tmp_path / "agent", world.spec)
    seen = torch.randn(2, 8, 3, 4)
    assert torch.equal(again.act(seen), clone.act(seen))
    with pytest.raises(WorldError, match="agent"):
        load_agent(tmp_path / "nobody", world.spec)


def test_filtered_cloning_keeps_the_best_episodes() -> None:
    data = recording((3, 4, 4))
    assert moments(data, 0.5).tolist() == list(range(1, 299))
    assert len(moments(data)) == 2 * 298


def test_returns_to_go_are_discounted_sums() -> None:
    data = Recorded(torch.zeros(3, 1), torch.zeros(3), torch.tensor([9.0, 2.0, 4.0]), (3,))
    last = 5.0 / 0.5  # goes on as its mean
    expected = [2 + 0.5 * (4 + 0.5 * last), 4 + 0.5 * last, last]
    assert returns_to_go(data, 0.5, 1.0).tolist() == expected


def test_a_state_of_recorded_latents_is_the_encoded_state() -> None:
    world = tiny_world()
    true = world.encode(world.starts.frames, world.starts.actions)
    made = world.from_latents(true.latents, true.actions, true.key)
    for name in vars(true):
        assert torch.equal(getattr(made, name), getattr(true, name)), name


def test_starts_are_windows_of_the_recording() -> None:
    from worldsim.data.latents import LatentRecording
    from worldsim.data.windows import Windows

    world = tiny_world()
    data = recording(world.spec.latent_shape)
    latents = LatentRecording(
        data.seen.half(), data.actions, data.rewards, torch.ones(600), Windows(data.lengths)
    )
    state = Material(data, latents).starts(world)(5, torch.Generator().manual_seed(0))
    for row in range(5):
        first = (data.seen.half() == state.latents[row, 0].half()).flatten(1).all(1).nonzero()
        assert torch.equal(state.latents[row], data.seen.half()[first[0] :][:3].float())


def test_refusals_name_the_field() -> None:
    for bad in ({"rows": 0}, {"horizon": 0}, {"method": "sarsa"}):
        with pytest.raises(WorldError, match=next(iter(bad))):
            ImaginationConfig(**bad)
    with pytest.raises(WorldError, match="best"):
        moments(recording((3, 4, 4)), 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_action_is_learned(kind: str, tmp_path: Path) -> None:
    """In dreams and by cloning; what is saved acts the same, in the world's own range."""
    world, config = kind_world(kind), ImaginationConfig(rows=4, horizon=3, minibatch=12, anchor=0.1)
    student = learner(world, config)
    student.anchor = copy.deepcopy(student.agent)
    batch = student.dream(generator())
    entries = world.spec.action.shape or ()
    assert batch["action"].shape == (4, 3, *entries)
    assert batch["action_log_prob"].shape == (4, 3) and student.learn(generator())
    actions = torch.stack(
        [torch.as_tensor(world.spec.action.space(i).sample()) for i in range(40)]
    ).to(world.spec.action.dtype)
    recorded = Recorded(torch.randn(40, 4), actions, torch.rand(40), (40,))
    loss = cloning_loss(recorded, moments(recorded), torch.zeros(40), 16)
    losses = loss(student.agent, student.agent, 0, generator())
    assert losses["action"].isfinite() and (kind == "none") == (losses["action"] == 0)
    save_agent(student.agent, tmp_path / "agent")
    again, seen = load_agent(tmp_path / "agent", world.spec), torch.randn(5, 8)
    world.spec.action.check(again.act(seen), (5,))
    assert torch.equal(again.act(seen), student.agent.act(seen))


def test_impossible_choices_are_never_drawn() -> None:
    world = bandit(SEVERAL)
    student = learner(world, ImaginationConfig(rows=64, horizon=4, minibatch=256))
    drawn = student.dream(generator())["action"]
    assert drawn[..., 0].max() == 3 and drawn[..., 1].max() == 4
