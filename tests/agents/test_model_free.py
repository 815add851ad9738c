"""Real practice sees, pays and ends as a recording does, and the agent learns from it."""

from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.worlds import tiny_world
from worldsim.agents.actor_critic import ActorCritic, AgentConfig, latents_seen
from worldsim.agents.model_free import practise, sight
from worldsim.agents.real_env import RealEnv
from worldsim.agents.settings import ImaginationConfig
from worldsim.agents.training import AgentTrainingConfig, load_agent, read_spent
from worldsim.core import ActionSpec, WorldError
from worldsim.models.vae import to_float
from worldsim.nn.dtype import narrow
from worldsim.recipes.pendulum import pendulum
from worldsim.world.diffusion import DiffusionWorld

SMALL = AgentConfig(width=8, hidden=16)
HOW = ImaginationConfig(rows=2, horizon=3, minibatch=6, scale=0.5)
RECIPE = pendulum().seen(max_frames=12)


def world() -> DiffusionWorld:
    return tiny_world(size=(32, 32), action=ActionSpec(kind="continuous", low=(-2.0,), high=(2.0,)))


def test_rows_see_through_the_worlds_encoder_and_begin_anew_alone() -> None:
    loaded = world()
    agent = ActorCritic(loaded.spec, SMALL)
    envs, seeds = [RECIPE.source.open() for _ in range(2)], [cycle([r, r + 10]) for r in range(2)]
    env = RealEnv(loaded.spec, agent, HOW, envs, seeds, sight(loaded, agent))
    td = env.reset()
    episodes = [RECIPE.record(seed, RECIPE.policies[0]) for seed in (0, 1)]
    for t in range(2):
        actions = np.stack([e.actions[t] for e in episodes])
        td = env.step(td.set("action", torch.from_numpy(actions) / 2))["next"]
    clip = np.stack([e.frames[:4] for e in episodes])
    with narrow(torch.device("cpu")):
        seen = latents_seen(loaded.vae.encode(to_float(torch.from_numpy(clip))))
    assert torch.equal(td["observation"], seen)
    paid = torch.tensor([e.rewards[1] for e in episodes])
    torch.testing.assert_close(td["reward"][:, 0], 0.5 * paid)
    asked = td.clone().set("_reset", torch.tensor([[False], [True]]))
    fresh = env.reset(asked)
    assert torch.equal(fresh["observation"][0], td["observation"][0])
    assert not torch.equal(fresh["observation"][1], td["observation"][1])


def test_practice_spends_whole_batches_and_leaves_an_agent(tmp_path: Path) -> None:
    loaded = world()
    recipe = AgentTrainingConfig(agent=SMALL, imagination=HOW, lr=1e-2)
    agent = practise(loaded, RECIPE.environment, recipe, tmp_path, steps=20)
    saved = load_agent(tmp_path / "real" / "agent", loaded.spec)
    assert read_spent(tmp_path / "real" / "agent")["real_steps"] == 18
    torch.manual_seed(recipe.seed)
    untrained = ActorCritic(loaded.spec, SMALL).state_dict()
    for name, value in saved.state_dict().items():
        assert torch.equal(value, agent.state_dict()[name])
    assert any(not torch.equal(v, untrained[k]) for k, v in saved.state_dict().items())
    with pytest.raises(WorldError, match="steps: expected at least 6"):
        practise(loaded, RECIPE.environment, recipe, tmp_path, steps=5)
