"""What a user may rely on who says in words what a world shows."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from tensordict import NonTensorStack, TensorDict

from tests.contracts import assert_same
from tests.worlds import CAR, tiny_world
from worldsim.core import WorldError
from worldsim.envs import EnvState, WorldSimEnv, WorldSimTorchRL, WorldSimVectorEnv
from worldsim.store.snapshot import load_state, save_state

WORLD = tiny_world(CAR, text=True)
ACTION = np.zeros(3, np.float32)


def make(**options: Any) -> WorldSimEnv:
    env = gymnasium.make("WorldSim-v0", world=WORLD, observation="latent", **options)
    assert isinstance(env, WorldSimEnv)
    return env


def make_vec(count: int, **options: Any) -> WorldSimVectorEnv:
    env = gymnasium.make_vec(
        "WorldSim-v0", count, world=WORLD, observation="latent", time_limit=3, **options
    )
    assert isinstance(env, WorldSimVectorEnv)
    return env


def dream(env: WorldSimEnv, steps: int = 2) -> np.ndarray:
    return np.stack([env.step(ACTION)[0] for _ in range(steps)])


def test_a_prompt_changes_what_comes_and_nothing_said_is_as_without() -> None:
    env, told = make(), make(text="night")
    env.reset(seed=1)
    told.reset(seed=1)
    silent, night = dream(env), dream(told)
    assert np.abs(silent - night).max() > 1e-4
    told.reset(seed=1, options={"text": "night in the rain", "guidance": 3})
    assert np.abs(dream(told) - night).max() > 1e-4
    told.reset(seed=1)  # options hold for one episode
    assert np.array_equal(dream(told), night)
    told.reset(seed=1)
    told.say(None)
    assert np.array_equal(dream(told), silent)


def test_what_is_said_in_mid_episode_holds_from_the_next_step_and_is_saved(tmp_path: Any) -> None:
    env, other = make(), make()
    for each in (env, other):
        each.reset(seed=1)
        each.step(ACTION)
    env.say("it begins to rain", guidance=2.0)
    saved = env.get_state()
    save_state(tmp_path / "s", saved, env.world)
    rain = dream(env)
    assert np.abs(rain - dream(other)).max() > 1e-4
    other.set_state(load_state(tmp_path / "s", EnvState, env.world))
    assert_same(other.get_state().episode.state, saved.episode.state)
    assert np.array_equal(dream(other), rain)


def test_rows_have_prompts_of_their_own_or_draw_them_for_each_episode() -> None:
    each = make_vec(3, text=["day", "night", "fog"])
    each.reset(seed=5)
    tokens = WORLD.prompt(["day", "night", "fog"])
    for _ in range(7):  # past two ends of episodes
        assert torch.equal(each.get_state().state.text, tokens)
        each.step(np.zeros((3, 3), np.float32))
    each.say("snow", rows=np.array([False, True, False]))
    held = each.get_state().state.text
    assert torch.equal(held[1:2], WORLD.prompt("snow")) and torch.equal(held[::2], tokens[::2])

    drawn, again = (make_vec(8, text=["day", "night", "fog"], draw_text=True) for _ in range(2))
    drawn.reset(seed=5)
    first = drawn.get_state().state.text
    assert len(first.unique(dim=0)) > 1
    for _ in range(3):
        drawn.step(np.zeros((8, 3), np.float32))
    assert not torch.equal(drawn.get_state().state.text, first)
    again.reset(seed=5)
    assert torch.equal(again.get_state().state.text, first)
    alone = make(text=["day", "night", "fog"])
    alone.reset(seed=5 + 2)  # row 2 lives the life of that seed
    assert torch.equal(alone.get_state().episode.state.text[0], first[2])


def test_torchrl_carries_prompts_in_the_tensordict() -> None:
    env = WorldSimTorchRL(WORLD, text="day")
    two = env.reset(TensorDict({}, [2]))
    assert torch.equal(two["world", "text"], WORLD.prompt(["day", "day"]))
    texts = NonTensorStack("night", "fog")
    two = env.reset(TensorDict({"text": texts}, [2]))
    assert torch.equal(two["world", "text"], WORLD.prompt(["night", "fog"]))
    said = env.say(two, ["night", "snow"])
    assert torch.equal(said["world", "text"], WORLD.prompt(["night", "snow"]))
    action = torch.zeros(2, 3)
    a, b = (env.step(td.clone().set("action", action))["next"] for td in (two, said))
    assert torch.equal(a["observation"][0], b["observation"][0])
    assert (a["observation"][1] - b["observation"][1]).abs().max() > 1e-4
    assert torch.equal(b["world", "text"], said["world", "text"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"text": ""}, "text: expected words, got ''"),
        ({"text": "дорога"}, "in Latin letters"),
        ({"text": 3}, "text: expected a string or some, got 3"),
        ({"text": []}, "text: expected a string or some"),
        ({"text": "night", "guidance": 0.5}, "guidance: expected 1 to 20, got 0.5"),
        ({"text": "night", "guidance": float("nan")}, "guidance: expected 1 to 20"),
    ],
)
def test_what_is_no_prompt_is_refused_at_every_door(options: dict, expected: str) -> None:
    with pytest.raises(WorldError, match=expected):
        make(**options)
    env = make()
    env.reset(seed=1)
    with pytest.raises(WorldError, match=expected):
        env.reset(options=options)
    with pytest.raises(WorldError, match=expected):
        env.say(**options)
    env.step(ACTION)  # the episode stands as it was
    with pytest.raises(WorldError, match="expected one string, or one for each of 2, got 3"):
        make_vec(2, text=["a", "b", "c"])
    with pytest.raises(WorldError, match="text: expected None, as point-world takes no words"):
        gymnasium.make("WorldSim-v0", world="worldsim.world.point:PointWorld", text="night")
    with pytest.raises(WorldError, match="text: expected None, as tiny was trained without words"):
        gymnasium.make("WorldSim-v0", world=tiny_world(), text="night")
