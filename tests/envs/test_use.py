"""How environments are used: by threads, workers and wrappers, with odd arrays, from anywhere."""

import copy
import os
import threading
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from tensordict import TensorDict

from worldsim.core import WorldError
from worldsim.envs import WorldSimEnv, WorldSimTorchRL, WorldSimVectorEnv
from worldsim.world.point import PointWorld

POINT = "worldsim.world.point:PointWorld"
STILL = np.zeros(2, np.float32)


class Slow(PointWorld):
    """Its steps wait until they are let go."""

    entered, let_go = threading.Event(), threading.Event()

    def step(self, *args: Any, **kwargs: Any) -> Any:
        self.entered.set()
        self.let_go.wait(20)
        return super().step(*args, **kwargs)


@pytest.mark.parametrize("kind", [WorldSimEnv, WorldSimVectorEnv])
def test_a_second_thread_is_refused(kind: Any) -> None:
    world: Any = Slow()
    env = kind(world=world)
    env.reset(seed=0)
    world.entered.clear(), world.let_go.clear()
    action = np.zeros(env.action_space.shape, np.float32)
    first = threading.Thread(target=env.step, args=(action,))
    first.start()
    assert world.entered.wait(20)
    for call in (lambda: env.step(action), env.reset, env.get_state):
        with pytest.raises(WorldError, match="another thread is inside"):
            call()
    world.let_go.set()
    first.join()
    assert env.step(action)[4]["steps"] == 2
    copy.deepcopy(env).step(action)


def test_unseeded_workers_do_not_live_one_life() -> None:
    """Whatever torch's global generator says, which a fork copies."""
    lives = []
    env = WorldSimTorchRL(POINT, (2,))  # not yet reset: forked, or copied, it has no life yet
    for maker in (lambda: WorldSimTorchRL(POINT, (2,)), lambda: copy.deepcopy(env)):
        for _ in range(3):
            torch.manual_seed(0)
            lives.append(maker().reset(TensorDict({}, [2]))["observation"][0, 0].item())
    assert len(set(lives)) == 6


def test_a_relative_folder_stays_that_folder(tmp_path: Path, monkeypatch: Any) -> None:
    for name in ("here", "there"):
        (tmp_path / name / "world").mkdir(parents=True)
    opened: list[str] = []

    def load(name: str, device: str) -> PointWorld:
        opened.append(name)
        return PointWorld()

    monkeypatch.setattr("worldsim.store.folder.load", load)
    monkeypatch.chdir(tmp_path / "here")
    env = WorldSimEnv("world")
    spec = gymnasium.make("WorldSim-v0", world="world").spec
    monkeypatch.chdir(tmp_path / "there")
    copy.deepcopy(env).reset(seed=0)
    assert spec is not None and spec.kwargs["world"] == os.fspath(tmp_path / "here" / "world")
    assert set(opened) == {os.fspath(tmp_path / "here" / "world")}


@pytest.mark.filterwarnings("error")
def test_arrays_of_any_layout() -> None:
    env = WorldSimEnv(POINT, observation="chunk")
    frames, _ = env.reset(seed=3)
    expected = env.step(STILL)[0]
    frozen = frames.copy()
    frozen.flags.writeable = False
    for same in (frames[..., ::-1].copy()[..., ::-1], np.asfortranarray(frames), frozen):
        env.reset(seed=0, options={"frames": same, "fps": env.world.spec.fps})
        np.testing.assert_array_equal(env.get_state().episode.state.filled, [1])
    env.reset(seed=3)
    for action in (STILL.astype(">f4"), np.zeros(4, np.float32)[::-2]):
        env.reset(seed=3)
        np.testing.assert_array_equal(env.step(action)[0], expected)
    masked = np.ma.array(STILL, mask=np.arange(len(STILL)) == 0)
    for kind in (torch.zeros(4).to_sparse(), torch.zeros(4, device="meta"), masked):
        with pytest.raises(WorldError, match="action: expected"):
            env.step(kind)
    vast = np.broadcast_to(np.uint8(1), (2**24, *frames.shape[1:]))  # of one byte
    with pytest.raises(WorldError, match="frames: expected a multiple of"):
        env.reset(options={"frames": vast})


def test_gymnasiums_wrappers_take_the_default_output() -> None:
    """Whatever the device: tensors come only where they are asked for."""
    env = gymnasium.make_vec("WorldSim-v0", 2, world=PointWorld(time_limit=2))
    env = gymnasium.wrappers.vector.RecordEpisodeStatistics(env)
    env.reset(seed=0)
    for _ in range(2):
        info = env.step(np.zeros((2, 2), np.float32))[4]
    assert info["episode"]["l"].tolist() == [2, 2]


@pytest.mark.parametrize("mode", ["SAME_STEP", "NEXT_STEP", "DISABLED"])
def test_saving_what_was_restored_gives_the_same_bytes(mode: str) -> None:
    world: Any = PointWorld(size=16, noise=0.3, time_limit=3)
    env, other = (WorldSimVectorEnv(3, world, autoreset_mode=mode) for _ in range(2))
    env.reset(seed=0)
    for _ in range(3):
        saved = env.get_state()
        other.set_state(saved)
        again = other.get_state()
        assert torch.equal(again.due, saved.due) and again.rng == saved.rng
        assert saved.frames is not None and again.frames is not None
        assert torch.equal(again.frames, saved.frames)
        env.step(np.zeros((3, 2), np.float32))


def test_a_dataset_given_as_a_world_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{}")
    with warnings.catch_warnings(), pytest.raises(ValueError, match="recordings.*worldsim train"):
        warnings.simplefilter("ignore")
        WorldSimEnv(tmp_path)
