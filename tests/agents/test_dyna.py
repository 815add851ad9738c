"""The loop: the agent's own episodes join the recording, the world and the agent learn on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("torchrl")

from tests.worlds import tiny_world
from worldsim.agents.actor_critic import ActorCritic, AgentConfig
from worldsim.agents.dyna import DynaConfig, improve
from worldsim.agents.settings import ImaginationConfig
from worldsim.agents.training import AgentTrainingConfig, load_agent, save_agent
from worldsim.collect.policies import CollectPolicy
from worldsim.core import ActionSpec, WorldError
from worldsim.data import NativeDataset
from worldsim.recipes.pendulum import pendulum
from worldsim.store.folder import load, save
from worldsim.train.checkpoint import read_checkpoint
from worldsim.train.distill import DistillationConfig
from worldsim.train.loop import FitConfig

TORQUE = ActionSpec(kind="continuous", low=(-2.0,), high=(2.0,))
HOW = DynaConfig(
    episodes=2,
    judged=2,
    world=DistillationConfig(fit=FitConfig(steps=2, batch=2, warmup=1), targets=3, compile=False),
    agent=AgentTrainingConfig(
        iterations=1, imagination=ImaginationConfig(rows=4, horizon=2, epochs=1, minibatch=4)
    ),
)


@pytest.fixture
def played(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A world's folder, an agent, a dataset of two short episodes."""
    recipe = replace(pendulum(), seeds={"train": range(2)}).seen(max_frames=16)
    recipe.collect(tmp_path / "data", workers=1)
    world = tiny_world(TORQUE, size=(32, 32))
    save(world, tmp_path / "world")
    torch.manual_seed(0)
    agent = ActorCritic(world.spec, AgentConfig(width=8, hidden=8))
    save_agent(agent, tmp_path / "agent")
    return tmp_path / "world", tmp_path / "agent", tmp_path / "data"


def test_a_turn_of_the_loop(played: tuple[Path, Path, Path], tmp_path: Path):
    world, agent, data = played
    done = improve(world, agent, data, tmp_path / "turn", HOW)
    train = NativeDataset(data).split("train")
    episodes = [train.episode(i) for i in range(len(train))]
    played = [e for e in episodes if e.name.startswith("agent-1-train-")]
    assert len(played) == 2 and [e.policy for e in played] == ["agent-1"] * 2
    assert len({e.seed for e in episodes}) == len(episodes) == 4
    assert done.returns == pytest.approx([e.rewards.sum() for e in played])
    assert done.real_steps == sum(len(e) for e in episodes) == 32
    gains = np.array(done.after) - np.array(done.before)
    assert len(gains) == 2 and done.gain is not None
    assert done.gain.value == pytest.approx(gains.mean(), abs=1e-3)
    old, new = load(world), load(tmp_path / "turn" / "world")
    kept = zip(old.vae.parameters(), new.vae.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in kept)
    moved = zip(old.dynamics.parameters(), new.dynamics.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in moved)
    _, settings, _ = read_checkpoint(next((tmp_path / "turn").rglob("student/checkpoint")))
    assert settings["refine"] is False  # a student goes on
    learnt = load_agent(tmp_path / "turn" / "agent" / "agent", new.spec).state_dict()
    before = load_agent(agent, new.spec).state_dict()
    assert any(not torch.equal(learnt[name], before[name]) for name in before)
    again = improve(world, agent, data, tmp_path / "turn", HOW)  # nothing is played twice
    assert (again.returns, again.real_steps) == (done.returns, done.real_steps)
    after = improve(tmp_path / "turn" / "world", tmp_path / "turn" / "agent" / "agent", data,
                    tmp_path / "turn-2", HOW)  # fmt: skip
    assert after.real_steps == 48 and len(after.returns) == 2


def test_a_turn_that_cannot_be_is_refused(tmp_path: Path):
    with pytest.raises(WorldError, match="episodes: expected at least 1, got 0"):
        DynaConfig(episodes=0)
    with pytest.raises(WorldError, match="noise: expected 0 to 1"):
        DynaConfig(noise=1.5)


def test_a_policy_may_see_the_chunks_that_are_recorded():
    seen = []

    def watch(env, rng):
        return lambda obs: seen.append(env.frames) or rng.uniform(-2, 2, 1)

    recipe = pendulum().seen(max_frames=12)
    episode = recipe.record(3, CollectPolicy(name="watch", make=watch))
    chunks = episode.frames.reshape(-1, 2, 32, 32, 3)
    assert len(seen) == 6 and np.array_equal(seen[0][0], seen[0][1])
    assert all(np.array_equal(a, b) for a, b in zip(seen[1:], chunks[:-1], strict=True))
