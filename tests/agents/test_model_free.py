"""Real practice sees, pays and ends as a recording does, and the agent learns from it."""

from dataclasses import replace
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
from worldsim.collect.recorder import Camera, record
from worldsim.core import ActionSpec, WorldError
from worldsim.models.vae import to_float
from worldsim.nn.dtype import narrow
from worldsim.recipes.pendulum import pendulum, pendulum_mix
from worldsim.world.diffusion import DiffusionWorld

SMALL = AgentConfig(width=8, hidden=16)
HOW = ImaginationConfig(rows=2, horizon=3, minibatch=6, scale=0.5)
CONFIG = replace(pendulum(Path(".")), max_frames=12)


def world() -> DiffusionWorld:
    return tiny_world(size=(32, 32), action=ActionSpec(kind="continuous", low=(-2.0,), high=(2.0,)))


def test_a_camera_shows_and_pays_what_was_recorded() -> None:
    episode = record(CONFIG, pendulum_mix()[:1], 5)
    camera = Camera(CONFIG, [5, 6])
    first = camera.reset()
    assert first.shape == (2, 32, 32, 3) and np.array_equal(first[0], first[1])
    for t, action in enumerate(episode.actions):
        frames, reward, terminated, truncated = camera.step(action)
        assert np.array_equal(frames, episode.frames[2 * t : 2 * t + 2])
        assert reward == pytest.approx(episode.rewards[t], rel=1e-5)
        assert (terminated, truncated) == (False, t == 5)
    assert not np.array_equal(camera.reset(), first)  # the next seed
    assert camera.step(episode.actions[0])[2:] == (False, False)  # an episode of its own
    assert np.array_equal(camera.reset(), first)  # and round again
    camera.close()


def test_rows_see_through_the_worlds_encoder_and_begin_anew_alone() -> None:
    loaded = world()
    agent = ActorCritic(loaded.spec, SMALL)
    cameras = [Camera(CONFIG, [row, row + 10]) for row in range(2)]
    env = RealEnv(loaded.spec, agent, HOW, cameras, sight(loaded, agent))
    td = env.reset()
    episodes = [record(CONFIG, pendulum_mix()[:1], seed) for seed in (0, 1)]
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
    agent = practise(loaded, CONFIG, recipe, tmp_path, steps=20)
    saved = load_agent(tmp_path / "real" / "agent", loaded.spec)
    assert read_spent(tmp_path / "real" / "agent")["real_steps"] == 18
    torch.manual_seed(recipe.seed)
    untrained = ActorCritic(loaded.spec, SMALL).state_dict()
    for name, value in saved.state_dict().items():
        assert torch.equal(value, agent.state_dict()[name])
    assert any(not torch.equal(v, untrained[k]) for k, v in saved.state_dict().items())
    with pytest.raises(WorldError, match="steps: expected at least 6"):
        practise(loaded, CONFIG, recipe, tmp_path, steps=5)
