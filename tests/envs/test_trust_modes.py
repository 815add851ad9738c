"""Report, penalise, truncate: the same through every face."""

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torchrl.envs.utils import check_env_specs

import worldsim  # noqa: F401  registers WorldSim-v0
from worldsim.core import WorldError
from worldsim.envs import REASONS, WorldSimEnv, WorldSimTorchRL, WorldSimVectorEnv
from worldsim.world.point import PointWorld

PUSH = np.array([0.5, -0.5], np.float32)


class Fading(PointWorld):
    """Loses a fifth of its trust every step."""

    def step(self, state, action, *, generator=None):
        state, said = super().step(state, action, generator=generator)
        return state, replace(said, trust=1 - state.age / 5)


def single(**options: Any) -> list[tuple[float, bool, bool, dict[str, Any]]]:
    env = WorldSimEnv(Fading(), **options)
    env.reset(seed=3)
    told = []
    while len(told) < 5 and not (told and (told[-1][1] or told[-1][2])):
        told.append(env.step(PUSH)[1:])
    return told


def test_reporting_changes_nothing() -> None:
    told = single()
    assert [round(info["trust"], 6) for *_, info in told] == [0.8, 0.6, 0.4, 0.2, 0.0]
    assert not any(x[2] for x in told) and not any("raw_reward" in x[3] for x in told)


def test_a_penalty_grows_as_trust_falls_and_keeps_the_raw_reward() -> None:
    plain = [x[0] for x in single()]
    told = single(trust="penalise", trust_threshold=0.5, trust_penalty=2.0)
    assert [x[3]["raw_reward"] for x in told] == plain
    lost = [x[3]["raw_reward"] - x[0] for x in told]
    assert lost == pytest.approx([0, 0, 2 * 0.2, 2 * 0.6, 2 * 1.0], abs=1e-6)


def test_a_dream_that_is_not_trusted_is_truncated_and_never_terminated() -> None:
    told = single(trust="truncate", trust_threshold=0.5)
    assert [(x[1], x[2]) for x in told] == [(False, False), (False, False), (False, True)]
    assert told[-1][3]["reason"] == "untrusted" and "reason" not in told[0][3]


def test_rows_of_a_vector_do_the_same() -> None:
    venv = WorldSimVectorEnv(2, Fading(), trust="truncate", trust_threshold=0.5)
    venv.reset(seed=3)
    for step in range(3):
        _, _, terminated, truncated, info = venv.step(np.stack([PUSH, PUSH]))
        assert not terminated.any() and truncated.all() == (step == 2)
    assert [REASONS[i] for i in info["final_info"]["reason"]] == ["untrusted"] * 2
    venv = WorldSimVectorEnv(2, Fading(), trust="penalise", trust_penalty=2.0)
    venv.reset(seed=3)
    expected = single(trust="penalise", trust_penalty=2.0)
    for reward, _, _, alone in expected:
        _, rewards, _, _, info = venv.step(np.stack([PUSH, PUSH]))
        assert rewards[0] == pytest.approx(reward)
        assert info["raw_reward"][0] == pytest.approx(alone["raw_reward"])


def test_torchrl_does_the_same() -> None:
    for mode in ("report", "penalise", "truncate"):
        check_env_specs(WorldSimTorchRL(Fading(), (2,), trust=mode), seed=0)
    env = WorldSimTorchRL(Fading(), (2,), trust="truncate", trust_threshold=0.5)
    dream = env.rollout(9, break_when_any_done=True)
    assert dream.shape[-1] == 3 and dream["next", "truncated"][:, -1].all()
    assert not dream["next", "terminated"].any()
    torch.testing.assert_close(dream["next", "trust"][0, :, 0], torch.tensor([0.8, 0.6, 0.4]))
    env = WorldSimTorchRL(Fading(), (2,), trust="penalise", trust_penalty=2.0, trust_threshold=0.5)
    dream = env.rollout(4)["next"]
    lost = (dream["raw_reward"] - dream["reward"])[0, :, 0]
    torch.testing.assert_close(lost, torch.tensor([0.0, 0.0, 0.4, 1.2]))


@pytest.mark.parametrize(
    ("name", "value"),
    [("trust", "hope"), ("trust_threshold", 0.0), ("trust_threshold", float("nan")),
     ("trust_penalty", -1.0), ("trust_penalty", float("inf"))],
)  # fmt: skip
def test_bad_settings_are_named(name: str, value: Any) -> None:
    with pytest.raises(WorldError, match=f"^{name}: expected"):
        WorldSimEnv(Fading(), **{name: value})


def test_gymnasium_makes_it() -> None:
    env = gymnasium.make("WorldSim-v0", world="worldsim.world.point:PointWorld", trust="truncate")
    env.reset(seed=0)
    assert env.step(env.action_space.sample())[4]["trust"] == 1.0
