"""`worldsim.collect` for any environment."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import worldsim
from tests.collect.fakes import ACTIONS, Shows, make
from worldsim.collect import CollectError, CollectPolicy
from worldsim.collect.api import plan
from worldsim.collect.source import small_size
from worldsim.core import WorldError
from worldsim.data.dataset import Dataset, DatasetError

FEW: dict[str, Any] = {"episodes": 3, "val": 1, "test": 1, "size": (8, 8), "noise": 0.0}


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def episodes(data: Dataset) -> list[Any]:
    return [data.episode(i) for i in range(len(data))]


@pytest.mark.parametrize("chunk", [1, 2, 4])
@pytest.mark.parametrize("kind", [k for k in ACTIONS if k != "unbounded"])
def test_actions_lie_beside_the_frames_they_led_to(tmp_path: Path, kind: str, chunk: int) -> None:
    data = worldsim.collect(
        "tests.collect.fakes:make", env_kwargs={"action": kind}, out=tmp_path, chunk=chunk, **FEW
    )
    assert data.spec.chunk == chunk and data.spec.fps == 20 and len(data) == 5
    for episode in episodes(data):
        frames = np.asarray(episode.frames[0 : len(episode.frames)])
        shown = frames.reshape(-1, chunk, 8, 8, 3)[:, 0, -1, 0, 0].astype(int)
        own = ACTIONS[kind]
        sums = episode.actions.reshape(len(shown), -1).astype(own.dtype).sum(1)
        np.testing.assert_allclose(shown, np.trunc(100 + sums) % 256, atol=1)
        np.testing.assert_array_equal(frames[:7, 0, 0, 0], np.arange(1, 8))
        assert episode.terminated and episode.rewards.sum() == 28
        gymnasium_actions = episode.actions.reshape(len(shown), *(own.shape or ()))
        assert all(own.contains(np.clip(a.astype(own.dtype), own.low, own.high)) for a in
                   gymnasium_actions) if kind in ("box", "wide", "whole") else True  # fmt: skip


def test_equal_seeds_give_equal_bytes_with_any_number_of_workers(tmp_path: Path) -> None:
    def policy(obs: Any) -> int:
        import torch

        return int(np.random.randint(-1, 3)) * int(torch.rand(()) < 0.7)

    for workers in (1, 2):
        worldsim.collect(
            "Shows-v0", policy=policy, out=tmp_path / str(workers), workers=workers,
            env_kwargs={"length": 12}, **(FEW | {"noise": 0.25}),
        )  # fmt: skip
    worldsim.collect(make, policy=policy, out=tmp_path / "other", seed=1, **FEW)
    one, two, other = (files(tmp_path / name) for name in ("1", "2", "other"))
    skip = "dataset.json"  # which names the folder
    assert {k: v for k, v in one.items() if k != skip} == {
        k: v for k, v in two.items() if k != skip
    }
    assert other["train/train-000000.npz"] != one["train/train-000000.npz"]


def test_no_two_episodes_share_a_seed() -> None:
    policies = [CollectPolicy(name="p", make=lambda env, rng: lambda obs: 0)]
    jobs = plan({"train": 3000, "val": 300, "test": 300}, policies, 0, "")
    assert len({job.seed for job in jobs}) == len({job.name for job in jobs}) == 3600
    more = plan({"train": 10}, policies, 0, "agent")
    assert not {job.name for job in more} & {job.name for job in jobs}
    assert {job.seed for job in plan({"train": 9}, policies, 0, "")} < {j.seed for j in jobs}


def test_full_throttle_beyond_float32_is_read_back(tmp_path: Path) -> None:
    order = {"env_kwargs": {"action": "wide"}, "policy": lambda obs: [500.7], "out": tmp_path}
    data = worldsim.collect("Shows-v0", **order, **FEW)
    assert float(data.episode(0).actions[0, 0]) == float(np.float32(500.7)) > 500.7
    before = files(tmp_path)
    worldsim.collect("Shows-v0", **order, **FEW)
    assert files(tmp_path) == before


def test_vectors_and_dicts_become_state_and_text(tmp_path: Path) -> None:
    vector = worldsim.collect(
        "Shows-v0", out=tmp_path / "v", env_kwargs={"observation": "vector"}, **FEW
    )
    assert vector.spec.state == ("observation[0]", "observation[1]")
    assert vector.spec.environment is not None and vector.spec.environment.source == "render"
    state = vector.episode(0).state
    np.testing.assert_array_equal(state, [[2, -2], [4, -4], [6, -6], [7, -7]])
    both = worldsim.collect(
        "Shows-v0", out=tmp_path / "d", env_kwargs={"observation": "dict"}, state=["lit"], **FEW
    )
    assert both.spec.state == ("lit",) and both.episode(0).text == "count"
    assert both.spec.environment is not None and both.spec.environment.image == "camera"
    np.testing.assert_array_equal(both.episode(0).state, [[0], [0], [0], [1]])


def test_an_environment_object_is_used_as_it_is(tmp_path: Path) -> None:
    env = Shows(length=4, render_mode="rgb_array")
    data = worldsim.collect(env, out=tmp_path / "o", **FEW)
    assert data.spec.environment is None and len(data.episode(0)) == 2
    made = gymnasium.make("Shows-v0", length=4)
    spec = worldsim.collect(made, out=tmp_path / "m", **FEW).spec.environment
    assert spec is not None and (spec.id, spec.kwargs) == ("Shows-v0", {"length": 4})
    again = worldsim.collect(spec, out=tmp_path / "again", episodes=3, val=1, test=1)
    assert again.episode(0).rewards is not None and again.spec.environment == spec
    with pytest.raises(CollectError, match="workers: expected 1 for an environment"):
        worldsim.collect(env, out=tmp_path / "o", workers=2, **FEW)


def test_wrappers_are_named_or_the_environment_is_not(tmp_path: Path) -> None:
    wrapped = worldsim.collect(
        "Shows-v0", out=tmp_path / "n", wrappers=["tests.collect.fakes:brighter"], **FEW
    )
    spec = wrapped.spec.environment
    assert spec is not None and spec.wrappers == ("tests.collect.fakes:brighter",)
    assert np.asarray(wrapped.episode(0).frames[0:1])[0, 0, 0, 0] == 2
    with pytest.raises(CollectError, match="trust_code=True"):
        worldsim.collect(spec, out=tmp_path / "again", episodes=1)
    free = worldsim.collect("Shows-v0", out=tmp_path / "l", wrappers=[lambda env: env], **FEW)
    assert free.spec.environment is None


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ((400, 600), (48, 72)),
        ((500, 500), (64, 64)),
        ((210, 160), (64, 48)),
        ((64, 64), (64, 64)),
        ((24, 24), (24, 24)),
        ((30, 41), (32, 40)),
        ((5, 200), (8, 128)),
    ],
)
def test_a_size_of_the_same_aspect_is_chosen(sides: Any, expected: Any) -> None:
    assert small_size(*sides) == expected


def test_the_size_is_said_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = worldsim.collect(
        "CartPole-v1",
        out=tmp_path,
        max_frames=6,
        episodes=1,
        val=0,
        test=0,
        crop=(100, 400, 0, 600),
    )
    assert data.spec.frame_shape == (32, 64, 3) and len(data.spec.state) == 4
    assert "300x600 are resized to 32x64" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": 3}, "env: expected an id"),
        ({"env": "Shows-v1"}, "env: expected an environment"),
        ({"env_kwargs": {"nothing": 1}}, "look at its keywords"),
        ({"env_kwargs": {"action": "unbounded"}}, "action space: expected a bounded Box"),
        ({"env_kwargs": {"length": {1}}}, "env_kwargs: expected values that JSON can hold"),
        ({"env": Shows(observation="vector")}, "source: expected render frames"),
        (
            {"source": "observation", "env_kwargs": {"observation": "vector"}},
            "source: expected obs",
        ),
        ({"crop": (0, 25, 0, 24)}, "crop: expected 0 <= top < bottom <= 24"),
        ({"size": (50, 50)}, r"size: expected .* divisible by 8, got \(50, 50\); such as \(48, 48"),
        ({"chunk": 0}, "chunk: expected a whole number from 1"),
        ({"max_frames": 1}, "max_frames: expected at least one chunk"),
        ({"episodes": -1}, "episodes: expected a whole number from 0"),
        ({"workers": 0}, "workers: expected at least 1"),
        ({"noise": 0.6}, "noise: expected a share"),
        ({"policy": 3}, "policy: expected a function"),
        ({"policy": "math:nothing"}, "policy: expected an importable"),
        ({"wrappers": ["math:nothing"]}, "wrappers: expected an importable"),
        ({"policy": lambda obs: 3}, "action: expected whole numbers from -1 to 2, got 3"),
        ({"policy": lambda obs: 0.5}, "action: expected whole numbers"),
        ({"policy": lambda obs: "left"}, "action: expected one of Discrete"),
        ({"policy": lambda obs: np.nan, "env_kwargs": {"action": "box"}}, "finite numbers"),
        ({"state": ["speed"]}, "state: expected vectors"),
    ],
)
def test_what_cannot_be_recorded_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    values = {"env": "Shows-v0", "out": tmp_path / "data", **FEW, **changes}
    with pytest.raises(WorldError, match=message):
        worldsim.collect(**values)
    assert not list(tmp_path.rglob("*.npz"))


def test_another_recording_is_not_mixed_in(tmp_path: Path) -> None:
    worldsim.collect("Shows-v0", out=tmp_path, **FEW)
    before = files(tmp_path)
    with pytest.raises(DatasetError, match="choose another folder"):
        worldsim.collect("Shows-v0", out=tmp_path, chunk=1, **FEW)
    assert files(tmp_path) == before
