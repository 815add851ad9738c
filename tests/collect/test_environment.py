"""The real environment as its world shows it."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from tests.collect.fakes import ACTIONS, Shows
from worldsim.collect.environment import RecordedEnv, make_environment
from worldsim.collect.errors import CollectError
from worldsim.core import EnvironmentSpec, WorldError

SPEC = EnvironmentSpec(id="Shows-v0", size=(8, 8), source="observation")


def shows(action: str = "discrete", **changes: Any) -> RecordedEnv:
    options = {k: changes.pop(k) for k in ("observation", "actions") if k in changes}
    return make_environment(replace(SPEC, kwargs={"action": action}, **changes), **options)


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_a_step_shows_the_frames_that_its_action_led_to(chunk: int) -> None:
    env = shows(chunk=chunk, observation="chunk", actions="native")
    first, _ = env.reset(seed=0)
    assert (first[:, 0] == 0).all() and env.observation_space.contains(first)
    for step, action in enumerate((2, -1, 0)):
        seen, reward, terminated, truncated, info = env.step(action)
        counts = np.minimum(np.arange(1, chunk + 1) + step * chunk, 7)
        np.testing.assert_array_equal(seen[:, 0, 0, 0], counts)
        assert (seen[:, -1] == 100 + action).all()
        assert reward == np.unique(counts).sum() and info["n"] == counts[-1]
        assert (terminated, truncated) == (bool(counts[-1] == 7), False)
        if terminated:
            break


@pytest.mark.parametrize("kind", [k for k in ACTIONS if k != "unbounded"])
@pytest.mark.parametrize("actions", ["native", "normalized"])
def test_every_space_is_taken_as_a_world_has_it(kind: str, actions: str) -> None:
    env = shows(kind, actions=actions, chunk=1)
    env.action_space.seed(0)
    env.reset(seed=0)
    for _ in range(5):
        env.step(env.action_space.sample())
    if isinstance(env.action_space, gymnasium.spaces.Box):
        env.reset()
        for edge in (env.action_space.low, env.action_space.high):
            env.step(edge)
        own, taken = env.env.action_space, env.unwrapped.taken  # type: ignore[attr-defined]
        np.testing.assert_array_equal(taken[0], own.low)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(taken[1], own.high)  # type: ignore[attr-defined]


def test_spaces_are_flat_and_normalized() -> None:
    env = shows("box")
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (4,), np.float32)
    env.reset(seed=0)
    env.step(np.array([-1, 1, 0, 0.5], np.float32))
    np.testing.assert_allclose(env.unwrapped.taken[0], [[-2, 6], [2, 4]])  # type: ignore[attr-defined]
    with pytest.raises(WorldError, match="action: expected finite values"):
        env.step(np.full(4, 2, np.float32))
    with pytest.raises(WorldError, match="action space: expected a bounded Box"):
        shows("unbounded")


def test_warm_up_and_time_limit() -> None:
    env = shows(warmup=2, max_frames=5)
    frame, _ = env.reset(seed=0)
    assert frame.shape == (8, 8, 3) and frame[0, 0, 0] == 2
    assert [env.step(0)[3] for _ in range(2)] == [False, True]
    with pytest.raises(CollectError, match="it ended after 7; lower warmup"):
        shows(warmup=7).reset()


def test_parts_of_a_dict_observation() -> None:
    spec = replace(SPEC, kwargs={"observation": "dict"}, image="camera", state=("joints", "lit"))
    env = make_environment(spec)
    env.reset(seed=0)
    _, _, _, _, info = env.step(0)
    np.testing.assert_array_equal(info["state"], np.array([2, -2, 0], np.float32))
    assert env.state_names == ("joints[0]", "joints[1]", "lit") and env.texts == ("count",)
    with pytest.raises(CollectError, match="state: expected vectors"):
        make_environment(replace(spec, state=("map",)))


def test_pictures_that_are_rendered_cropped_grey_or_missing() -> None:
    env = shows(source="render", crop=(10, 14, 0, 8), size=(4, 8), actions="native")
    env.reset(seed=0)
    frame, *_ = env.step(1)
    np.testing.assert_array_equal(frame[:, 0, 0], [2, 2, 101, 101])
    grey = make_environment(replace(SPEC, kwargs={"observation": "grey"}))
    assert grey.reset(seed=0)[0].shape == (8, 8, 3)
    with pytest.raises(CollectError, match="source: expected observation frames"):
        make_environment(replace(SPEC, kwargs={"observation": "vector"})).reset()
    with pytest.raises(CollectError, match="crop: expected 0 <= top < bottom <= 24"):
        shows(crop=(0, 25, 0, 8)).reset()


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "payload:X-v0"},
        {"id": "payload:make"},
        {"wrappers": ("payload:wrap",)},
        {"id": "WorldSim-v0", "kwargs": {"world": "payload:make"}},
        {"kwargs": {"deep": [{"env_id": "payload:X-v0"}]}},
        {"kwargs": {"opponent": "payload.Policy"}},
        {"kwargs": {"payload:X": 1}},
        {"kwargs": {"xml_file": "payload/scene.xml"}},
        {"kwargs": {"env_id": "\u03c0ayload:X-v0"}},
    ],
)
def test_nothing_in_a_file_is_imported_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    (tmp_path / "payload.py").write_text("raise SystemExit('executed')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CollectError, match="trust_code=True"):
        make_environment(replace(SPEC, **changes))
    assert "payload" not in sys.modules


def test_code_that_is_trusted_is_imported() -> None:
    spec = replace(SPEC, id="tests.collect.fakes:make", kwargs={"length": 3})
    env = make_environment(
        replace(spec, wrappers=("tests.collect.fakes:brighter",)), trust_code=True
    )
    assert isinstance(env.unwrapped, Shows)
    assert env.reset(seed=0)[0][0, 0, 0] == 1


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("Nowhere-v0", "install its package"),
        ("MiniWorld-OneRoom-v0", "pip install miniworld"),
        ("no_such_module:Nowhere-v0", "no_such_module"),
        ("math:nothing", "importable 'module:function'"),
    ],
)
def test_what_is_missing_is_named(id: str, message: str) -> None:
    with pytest.raises(CollectError, match=message):
        make_environment(replace(SPEC, id=id), trust_code=True)


def test_ids_of_well_known_families_need_no_module() -> None:
    pytest.importorskip("minigrid")
    env = make_environment(replace(SPEC, id="MiniGrid-Empty-5x5-v0", source="render"))
    assert env.reset(seed=0)[0].shape == (8, 8, 3)


@pytest.mark.nightly
def test_a_process_that_draws_an_environment_can_be_ended():
    """SDL, which draws it, takes SIGTERM for itself unless it is told not to."""
    code = (
        "import os, signal, time; from worldsim.collect.environment import make_named\n"
        "env = make_named('Pendulum-v1', {'render_mode': 'rgb_array'}); env.reset(); env.render()\n"
        "os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.5)"
    )
    plain = {k: v for k, v in os.environ.items() if k != "SDL_NO_SIGNAL_HANDLERS"}
    ended = subprocess.run([sys.executable, "-c", code], env=plain, timeout=300)
    assert ended.returncode == -signal.SIGTERM
