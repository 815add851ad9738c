"""Every entrance refuses episodes of another world, before anything is done or written."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torchrl")

from tests.worlds import tiny_world
from worldsim.agents.actor_critic import ActorCritic, AgentConfig
from worldsim.agents.dyna import DynaConfig, improve
from worldsim.agents.training import AgentTrainingConfig, save_agent, train_agent
from worldsim.collect.recorder import describe
from worldsim.core import ActionSpec, WorldError
from worldsim.data import NativeDataset, NativeWriter
from worldsim.evaluate.calibrate import calibrate
from worldsim.recipes.pendulum import pendulum
from worldsim.store.folder import save
from worldsim.train.distill import DistillationConfig
from worldsim.train.loop import FitConfig
from worldsim.world.diffusion import DiffusionWorld

TORQUE = ActionSpec(kind="continuous", low=(-2.0,), high=(2.0,))
STRONGER = ActionSpec(kind="continuous", low=(-2.0,), high=(3.0,))
CHANGES = {"frame_shape": (24, 32, 3), "chunk": 4, "action": STRONGER}
TRAINING = DistillationConfig(fit=FitConfig(steps=1, batch=2, warmup=1), targets=3, compile=False)
SHORT = DynaConfig(episodes=1, world=TRAINING, agent=AgentTrainingConfig(iterations=1))
Entrance = Callable[[DiffusionWorld, Path], object]

ENTRANCES: dict[str, Entrance] = {
    "agent": lambda world, at: train_agent(
        world, NativeDataset(at / "data"), AgentTrainingConfig(), at / "new"
    ),
    "improve": lambda _, at: improve(at / "world", at / "agent", at / "data", at / "new", SHORT),
    "calibrate": lambda world, at: calibrate(world, NativeDataset(at / "data")),
}


@pytest.mark.parametrize(("entrance", "field"), zip(ENTRANCES, CHANGES, strict=True))
def test_another_worlds_episodes_are_refused(entrance: str, field: str, tmp_path: Path):
    world = tiny_world(TORQUE, size=(32, 32))
    save(world, tmp_path / "world")
    save_agent(ActorCritic(world.spec, AgentConfig(width=8, hidden=8)), tmp_path / "agent")
    spec = describe(pendulum().source, "pendulum")
    assert spec.environment is not None
    change = {field: CHANGES[field]}
    seen = {"frame_shape": {"size": (24, 32)}, "chunk": {"chunk": 4}}.get(field, {})
    environment = replace(spec.environment, **seen)
    NativeWriter(tmp_path / "data", replace(spec, environment=environment, **change))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(WorldError, match="data: .* give recordings of the world's own kind"):
        ENTRANCES[entrance](world, tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
