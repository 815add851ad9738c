"""Pendulums side by side show and pay what a recording of each would hold."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import pendulum as benchmark
from benchmarks.page import BEGIN, END
from benchmarks.pendulum import Crowd, blind, main, play, table
from tests.worlds import tiny_world
from worldsim.agents.actor_critic import ActorCritic, AgentConfig
from worldsim.agents.planners import CEM
from worldsim.agents.training import Spent, save_agent
from worldsim.core import ActionSpec
from worldsim.recipes.pendulum import pendulum
from worldsim.store.folder import save


def test_a_crowd_sees_and_earns_what_was_recorded():
    recipe = pendulum().seen(max_frames=12)
    episodes = [recipe.record(seed, recipe.policies[0]) for seed in (5000, 5001)]
    crowd = Crowd.begin([5000, 5001], recipe.environment, context=4)
    for t in range(6):
        rewards = crowd.step(np.stack([e.actions[t] for e in episodes]))
        for n, episode in enumerate(episodes):
            assert np.array_equal(crowd.frames[-1][n], episode.frames[2 * t : 2 * t + 2])
            assert rewards[n] == pytest.approx(episode.rewards[t], rel=1e-5)
    torque = ActionSpec(kind="continuous", low=(-2.0,), high=(2.0,))
    state = crowd.state(tiny_world(size=(32, 32), action=torque, context=4))
    assert state.filled.tolist() == [4, 4]
    assert torch.equal(state.actions[1], torch.from_numpy(episodes[1].actions[2:6]))


@pytest.mark.nightly
def test_the_command_scores_script_chance_agents_and_planner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(benchmark, "SEEDS", range(5000, 5002))
    recipe = replace(pendulum(), seeds={"train": range(2)}).seen(max_frames=20)
    recipe.collect(tmp_path / "data", workers=1)
    torque = ActionSpec(kind="continuous", low=(-2.0,), high=(2.0,))
    world = tiny_world(size=(32, 32), action=torque)
    save(world, tmp_path / "world")
    agent = ActorCritic(world.spec, AgentConfig(width=8, hidden=8))
    save_agent(
        agent, tmp_path / "agents" / "dream" / "agent", spent=Spent(seconds=7.0, dream_steps=5)
    )
    page = tmp_path / "page.md"
    page.write_text(f"above\n\n{BEGIN}\n\n{END}\nbelow")
    search = CEM(horizon=1, candidates=4, elites=2, rounds=1)
    paths = {"world": str(tmp_path / "world"), "agents": (tmp_path / "agents",)}
    main(**paths, data=tmp_path / "data", search=search, out=tmp_path / "out.json", page=page,
         compile=False)  # fmt: skip
    found = json.loads((tmp_path / "out.json").read_text())["policies"]
    script, chance, learned, planned = found.values()
    assert script["value"] > -500 > -700 > chance["value"]
    assert (learned["steps"], learned["dreamt"], learned["seconds"]) == (20, 5, 7.0)
    assert learned["returns"] != planned["returns"]
    text = page.read_text()
    assert text.count("\n| ") == 5 and text.startswith("above") and text.endswith("below")


@pytest.mark.nightly
def test_chance_earns_little_and_the_table_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(benchmark, "SEEDS", range(5000, 5004))
    found = play(blind(), pendulum().environment, 4, name="random")
    assert len(found["returns"]) == 4 and -1700 < found["value"] < -900
    row = found | {"steps": 0, "dreamt": 0, "seconds": 0}
    assert f"| random | {found['value']:.0f} [" in table({"random": row})
