"""`WorldSim-v0`: saving and restoring, where worlds come from, and what is refused."""

import copy
import json
import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from tests.contracts import assert_same
from tests.envs.test_gym_env import POINT, digest, make, run
from worldsim.core import WorldError
from worldsim.world.point import PointWorld

NOISY = PointWorld(noise=0.3, time_limit=7)

# --- Saving and restoring -------------------------------------------------------------------------


def test_a_saved_state_repeats_the_future_to_the_bit() -> None:
    env, other = make(NOISY), make(NOISY)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for t in range(7):  # some of these states lie at an episode's end
        try:
            env.step(env.action_space.sample())
        except ResetNeeded:
            env.reset()
        if rng.random() < 0.5:
            continue
        saved = env.get_state()
        if saved.episode.over:
            continue
        future = digest([run(env, 20, seed=t), env.np_random.random()])
        for where in (env, other):
            where.set_state(saved)
            assert digest([run(where, 20, seed=t), where.np_random.random()]) == future
        env.set_state(saved)


def test_a_restored_picture_is_the_saved_one() -> None:
    env = make(NOISY, render_mode="rgb_array")
    env.reset(seed=0)
    saved, seen = env.get_state(), env.render()
    env.step(np.ones(2, np.float32))
    assert digest(env.render()) != digest(seen)
    env.set_state(saved)
    assert digest(env.render()) == digest(seen)


def test_an_episodes_end_is_saved_too() -> None:
    env, other = make(NOISY, time_limit=1), make(NOISY, time_limit=1)
    env.reset(seed=0)
    env.step(env.noop)
    other.set_state(env.get_state())
    with pytest.raises(ResetNeeded):
        other.step(other.noop)
    assert digest(other.reset()) == digest(env.reset())


def test_a_saved_state_is_a_value() -> None:
    env = make(NOISY)
    env.reset(seed=0)
    saved = env.get_state()
    before = pickle.dumps(saved)
    run(env, 5)
    env.np_random.random()
    env.reset(seed=9)
    assert pickle.dumps(saved) == before
    again = pickle.loads(before)
    futures = []
    for state in (saved, again):
        env.set_state(state)
        futures.append(digest(run(env, 5)))
    assert futures[0] == futures[1]


@pytest.mark.parametrize(("world", "observation"), [(POINT, "latent"), (NOISY, "frame")])
@pytest.mark.parametrize("copied", [lambda e: pickle.loads(pickle.dumps(e)), copy.deepcopy])
def test_copies_go_on_alike(world: Any, copied: Callable, observation: str) -> None:
    env = make(world, observation=observation, render_mode="rgb_array", time_limit=6)
    env.reset(seed=0)
    run(env, 3)
    twin = copied(env)
    assert digest(env.render()) == digest(twin.render())
    assert digest(run(env, 20)) == digest(run(twin, 20))
    assert digest(env.reset(seed=1)) == digest(twin.reset(seed=1))
    assert twin.spec.make().reset(seed=2)[0].shape == env.observation_space.shape


# --- Where worlds come from -----------------------------------------------------------------------


def test_a_named_world_is_loaded_once() -> None:
    env = make()
    assert make(observation="latent").world is env.world
    assert pickle.loads(pickle.dumps(env)).world is env.world
    assert "world" not in env.core.__getstate__()


class Heavy(PointWorld):
    """A world that must not be copied."""

    def __deepcopy__(self, memo: dict) -> "Heavy":
        raise AssertionError("copied")


def test_a_world_given_as_an_object_is_never_copied() -> None:
    world = Heavy()
    wrapped = gymnasium.make("WorldSim-v0", world=world, max_episode_steps=3)
    for env in (wrapped, copy.deepcopy(wrapped.unwrapped), wrapped.spec.make(), make(world)):
        assert env.unwrapped.world is world
        assert env.spec.id == "WorldSim-v0" and env.reset(seed=0)
    gymnasium.utils.env_checker.check_env(make(world))


def test_a_spec_in_json_makes_the_same_environment(tmp_path: Path) -> None:
    env = make(observation="latent", time_limit=3)
    text = env.spec.to_json()
    assert json.loads(text)["kwargs"]["world"] == POINT
    again = gymnasium.make(gymnasium.envs.registration.EnvSpec.from_json(text))
    assert digest(env.reset(seed=0)) == digest(again.reset(seed=0))


def test_a_folder_is_loaded_once_and_anew_when_saved_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[tuple[str, str]] = []

    def load(name: str, device: str) -> PointWorld:
        loads.append((name, device))
        return PointWorld()

    monkeypatch.setattr("worldsim.store.folder.load", load)
    folder = tmp_path / "world"
    folder.mkdir()
    first = make(folder)
    assert make(folder).world is make(str(folder)).world is first.world
    assert loads == [(str(folder), "cpu")]
    folder.rename(tmp_path / "old")
    folder.mkdir()
    assert make(folder).world is not first.world and len(loads) == 2


class Sampled(PointWorld):
    def with_num_steps(self, steps: int) -> PointWorld:
        return replace(PointWorld(), thrust=float(steps))


