"""Who acts: the mix, and policies of other libraries."""

from collections import Counter
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
import pytest
import torch
from tensordict.nn import TensorDictModule
from torch import nn

import worldsim
from tests.collect.fakes import ACTIONS, Shows
from worldsim.collect import CollectError, CollectPolicy, RecordedEnv
from worldsim.collect.policies import as_policies, choose, mixed, random_policy
from worldsim.core import EnvironmentSpec

SPEC = EnvironmentSpec(id="", size=(24, 24), source="observation", chunk=1)


def shows(action: str = "discrete", **keywords: Any) -> RecordedEnv:
    return RecordedEnv(Shows(action, **keywords), SPEC, actions="native")


@pytest.mark.parametrize("first", [0, 80, 5000])
@pytest.mark.parametrize("count", [20, 100])
def test_any_run_of_numbers_holds_the_shares(first: int, count: int) -> None:
    mix = mixed("drive", random_policy, 0.25)
    counts = Counter(choose(mix, index).name for index in range(first, first + count))
    assert set(counts) == {"drive", "drive+random", "random"}
    for policy in mix:
        assert abs(counts[policy.name] - policy.share * count) <= 2


@pytest.mark.parametrize("kind", [k for k in ACTIONS if k != "unbounded"])
def test_random_actions_hold_and_cover_the_space(kind: str) -> None:
    env = shows(kind)
    holds, drawn = [], []
    for seed in range(20):
        policy = random_policy(env, np.random.default_rng(seed))
        actions = np.stack([env.to_native(policy(None)) for _ in range(200)])
        holds.append(200 / (1 + (actions[1:] != actions[:-1]).reshape(199, -1).any(1).sum()))
        drawn.append(actions)
    assert min(holds) < 2.5 and 4 < max(holds) < 40
    values, own = np.concatenate(drawn), ACTIONS[kind]
    low, high = values.reshape(4000, -1).min(0), values.reshape(4000, -1).max(0)
    if isinstance(own, gymnasium.spaces.Box):
        np.testing.assert_allclose([low, high], [own.low.ravel(), own.high.ravel()], rtol=1e-6)
    else:
        assert all(own.contains(np.asarray(v, own.dtype)) for v in (values[0], values[-1]))
        assert low.max() <= 0 and high.min() >= 1


def test_a_policy_is_interrupted_for_a_part_of_the_time() -> None:
    env, (_, disturbed, _) = shows(), mixed("still", lambda env, rng: lambda obs: 2, 0.25)
    shares = []
    for seed in range(40):
        act = disturbed.make(env, np.random.default_rng(seed))
        shares.append(np.mean([act(None) != 2 for _ in range(500)]))
    assert 0.15 < np.mean(shares) < 0.4 and min(shares) < 0.12 and max(shares) > 0.35


def test_what_is_no_policy_is_refused() -> None:
    for wrong in (3, [], [3], "math"):
        with pytest.raises(CollectError, match="policy: expected"):
            as_policies(wrong, 0.0)
    with pytest.raises(CollectError, match="share: expected"):
        CollectPolicy(name="never", make=random_policy, share=0.0)
    assert as_policies("math:sqrt", 0.0)[0].make(shows(), np.random.default_rng())(4) == 2


def test_stable_baselines3_acts_in_its_own_environment(tmp_path: Path) -> None:
    from stable_baselines3 import PPO

    class Plain(gymnasium.Wrapper[Any, Any, Any, Any]):  # its Discrete must begin at 0
        def __init__(self, env: Any) -> None:
            super().__init__(env)
            self.action_space = gymnasium.spaces.Discrete(4)

        def step(self, action: Any) -> Any:
            return self.env.step(int(action) - 1)

    def plain(render_mode: str | None = None) -> Any:
        return Plain(Shows(observation="vector", render_mode=render_mode))

    model = PPO("MlpPolicy", plain(), n_steps=8, batch_size=8, device="cpu", seed=0)
    few: dict[str, Any] = {"episodes": 2, "val": 0, "test": 0, "size": (8, 8), "noise": 0.0}
    one = worldsim.collect(plain, policy=model, out=tmp_path / "a", **few)
    sent = cloudpickle.loads(cloudpickle.dumps(as_policies(model, 0.0)))  # as workers get it
    two = worldsim.collect(plain, policy=sent, out=tmp_path / "b", **few)
    assert one.episode(1).policy == "PPO"
    np.testing.assert_array_equal(one.episode(1).actions, two.episode(1).actions)


def test_stable_baselines3_trained_in_a_world_sees_frames_and_acts_normalized() -> None:
    class Model:
        observation_space = gymnasium.spaces.Box(0, 255, (3, 24, 24), np.uint8)
        seen: Any = None

        def predict(self, obs: Any, state: Any, episode_start: Any) -> Any:
            self.seen = obs
            return np.array([-1, 1, 0, 0.5], np.float32), state

    env, model = shows("box", observation="vector", render_mode="rgb_array"), Model()
    env.recording = EnvironmentSpec(id="", size=(24, 24), source="render")
    env.reset(seed=0)
    [policy] = as_policies(model, 0.0)
    action = policy.make(env, np.random.default_rng(0))(env.observed)
    np.testing.assert_allclose(action, [-2, 6, 2, 4])
    assert model.seen is env.frames[-1] or np.array_equal(model.seen, env.frames[-1])


def test_torchrl_actors_act() -> None:
    scores = nn.Linear(2, 4)
    nn.init.zeros_(scores.weight)
    scores.bias.data = torch.tensor([0.0, 0, 9, 0])

    def one_hot(x: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(scores(x).argmax(-1), 4)

    actor = TensorDictModule(one_hot, in_keys=["observation"], out_keys=["action"])
    env = shows(observation="vector", render_mode="rgb_array")
    env.recording = EnvironmentSpec(id="", size=(24, 24), source="render")
    env.reset(seed=0)
    [policy] = as_policies(actor, 0.0)
    assert env.to_native(policy.make(env, np.random.default_rng(0))(env.observed)) == 1

    def bright(pixels: torch.Tensor) -> torch.Tensor:
        assert pixels.shape == (24, 24, 3) and pixels.dtype == torch.uint8
        return torch.tensor([1.0, 2, 3, 4])

    [seeing] = as_policies(TensorDictModule(bright, ["pixels"], ["action"]), 0.0)
    box = shows("box")
    box.reset(seed=0)
    np.testing.assert_array_equal(
        seeing.make(box, np.random.default_rng(0))(box.observed), [1, 2, 3, 4]
    )
    [mute] = as_policies(TensorDictModule(bright, ["pixels"], ["other"]), 0.0)
    with pytest.raises(CollectError, match='expected a module that writes "action"'):
        mute.make(box, np.random.default_rng(0))(box.observed)
