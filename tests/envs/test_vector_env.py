"""Every row of the vector environment lives the life of a single one."""

import copy
import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from tests.envs.oracle import Oracle
from tests.worlds import BUTTONS, tiny_world
from worldsim.envs import WorldSimEnv, WorldSimVectorEnv
from worldsim.world.point import PointWorld

ROWS = 5
MODES = list(AutoresetMode)
SHORT: Any = PointWorld(size=16, noise=0.3, thrust=0.4, arena=1.0, time_limit=6)  # ends both ways


class Unread(WorldSimVectorEnv):
    """Acts on ends without looking at them, as on an accelerator."""

    _looks = False  # type: ignore[assignment]


def make(rows: int = ROWS, world: Any = SHORT, **options: Any) -> WorldSimVectorEnv:
    env = gymnasium.make_vec("WorldSim-v0", rows, world=world, **options)
    assert isinstance(env, WorldSimVectorEnv)
    return env


def moves(world: Any, rows: int, seed: int = 0) -> np.ndarray:
    space = world.spec.action.normalized().space(seed=seed)
    return np.stack([space.sample() for _ in range(rows)])


def same(a: Any, b: Any) -> None:
    """Nested results of the same kinds and values; tensors and arrays alike."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        a, b = list(a.values()), [b[key] for key in a]
    if isinstance(a, list | tuple):
        for x, y in zip(a, b, strict=True):
            same(x, y)
    else:
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


# --- Against single environments ------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_random_programs(mode: AutoresetMode) -> None:
    """Steps, resets of some rows, with and without seeds, against a loop over single ones."""
    rng = np.random.default_rng(MODES.index(mode))
    options: dict[str, Any] = {"world": SHORT, "observation": "latent"}
    env, oracle = Unread(ROWS, autoreset_mode=mode, **options), Oracle(mode, ROWS, **options)
    seeds: list[int | None] = [7, 7, 8, 9, 10]
    same(env.reset(seed=seeds)[0], oracle.reset(seeds))
    ends = 0
    for t in range(60):
        chosen = rng.random(ROWS) < 0.3
        if mode is AutoresetMode.DISABLED:
            chosen = (chosen & (rng.random() < 0.1)) | oracle.over
        elif rng.random() < 0.9:
            chosen[:] = False
        if chosen.any():
            seeds = [int(s) if s < 50 else None for s in rng.integers(100, size=ROWS)]
            obs, info = env.reset(seed=seeds, options={"reset_mask": chosen})
            same(obs, oracle.reset(seeds, chosen))
            same((info["steps"], info["_steps"]), (np.zeros(ROWS), chosen))
        action = moves(SHORT, ROWS, t)
        (*results, steps), final = oracle.step(action)
        *mine, info = env.step(action)
        same(mine, results)
        same(info["steps"], steps)
        for row, (last, told) in final.items():
            same(info["final_obs"][row], last)
            same({k: info["final_info"][k][row] for k in told}, told)
        if final or "final_obs" in info:
            same(info["_final_obs"].nonzero()[0], sorted(final))
        ends += sum(results[2] | results[3])
    assert ends > 15


@pytest.mark.parametrize("mode", MODES)
def test_gymnasiums_own_vector_environment_says_the_same(mode: AutoresetMode) -> None:
    """Info as well, key by key."""
    options: dict[str, Any] = {"world": SHORT, "observation": "chunk"}
    theirs = SyncVectorEnv([lambda: WorldSimEnv(**options)] * ROWS, autoreset_mode=mode)
    mine = make(autoreset_mode=mode, output="numpy", **options)
    assert mine.observation_space == theirs.observation_space
    assert mine.action_space == theirs.action_space
    same(mine.reset(seed=3), theirs.reset(seed=3))
    for t in range(30):
        action = moves(SHORT, ROWS, t)
        (*a, info), (*b, told) = mine.step(action), theirs.step(action)
        same(a, b)
        objects = told.pop("final_obs", None), info.pop("final_obs", None)
        same(info, told)
        if objects[0] is not None:
            for row in told["_final_obs"].nonzero()[0]:
                same(objects[1][row], objects[0][row])
        over = a[2] | a[3]
        if mode is AutoresetMode.DISABLED and over.any():
            same(*(e.reset(options={"reset_mask": over.copy()}) for e in (mine, theirs)))


@pytest.mark.parametrize("discrete", [False, True])
def test_one_row_of_a_network_is_a_single_environment_to_the_bit(discrete: bool) -> None:
    world = tiny_world(BUTTONS) if discrete else tiny_world()
    env, oracle = make(1, world, time_limit=4), Oracle(AutoresetMode.SAME_STEP, 1, world=world)
    oracle.envs[0].core.time_limit = 4
    same(env.reset(seed=5)[0], oracle.reset([5]))
    for t in range(10):
        action = moves(world, 1, t)
        (*results, _), final = oracle.step(action)
        *mine, info = env.step(action)
        same(mine, results)
        if final:
            same(info["final_obs"][0], final[0][0])


def test_rows_of_a_network_are_single_environments_but_for_their_last_bits() -> None:
    """Networks round differently in batches of another size; episodes begin to the bit alike."""
    world = tiny_world()
    for observation, most in (("latent", 1e-4), ("frame", 1)):
        options: dict[str, Any] = {"world": world, "observation": observation, "time_limit": 6}
        env, oracle = make(3, **options), Oracle(AutoresetMode.SAME_STEP, 3, **options)
        same(env.reset(seed=5)[0], oracle.reset([5, 6, 7]))
        for t in range(1, 9):
            action = moves(world, 3, t)
            (obs, reward, *flags, steps), _ = oracle.step(action)
            mine = env.step(action)
            same(mine[2:4], flags)
            np.testing.assert_allclose(mine[1], reward, atol=1e-4)
            if t % 6 == 0:
                same(mine[0], obs)  # the next start
            else:
                np.testing.assert_allclose(mine[0].astype(float), obs, atol=most)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [(WorldSimVectorEnv, AutoresetMode.NEXT_STEP), (Unread, AutoresetMode.SAME_STEP)],
)
def test_a_row_does_not_know_its_neighbours(kind: type, mode: AutoresetMode) -> None:
    """At equal batch size to the bit, even where a network rounds, whoever else ends or resets."""
    world = tiny_world()
    quiet, busy = (kind(3, world, autoreset_mode=mode, time_limit=5) for _ in range(2))
    quiet.reset(seed=[1, 2, 3])
    busy.reset(seed=[9, 2, 8])
    for t in range(12):
        a, b = moves(world, 3, t), moves(world, 3, 100 + t)
        b[1] = a[1]
        same([x[1] for x in quiet.step(a)[:4]], [x[1] for x in busy.step(b)[:4]])
        if t % 3 == 0:
            busy.reset(seed=t, options={"reset_mask": np.array([True, False, t % 2 == 0])})


# --- Seeds and starts -----------------------------------------------------------------------------


def test_seeds() -> None:
    env = make(3, observation="latent")
    first = env.reset(seed=4)[0]
    same(env.reset(seed=[4, 5, 6])[0], first)
    same(env.reset(seed=[6, 4, 5])[0], first[[2, 0, 1]])
    again, _ = env.reset(seed=[None, 4, 5])
    same(again[1:], first[:2])
    assert again[0, 0] not in first[:, 0]  # the next episode of row 0's seed
    strangers = [make(3, observation="latent").reset()[0] for _ in range(3)]
    assert len(np.unique(np.concatenate([*strangers, first])[:, 0])) == 12


def test_clips_of_ones_own() -> None:
    donor = make(3, observation="chunk")
    donor.reset(seed=8)
    acted = np.stack([moves(SHORT, 3, t) for t in range(2)], 1)
    frames = np.concatenate([donor.step(acted[:, t])[0] for t in range(2)], 1)
    env, single = make(3, observation="latent"), WorldSimEnv(SHORT, observation="latent")
    for options in ({"frames": frames}, {"frames": frames, "actions": acted}):
        obs, _ = env.reset(seed=2, options=options)
        for row in range(3):
            alone = {name: x[row] for name, x in options.items()}
            same(single.reset(seed=2 + row, options=alone)[0], obs[row])
            same(env.reset(options=alone)[0], np.stack([obs[row]] * 3))
    before, _ = env.reset(seed=1)
    mask = np.array([False, True, False])
    after, _ = env.reset(options={"frames": frames, "actions": acted, "reset_mask": mask})
    same(after, np.where(mask[:, None], obs, before))


def test_starts_are_made_when_they_are_needed() -> None:
    """Unread ends cost one start a row ahead; read ones none."""
    asked: list[int] = []

    class Counting(PointWorld):
        def reset(self, key):
            asked.append(len(key))
            return super().reset(key)

    world: Any = Counting(time_limit=5)
    for kind, ahead in ((WorldSimVectorEnv, 0), (Unread, 3)):
        for mode in MODES:
            asked.clear()
            env = kind(3, world, autoreset_mode=mode)
            env.reset(seed=0)
            env.reset(options={"reset_mask": np.array([True, False, False])})
            for _ in range(4):
                env.step(np.zeros((3, 2)))
            assert sum(asked) == 4 + (ahead if mode is AutoresetMode.SAME_STEP else 0)
            if mode is not AutoresetMode.DISABLED:
                for _ in range(3):
                    env.step(np.zeros((3, 2)))
                assert sum(asked) == 7 + (ahead if mode is AutoresetMode.SAME_STEP else 0)


def test_nothing_is_decoded_that_nobody_asked_for() -> None:
    decoded: list[int] = []

    class Counting(PointWorld):
        def decode(self, state):
            decoded.append(len(state))
            return super().decode(state)

    for observation, once in (("latent", 0), ("frame", 3), ("chunk", 3)):
        env = make(3, Counting(time_limit=3), observation=observation, render_mode="rgb_array")
        env.reset(seed=0)
        for t in range(1, 6):
            decoded.clear()
            env.step(np.zeros((3, 2)))
            assert sum(decoded) == once + (once if t == 3 else 0)  # `final_obs` is free
        env.render()
        assert sum(decoded) == 3


# --- What comes out -------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("output", "observation"), [("numpy", "frame"), ("torch", "chunk"), ("torch", "latent")]
)
def test_what_is_handed_out(output: str, observation: str) -> None:
    """Fits its space, is of the kind asked for, and is the caller's to scribble on."""
    kind = torch.Tensor if output == "torch" else np.ndarray
    tidy, messy = (make(output=output, observation=observation) for _ in range(2))
    same(tidy.reset(seed=0), messy.reset(seed=0))
    for t in range(15):
        action = moves(SHORT, ROWS, t)
        told, scribbled = tidy.step(torch.tensor(action)), messy.step(action)
        same(told, scribbled)
        assert np.asarray(told[0]) in tidy.observation_space
        final = told[4].get("final_info", {})
        parts = (*told[:4], *final.values(), *(v for k, v in told[4].items() if k != "final_info"))
        assert all(isinstance(part, kind) for part in parts)
        for part in (*scribbled[:4], *scribbled[4].values()):
            if isinstance(part, kind):
                part[:] = True if part.dtype in (bool, torch.bool) else 7
    some = {"reset_mask": np.arange(ROWS) < 2}
    same(tidy.reset(options=some), messy.reset(options=some))  # shows the other rows once more
    assert told[1].dtype in (np.float32, torch.float32) and told[0].shape[0] == ROWS