def test_sampler_steps_go_to_the_world() -> None:
    env = make(Sampled(), num_steps=4)
    assert env.world.thrust == 4.0
    assert pickle.loads(pickle.dumps(env)).world.thrust == 4.0
    assert make(Sampled()).world.thrust == 0.1


# --- What is refused ------------------------------------------------------------------------------

FRAMES = np.zeros((4, 40, 40, 3), np.uint8)
FRAMES[:, 5, 5, 0] = 255
MOVES = np.zeros((2, 2), np.float32)


def clip(frames: Any = FRAMES, actions: Any = MOVES, **more: Any) -> Callable:
    return lambda env: env.reset(seed=7, options={"frames": frames, "actions": actions, **more})


def act(action: Any) -> Callable:
    return lambda env: env.step(action)


# Actions, clips and saved states of all shapes and kinds: tests/reliability/exact/mistakes.py.
CASES: dict[str, tuple[Callable, str]] = {
    "action NaN": (act([float("nan"), 0]), "action: expected finite .* diverged"),
    "action too far": (act([0, 1.0000001]), r"action: expected .* clip"),
    "options a list": (lambda e: e.reset(options=[1]), "options: expected a dict"),
    "options misspelt": (lambda e: e.reset(options={"frame": FRAMES}), r"got \['frame'\]"),
    "options with more": (clip(seed=3), r'expected "frames" and "actions" and .*, got \[.seed'),
    "actions alone": (lambda e: e.reset(options={"actions": MOVES}), "needs the clip"),
    "frames of another rate": (clip(fps=50), r"fps.*: expected 20, .* got 50; resample"),
    "frames of half a chunk": (clip(FRAMES[:3]), "multiple of 2 up to 8, got 3"),
    "frames too large": (clip(np.zeros((2, 96, 96, 3), np.uint8)), "frames: .* resize"),
    "frames foreign": (clip(np.zeros((2, 40, 40, 3), np.uint8), None), "without a red point"),
    "clip's actions out of range": (clip(actions=MOVES + 2), "options: action: .* clip"),
    "clip's actions per frame": (clip(actions=np.zeros((4, 2))), r"got \(4, 2\)"),
    "saved nothing": (lambda e: e.set_state(None), "saved: expected an EnvState"),
    "seed negative": (lambda e: e.reset(seed=-1), "Seed must be greater"),
    "seed a half": (lambda e: e.reset(seed=1.5), "Seed must be a python integer"),
}


def test_bad_input_is_named_and_changes_nothing() -> None:
    env, twin = make(NOISY), make(NOISY)
    for each in (env, twin):
        each.reset(seed=0)
        run(each, 3)
    before = env.get_state()
    for call, message in CASES.values():
        with pytest.raises((WorldError, gymnasium.error.Error), match=message):
            call(env)
        after = env.get_state()
        assert_same(before.episode.state, after.episode.state)
        assert replace(before.episode, state=after.episode.state) == after.episode
        assert before.rng == after.rng
    assert digest(run(env, 20)) == digest(run(twin, 20))


@pytest.mark.parametrize("call", [lambda e: e.reset(seed=5), lambda e: e.step(e.noop)])
def test_a_world_that_fails_leaves_the_environment_whole(call: Callable) -> None:
    """Out of memory while decoding, say: the same call may be tried again."""
    env, twin = make(NOISY), make(NOISY)
    for each in (env, twin):
        each.reset(seed=0)
        run(each, 2)
    env.core.world = Broken(noise=0.3, time_limit=7)
    with pytest.raises(MemoryError):
        call(env)
    env.core.world = NOISY
    assert digest([call(env), run(env, 20)]) == digest([call(twin), run(twin, 20)])


class Broken(PointWorld):
    def decode(self, state):
        raise MemoryError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"observation": "pixels"}, "observation: expected one of .*'frame'.* got 'pixels'"),
        ({"render_mode": "ascii"}, "render_mode: expected one of .* got 'ascii'"),
        ({"time_limit": 0}, "time_limit: expected None or a whole number from 1 up, got 0"),
        ({"time_limit": 2.5}, "time_limit: expected"),
        ({"time_limit": True}, "time_limit: expected"),
        ({"num_steps": 0}, "num_steps: expected None or a whole number from 1 to 128, got 0"),
        ({"num_steps": 1000}, "num_steps: expected None or a whole number from 1 to 128, got 1000"),
        ({"num_steps": 2}, "num_steps: point-world has no sampler to set"),
        ({"device": "gpu"}, "device: expected one of cpu.* got 'gpu'"),
        ({"device": "cuda:99"}, "device: expected one of cpu.* got 'cuda:99'"),
        ({"world": 3}, "world: expected a bundled name, a folder"),
        ({"world": None}, "world: expected a bundled name"),
        ({"world": PointWorld}, "world: expected a bundled name.* got type"),
        ({"world": "nowhere:PointWorld"}, "world: expected .*can be imported.*nowhere"),
        ({"world": "worldsim.world.point:Nothing"}, "world: expected .*can be imported.*Nothing"),
        ({"world": "worldsim.world.point:"}, "world: expected .*can be imported"),
        ({"world": "torch:Generator"}, "world: expected torch:Generator to return a world"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium warns of strange render modes
        with pytest.raises(WorldError, match=message):
            make(**{"world": POINT, **options})
