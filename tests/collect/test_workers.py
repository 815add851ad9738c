from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from worldsim.collect.policies import Behaviour, uniform
from worldsim.collect.recorder import CollectConfig, CollectError, record
from worldsim.collect.workers import collect
from worldsim.data import DatasetError, NativeDataset
from worldsim.data.native import save_episode
from worldsim.recipes.car_racing.drivers import car_racing_mix
from worldsim.recipes.car_racing.settings import car_racing, car_racing_panel
from worldsim.recipes.registry import main


class Counter(gymnasium.Env[np.ndarray, Any]):
    """Every pixel shows the number of steps; ends after `length`. It reuses its frame buffer."""

    metadata = {"render_fps": 20, "render_modes": ["rgb_array"]}
    observation_space = gymnasium.spaces.Box(0, 255, (6, 6, 3), np.uint8)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, length: int = 7, render_mode: str | None = None) -> None:
        self.length, self.render_mode = length, render_mode
        self.buffer = np.zeros((6, 6, 3), np.uint8)
        self.actions: list[np.ndarray] = []

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self.buffer[:] = 0
        return self.buffer, {}

    def step(self, action: Any):
        assert self.action_space.contains(action)
        self.buffer += 1
        count = int(self.buffer[0, 0, 0])
        return self.buffer, float(count), count == self.length, False, {}


gymnasium.register("Counter-v0", Counter, disable_env_checker=True)


def counter(folder: Path, **changes: Any) -> CollectConfig:
    values: dict = dict(
        env_id="Counter-v0", folder=folder, source="observation", size=(8, 8), workers=1,
        train=(0, 2), val=(1000, 1001), test=(5000, 5000),
    )  # fmt: skip
    return CollectConfig(**(values | changes))


def always(action: Any) -> tuple[Behaviour, ...]:
    return (Behaviour(name="always", make=lambda env, rng: lambda obs: action),)


def test_every_frame_of_a_chunk_is_kept_and_the_last_one_padded(tmp_path: Path):
    ep = record(counter(tmp_path), always([5.0, 0.5]), seed=0)
    np.testing.assert_array_equal(ep.frames[:, 0, 0, 0], [1, 2, 3, 4, 5, 6, 7, 7])
    np.testing.assert_array_equal(ep.rewards, [3, 7, 11, 7])
    np.testing.assert_array_equal(ep.actions, [[1.0, 0.5]] * 4)  # clipped to the Box
    assert (ep.terminated, ep.truncated, ep.chunk) == (True, False, 2)


def test_the_warm_up_is_dropped_and_long_episodes_are_cut(tmp_path: Path):
    config = counter(tmp_path, warmup=2, max_frames=5)
    ep = record(config, always(np.zeros(2)), seed=0)
    np.testing.assert_array_equal(ep.frames[:, 0, 0, 0], [3, 4, 5, 6])
    assert (ep.terminated, ep.truncated) == (False, True)
    with pytest.raises(CollectError, match="ended after 7; lower warmup"):
        record(replace(config, warmup=7), always(np.zeros(2)), seed=0)


def test_a_policy_sees_the_observation_and_acts_once_a_chunk(tmp_path: Path):
    seen = []
    watch = Behaviour(name="w", make=lambda env, rng: lambda obs: seen.append(obs[0, 0, 0]) or 0)
    record(counter(tmp_path, chunk=3), (watch,), seed=0)
    assert seen == [0, 3, 6]


def test_resuming_skips_what_is_whole_and_mends_what_is_not(tmp_path: Path):
    config = counter(tmp_path)
    collect(config, always(np.zeros(2)))
    kept, broken = sorted((tmp_path / "train").glob("*.npz"))
    untouched = kept.stat().st_mtime_ns, kept.stat().st_ino
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-9])
    (leftover := broken.with_name(f".{broken.name}.1.tmp")).write_bytes(b"half")

    collect(replace(config, train=(0, 3)), always(np.zeros(2)))

    assert (kept.stat().st_mtime_ns, kept.stat().st_ino) == untouched
    assert broken.read_bytes() == whole
    assert not leftover.exists()
    found = NativeDataset(tmp_path)
    assert [len(found.split(split)) for split in found.splits] == [3, 1]


def test_a_failing_policy_leaves_only_whole_episodes(tmp_path: Path):
    actions = [0.1] * 6  # 4 chunks an episode: used up inside the second
    short = Behaviour(name="short", make=lambda env, rng: lambda obs: actions.pop())
    with pytest.raises(IndexError) as error:
        collect(counter(tmp_path), (short,))
    assert error.value.__notes__ == ["while recording seed 1 of train"]
    files = sorted(path.name for path in (tmp_path / "train").iterdir())
    assert files == ["episode_000000.npz"]
    assert NativeDataset(tmp_path).episode(0).seed == 0


