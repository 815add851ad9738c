"""`worldsim play` seats a player beside the world's own environment and a saved agent."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.worlds import tiny_world
from worldsim.agents.actor_critic import ActorCritic, AgentConfig
from worldsim.agents.training import save_agent
from worldsim.cli import play as module
from worldsim.core import ActionSpec, EnvironmentSpec
from worldsim.play import server
from worldsim.play.session import Session
from worldsim.store.folder import save
from worldsim.world.diffusion import DiffusionWorld


@pytest.mark.filterwarnings("ignore:.*no fidelity card")
def test_it_hands_over_and_shows_reality(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_world(ActionSpec(kind="discrete", n=2))
    cart = EnvironmentSpec(id="CartPole-v1", source="render", size=(24, 32), chunk=2)
    config = replace(base.config, environment=cart)
    world = DiffusionWorld(config, base.vae, base.dynamics, base.starts)
    folder = save(world, tmp_path / "world")
    save_agent(ActorCritic(world.spec, AgentConfig(width=8, hidden=16)), tmp_path / "agent")

    served: list[Any] = []
    monkeypatch.setattr(server, "serve", lambda world, out, **how: served.append((world, how)))
    module.play(str(folder), agent=(tmp_path / "agent",), out=tmp_path / "plays", browser=False)
    [(loaded, settings)] = served
    session = Session(loaded, company=settings["company"])
    session.reset(3, real=True)
    name = str(tmp_path / "agent")
    assert list(settings["company"].policies) == [name, "planner"]
    session.choose(name)
    moments = [session.step(("1",)), session.step(driver="policy"), session.step(("0",))]
    session.choose("planner")
    assert session.advice in (0, 1) and session.advice == session.advice
    assert [m.driver for m in moments] == ["keys", name, "keys"]
    assert all(m.real is not None and m.real.dtype == np.uint8 for m in moments)
    assert session.sample(4).step == 3 and session.step().step == 4