def test_make_vec() -> None:
    env = make(
        4, "worldsim.world.point:PointWorld", max_episode_steps=3, autoreset_mode="NEXT_STEP"
    )
    assert env.num_envs == 4 and env.device.type == "cpu" and env.output == "numpy"
    assert env.autoreset_mode is env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert env.metadata["render_fps"] == 10 and "render_fps" not in WorldSimVectorEnv.metadata
    env.reset(seed=0)
    flags = [env.step(env.action_space.sample())[2:4] for _ in range(3)]
    assert [bool(f[1].all()) for f in flags] == [False, False, True] and not flags[2][0].any()
    assert env.spec is not None and env.spec.kwargs["world"] == "worldsim.world.point:PointWorld"
    assert "final_obs" not in env.step(env.action_space.sample())[4]
    env.close()
    env.close()


def test_the_shorter_limit_counts() -> None:
    world = PointWorld(time_limit=5)
    told = [make(2, world, max_episode_steps=m).time_limit for m in (None, 3, 9)]
    assert told == [5, 3, 5] and make(2, world, time_limit=9, max_episode_steps=7).time_limit == 7


def test_gymnasiums_wrappers() -> None:
    env = gymnasium.wrappers.vector.RecordEpisodeStatistics(make(world=PointWorld(time_limit=4)))
    env = gymnasium.wrappers.vector.DictInfoToList(env)
    env.reset(seed=0)
    won = np.zeros(ROWS)
    for t in range(4):
        _, reward, *_, info = env.step(moves(SHORT, ROWS, t))
        won += reward
    for row in range(ROWS):
        assert info[row]["steps"] == 0 and info[row]["final_info"]["steps"] == 4
        assert info[row]["episode"]["l"] == 4 and "continue_prob" not in info[row]
        assert info[row]["episode"]["r"] == pytest.approx(won[row])