def test_another_recording_is_not_mixed_in(tmp_path: Path):
    collect(counter(tmp_path), always(np.zeros(2)))
    with pytest.raises(DatasetError, match="another dataset"):
        collect(counter(tmp_path, chunk=1), always(np.zeros(2)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": (0, 1001)}, "train: expected seeds"),
        ({"train": (-1, 5)}, "train: expected seeds"),
        ({"train": (1000, 1001)}, "train: expected seeds"),
        ({"val": (1000, 1051)}, "val: expected seeds"),
        ({"test": (10_000, 10_001)}, "test: seeds from 10000 up belong to nobody"),
        ({"chunk": 0}, "chunk: expected at least 1, got 0"),
        ({"max_frames": 1}, "max_frames: expected at least one chunk"),
    ],
)
def test_an_unfit_order_is_refused(tmp_path: Path, changes: dict, message: str):
    with pytest.raises(CollectError, match=message):
        counter(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env_id": "Nowhere-v0"}, "env_id: expected an environment"),
        ({"env_id": "no_such_module:Nowhere-v0"}, "env_id: expected an environment"),
        ({"env_id": "CartPole-v1"}, "source: expected observation frames"),
        ({"env_kwargs": {"length": {1}}}, "env_kwargs: expected values that JSON can hold"),
        ({"crop": (0, 7, 0, 6)}, None),
    ],
)
def test_a_world_that_cannot_be_recorded_is_refused(
    tmp_path: Path, changes: dict, message: str | None
):
    with pytest.raises(CollectError if message else ValueError, match=message or "crop: expected"):
        collect(counter(tmp_path, **changes), (Behaviour(name="u", make=uniform),))
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.parametrize("action", [np.nan, [1.0, np.inf]])
def test_an_action_that_is_no_number_is_refused(tmp_path: Path, action: Any):
    with pytest.raises(CollectError, match="action: expected finite numbers"):
        record(counter(tmp_path), always(action), seed=0)


def test_a_discrete_world_is_rendered_alike_by_two_workers_and_by_none(tmp_path: Path):
    orders = [
        CollectConfig(
            env_id="CartPole-v1", folder=tmp_path / str(workers), size=(8, 16), max_frames=8,
            train=(0, 2), val=(1000, 1001), test=(5000, 5001), workers=workers,
        )
        for workers in (1, 2)
    ]  # fmt: skip
    alone, together = [main(order) for order in orders]
    assert replace(alone.spec, name="") == replace(together.spec, name="")
    assert alone.spec.action.n == 2
    for split in ("train", "val", "test"):
        assert (
            alone.split(split).fingerprint() and alone.split(split).episode(0).frames[:].std() > 1
        )
    for i in range(len(alone)):
        assert alone.path(i).read_bytes() == together.path(i).read_bytes()


def test_car_racing_is_recorded_as_described(tmp_path: Path):
    pytest.importorskip("Box2D")
    config = replace(car_racing(tmp_path), max_frames=40)
    expert = car_racing_mix()[:1]
    one, again = record(config, expert, seed=3), record(config, expert, seed=3)
    assert one.frames.shape == (40, 56, 64, 3)
    for episode, name in ((one, "a"), (again, "b")):
        save_episode(tmp_path / name, episode)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert one.rewards.sum() > 10  # the expert drives: each new tile of the road pays about 3
    assert one.frames[:, -3:].mean() > 60  # the black bar with the score is gone
    car = one.frames[:, 44:52, 29:35].astype(int)
    assert (car[..., 0] - car[..., 1]).max() > 80  # red, at the bottom centre


def test_the_panel_tells_the_speed(tmp_path: Path):
    """Same picture above, and a white bar that grows: a car that stands has none."""
    pytest.importorskip("Box2D")
    expert, recipes = car_racing_mix()[:1], (car_racing_panel, car_racing)
    whole, field = (
        record(replace(recipe(tmp_path), max_frames=120), expert, seed=3) for recipe in recipes
    )
    assert whole.frames.shape == (120, 64, 64, 3)
    np.testing.assert_array_equal(whole.frames[:, :56], field.frames)
    bar = whole.frames[:, 56:, 8:10].astype(int).sum((1, 2, 3))
    assert bar[-1] > 2 * bar[30] > 2 * bar[0]


def test_the_expert_finishes_a_track_with_hairpins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("Box2D")
    from gymnasium.envs.box2d.car_racing import CarRacing

    # drawing is most of the cost, and this driver does not look
    monkeypatch.setattr(CarRacing, "_render", lambda *args: np.zeros((96, 96, 3), np.uint8))
    ep = record(car_racing(tmp_path), car_racing_mix()[:1], seed=6)
    assert ep.terminated
    assert ep.rewards.sum() > 880
