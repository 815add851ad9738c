"""A process whose default type is float64 trains, saves and drives agents as any other."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("torchrl")

from tests.measured_data import SPEC, stored, stripes
from tests.worlds import tiny_world
from worldsim.agents.actor_critic import AgentConfig, DreamPolicy
from worldsim.agents.settings import ImaginationConfig
from worldsim.agents.training import AgentTrainingConfig, load_agent, train_agent
from worldsim.core import row_keys
from worldsim.evaluate.calibrate import CalibrationPlan, calibrate

SHORT = AgentTrainingConfig(
    iterations=1, agent=AgentConfig(width=4, hidden=8),
    imagination=ImaginationConfig(rows=4, horizon=2, epochs=1, minibatch=4),
)  # fmt: skip


@pytest.fixture
def float64():
    before = torch.get_default_dtype()
    yield torch.set_default_dtype
    torch.set_default_dtype(before)


def test_agents_and_trust_are_float32_whatever_the_default(tmp_path: Path, float64):
    world = tiny_world(SPEC.action, size=SPEC.frame_shape[:2])
    splits = {"train": [stripes(i, 12) for i in range(3)], "val": [stripes(9, 12)]}
    data = stored(tmp_path / "data", SPEC, **splits)
    plain = train_agent(world, data, SHORT, tmp_path / "plain" / "run")
    float64(torch.float64)
    agent = train_agent(world, data, SHORT, tmp_path / "wide" / "run")
    again = load_agent(tmp_path / "wide" / "run" / "dream" / "agent", world.spec)
    for a, b, c in zip(*(x.parameters() for x in (plain, agent, again)), strict=True):
        assert torch.equal(a, b) and torch.equal(b, c) and b.dtype == torch.float32
    assert DreamPolicy(world, again)(world.reset(row_keys([1]))).dtype == torch.float32
    calibrated, _ = calibrate(world, data, CalibrationPlan(episodes=1, starts=2, horizon=3))
    assert calibrated.trust is not None and calibrated.trust.weight.dtype == torch.float32
