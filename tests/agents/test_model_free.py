"""Real practice sees, pays and ends as a recording does, and the agent learns from it."""

from itertools import cycle
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from tests.agents.test_deploy import CART, PENDULUM, SMALL, world_of
from worldsim.agents.actor_critic import ActorCritic
from worldsim.agents.deploy import encode_chunks, real_environment
from worldsim.agents.model_free import sight, train_model_free
from worldsim.agents.real_env import RealEnv
from worldsim.agents.settings import ImaginationConfig
from worldsim.agents.training import AgentTrainingConfig, load_agent, read_agent
from worldsim.core import WorldError

SETTINGS = ImaginationConfig(rows=2, horizon=3, minibatch=6, scale=0.5)


def test_rows_see_through_the_worlds_encoder_and_begin_anew_alone() -> None:
    world = world_of(PENDULUM)
    agent = ActorCritic(world.spec, SMALL)
    envs = [real_environment(world, actions="native") for _ in range(2)]
    seeds = [cycle([row, row + 10]) for row in range(2)]
    env = RealEnv(world.spec, agent, SETTINGS, envs, seeds, sight(world, agent))
    td, twin = env.reset(), real_environment(world, actions="native")
    torques = torch.tensor([[0.5], [-1.0]])
    for _ in range(2):
        td = env.step(td.set("action", torques))["next"]
    twin.reset(seed=1)
    chunks = [twin.step(np.float32([-2.0]))[:2] for _ in range(2)]
    clip = torch.as_tensor(np.concatenate([frames for frames, _ in chunks]))[None]
    seen = encode_chunks(world, clip)
    torch.testing.assert_close(td["observation"][1], torch.cat([*seen[0]], -1).permute(2, 0, 1))
    assert td["reward"][1, 0].item() == pytest.approx(0.5 * chunks[1][1], rel=1e-5)
    fresh = env.reset(td.clone().set("_reset", torch.tensor([[False], [True]])))
    assert torch.equal(fresh["observation"][0], td["observation"][0])
    assert not torch.equal(fresh["observation"][1], td["observation"][1])


def test_a_decision_is_held_in_reality_until_the_episode_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = world_of(CART)
    agent = ActorCritic(world.spec, SMALL)
    config = ImaginationConfig(rows=1, horizon=1, action_repeat=50, scale=1.0)
    real = real_environment(world, actions="native")
    watched = Mock(wraps=real.step)
    monkeypatch.setattr(real, "step", watched)
    env = RealEnv(world.spec, agent, config, [real], [cycle([0])], sight(world, agent))
    after = env.step(env.reset().set("action", torch.tensor([1])))["next"]
    twin, paid, over, steps = real_environment(world, actions="native"), 0.0, False, 0
    twin.reset(seed=0)
    while not over:
        _, reward, over, _, _ = twin.step(np.int64(1))
        paid, steps = paid + float(reward), steps + 1
    assert watched.call_count == steps < config.action_repeat  # nobody steps on after an end
    assert after["terminated"].item() and not after["truncated"].item()
    assert after["reward"].item() == paid


def test_practice_spends_whole_batches_and_leaves_an_agent(tmp_path: Path) -> None:
    world = world_of(CART)
    config = AgentTrainingConfig(agent=SMALL, imagination=SETTINGS, lr=1e-2)
    agent = train_model_free(world, None, config, tmp_path, steps=20)
    saved = load_agent(tmp_path / "real" / "agent", world.spec)
    assert read_agent(tmp_path / "real" / "agent").spent.real_steps == 18
    torch.manual_seed(config.seed)
    untrained = ActorCritic(world.spec, SMALL).state_dict()
    for name, value in saved.state_dict().items():
        assert torch.equal(value, agent.state_dict()[name])
    assert any(not torch.equal(v, untrained[k]) for k, v in saved.state_dict().items())
    with pytest.raises(WorldError, match="steps: expected at least 6"):
        train_model_free(world, None, config, tmp_path, steps=5)
