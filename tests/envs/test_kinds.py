"""Every kind of action through every environment: checkers, learners, keys."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from torchrl.envs.utils import check_env_specs

from tests.kinds import KINDS, kind_world
from worldsim.core import ActionSpec, WorldError
from worldsim.envs import WorldSimEnv, WorldSimTorchRL, WorldSimVectorEnv
from worldsim.envs.keyboard import keys_to_action, neutral_action

CAR = ActionSpec(kind="continuous", low=(-1.0, 0.0, 0.0), high=(1.0, 1.0, 1.0))


@pytest.mark.filterwarnings("error", "ignore:.*symmetric and normalized")
@pytest.mark.parametrize(
    ("kind", "actions"), [*((kind, "normalized") for kind in KINDS), ("continuous", "native")]
)
def test_gymnasiums_checker(kind: str, actions: Any) -> None:
    world = kind_world(kind)
    env = gymnasium.make("WorldSim-v0", world=world, actions=actions)
    check_env(env.unwrapped)
    native = env.action_space == world.spec.action_space
    assert native == (actions == "native" or kind in ("multi_discrete", "multi_binary", "none"))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_vector_do_what_single_environments_do(kind: str) -> None:
    world: Any = kind_world(kind, time_limit=4)
    many, one = WorldSimVectorEnv(2, world), WorldSimEnv(world)
    many.action_space.seed(0)
    assert np.array_equal(many.reset(seed=[3, 4])[0][0], one.reset(seed=3)[0])
    for _ in range(3):
        actions = many.action_space.sample()
        rows, single = many.step(actions), one.step(actions[0])
        assert np.array_equal(rows[0][0], single[0]) and rows[1][0] == pytest.approx(single[1])
    assert many.step(many.action_space.sample())[3].all()


@pytest.mark.filterwarnings("error:.*:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_torchrls_checker(kind: str) -> None:
    """In a process whose default dtype is not the world's."""
    world: Any = kind_world(kind)
    torch.set_default_dtype(torch.float64)
    try:
        env = WorldSimTorchRL(world, (2,), time_limit=3)
        check_env_specs(env, seed=0)
        td = env.rand_step(env.reset())
    finally:
        torch.set_default_dtype(torch.float32)
    own = td["next", "world", "actions"][:, -1]
    assert torch.equal(own, world.spec.action.from_normalized(td["action"]))
    world.spec.action.check(own, (2,))


@pytest.mark.parametrize("kind", KINDS)
def test_stable_baselines_ppo_unchanged(kind: str) -> None:
    ppo = pytest.importorskip("stable_baselines3").PPO
    env = gymnasium.make("WorldSim-v0", world=kind_world(kind, time_limit=8), observation="latent")
    agent = ppo("MlpPolicy", env, n_steps=16, batch_size=16, n_epochs=1, device="cpu", seed=0)
    agent.learn(32)
    action, _ = agent.predict(env.reset(seed=0)[0])
    env.step(action)


# --- Keys -----------------------------------------------------------------------------------------


def test_keys_drive_a_car() -> None:
    keys = {held: action.tolist() for held, action in keys_to_action(CAR).items()}
    assert len(keys) == 16
    expected = {
        "": [0, 0, 0], "a": [-1, 0, 0], "d": [1, 0, 0], "w": [0, 1, 0], "s": [0, 0, 1],
        "dw": [1, 1, 0], "da": [0, 0, 0], "ws": [0, 1, 1],
    }  # fmt: skip
    assert {held: keys[held] for held in expected} == expected


@pytest.mark.parametrize("kind", KINDS)
def test_every_combination_of_keys_is_an_action(kind: str) -> None:
    world = kind_world(kind)
    keys = keys_to_action(KINDS[kind])
    assert len(keys) == {"multi_discrete": 64, "multi_binary": 8, "none": 1}.get(kind, len(keys))
    env = WorldSimEnv(world)  # type: ignore[arg-type]
    for action in (*env.get_keys_to_action().values(), env.noop):
        assert env.action_space.contains(action)
    for action in (*keys.values(), neutral_action(KINDS[kind])):
        KINDS[kind].check(action)


def test_choices_have_a_key_each() -> None:
    assert {k: v for k, v in keys_to_action(KINDS["discrete"]).items() if len(k) < 2} == {
        "": 3, "0": 3, "1": 4, "2": 5, "3": 6,
    }  # fmt: skip
    several = keys_to_action(KINDS["multi_discrete"])
    assert several["2"].tolist() == [2, 0] and several["16"].tolist() == [1, 4]


@pytest.mark.parametrize(
    "spec",
    [
        ActionSpec(kind="discrete", n=37),
        ActionSpec(kind="continuous", low=(-1.0,) * 6, high=(1.0,) * 6),
    ],
)
def test_too_many_keys_are_refused(spec: ActionSpec) -> None:
    with pytest.raises(WorldError, match="keys: expected at most 36 choices or 5 axes"):
        keys_to_action(spec)