@pytest.mark.parametrize("name", ["SAME_STEP", "same_step", "SameStep", AutoresetMode.SAME_STEP])
def test_modes_by_name(name: Any) -> None:
    assert make(2, autoreset_mode=name).autoreset_mode is AutoresetMode.SAME_STEP


def test_native_actions() -> None:
    world = tiny_world()
    native, unit = make(2, world, actions="native"), make(2, world)
    assert native.single_action_space == world.spec.action_space
    same(native.reset(seed=1)[0], unit.reset(seed=1)[0])
    a = native.step(np.array([[0.5, 0.75, 0.0]] * 2))
    same(a[:4], unit.step(np.array([[0.5, 0.5, -1.0]] * 2))[:4])


@pytest.mark.parametrize("observation", ["chunk", "latent"])
def test_render_is_every_rows_newest_frame(observation: str) -> None:
    env = make(render_mode="rgb_array", observation=observation)
    frames = make(observation="frame")
    env.reset(seed=0)
    frames.reset(seed=0)
    for t in range(8):
        env.step(moves(SHORT, ROWS, t))
        obs = frames.step(moves(SHORT, ROWS, t))[0]
        pictures = env.render()
        assert isinstance(pictures, tuple) and len(pictures) == ROWS
        same(np.stack(pictures), obs)
        pictures[0][:] = 0
    with pytest.warns(UserWarning, match="render_mode"):
        assert frames.render() is None


@pytest.mark.parametrize(
    ("kind", "mode"),
    [(WorldSimVectorEnv, AutoresetMode.NEXT_STEP), (Unread, AutoresetMode.SAME_STEP)],
)
def test_copies_go_on_alike(kind: type, mode: AutoresetMode) -> None:
    env = kind(ROWS, SHORT, autoreset_mode=mode)
    env.reset(seed=0)
    for t in range(5):
        env.step(moves(SHORT, ROWS, t))
    twins = pickle.loads(pickle.dumps(env)), copy.deepcopy(env)
    for t in range(15):
        told = env.step(moves(SHORT, ROWS, t))
        for twin in twins:
            same(told, twin.step(moves(SHORT, ROWS, t)))
    same(env.reset(), twins[0].reset())
