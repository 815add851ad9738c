"""A saved agent as a plain policy: when it decides, what it sees, and that it can be resumed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.worlds import tiny_world
from worldsim.agents.actor_critic import ActorCritic, AgentConfig
from worldsim.agents.deploy import FramePolicy, load_policy
from worldsim.agents.training import save_agent
from worldsim.core import ActionSpec, EnvironmentSpec, WorldError
from worldsim.data import DatasetSpec

SEEN = EnvironmentSpec(
    id="X-v0", size=(24, 32), source="observation", crop=(0, 48, 0, 64), warmup=3
)
INFO = DatasetSpec(
    name="recorded",
    chunk=2,
    fps=50.0,
    frame_shape=(24, 32, 3),
    action=ActionSpec(kind="continuous", low=(-1.0, 0.0, 0.0), high=(1.0, 1.0, 1.0)),
    environment=SEEN,
)


class Counting:
    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []
        self.forgot = 0

    def forget(self) -> None:
        self.forgot += 1

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        self.seen.append(frames)
        return np.full(3, len(self.seen) / 10, np.float32)


def frame(value: int) -> np.ndarray:
    picture = np.full((60, 70, 3), value, np.uint8)
    picture[48:] = 255  # the score bar, which is cropped away
    return picture


def test_decides_once_a_chunk_after_the_warm_up_on_the_newest_frames() -> None:
    driver = Counting()
    policy = FramePolicy(driver, INFO)
    actions = [policy(frame(i)) for i in range(8)]
    assert [round(float(a[0]) * 10) for a in actions] == [0, 0, 0, 1, 1, 2, 2, 3]
    assert [int(f[0, 0, 0, 0]) for f in driver.seen] == [2, 4, 6]
    assert all((f[1] == f[0] + 1).all() and f.shape == (2, 24, 32, 3) for f in driver.seen)
    policy.forget()
    assert (policy(frame(0)) == 0).all()
    assert driver.forgot == 2


def test_a_saved_agent_drives(tmp_path: Path) -> None:
    world = tiny_world()
    save_agent(ActorCritic(world.spec, AgentConfig(width=8, hidden=16)), tmp_path / "agent")
    policy = load_policy(
        tmp_path / "agent", world, replace(INFO, environment=replace(SEEN, warmup=0))
    )
    rng = np.random.default_rng(0)
    for _ in range(4):
        action = policy(rng.integers(0, 256, (60, 70, 3), np.uint8))
        assert world.spec.action_space.contains(action)


def test_video_without_an_environment_is_refused() -> None:
    FramePolicy(Counting(), replace(INFO, environment=replace(SEEN, source="render")))
    with pytest.raises(WorldError, match="environment"):
        FramePolicy(Counting(), replace(INFO, environment=None))
