"""What a user of `WorldSim-v0` may rely on, in a world whose truth is known."""

import copy
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import FrameStackObservation, RecordVideo

from worldsim.envs import WorldSimEnv
from worldsim.world.point import PointWorld

POINT = "worldsim.world.point:PointWorld"


def make(world: Any = POINT, **options: Any) -> WorldSimEnv:
    """Gymnasium hands out the environment itself, without wrappers."""
    env = gymnasium.make("WorldSim-v0", world=world, **options)
    assert isinstance(env, WorldSimEnv)
    return env


def actions(env: WorldSimEnv, count: int, seed: int = 0) -> list[Any]:
    space = copy.deepcopy(env.action_space)
    space.seed(seed)
    return [space.sample() for _ in range(count)]


def run(env: WorldSimEnv, count: int = 10, seed: int = 0) -> list[Any]:
    """What each of `count` steps returned; ended episodes are followed by the next."""
    log: list[Any] = []
    for action in actions(env, count, seed):
        log.append(env.step(action))
        if log[-1][2] or log[-1][3]:
            log.append(env.reset())
    return log


def digest(log: Any) -> str:
    """Bytes of arrays, repr of all else."""
    if isinstance(log, list | tuple):
        return hashlib.sha256("".join(map(digest, log)).encode()).hexdigest()
    told = log.tobytes() if isinstance(log, np.ndarray) else repr(log).encode()
    return hashlib.sha256(told).hexdigest()


# --- Checkers and wrappers ------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("observation", ["frame", "chunk", "latent"])
def test_gymnasiums_checker(observation: str) -> None:
    check_env(make(observation=observation, render_mode="rgb_array"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("observation", ["frame", "latent"])  # it knows no stacks of pictures
def test_stable_baselines_checker(observation: str) -> None:
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    env = make(PointWorld(noise=0.2), observation=observation, render_mode="rgb_array")
    checker.check_env(env, warn=True, skip_render_check=False)


def test_record_video(tmp_path: Path) -> None:
    pytest.importorskip("moviepy")
    imageio = pytest.importorskip("imageio.v3")
    env = RecordVideo(make(render_mode="rgb_array", time_limit=12), str(tmp_path / "videos"))
    env.reset(seed=0)
    while not any(env.step(env.action_space.sample())[2:4]):
        pass
    env.close()
    [video] = (tmp_path / "videos").glob("*.mp4")
    assert len(imageio.imread(video, plugin="FFMPEG")) == 13
    assert imageio.immeta(video, plugin="FFMPEG")["fps"] == 10


def test_frame_stack() -> None:
    env = FrameStackObservation(make(), 3)
    first, _ = env.reset(seed=0)
    assert first.shape == (3, 40, 40, 3)
    second, *_ = env.step(np.ones(2, np.float32))
    np.testing.assert_array_equal(second[:2], first[1:])
    assert (second[2] != second[1]).any()


def test_vector_environments_agree() -> None:
    """Other processes and this one live the same lives."""

    def life(envs: gymnasium.vector.VectorEnv) -> list[Any]:
        log = [envs.reset(seed=[5, 6])[0]]
        moves = np.random.default_rng(0).uniform(-1, 1, (7, 2, 2)).astype(np.float32)
        for action in moves:
            log.append(envs.step(action)[:4])
        envs.close()
        return log

    options = {"world": PointWorld(noise=0.3), "time_limit": 4}
    lives = [
        life(gymnasium.make_vec("WorldSim-v0", 2, mode, vector_kwargs=kwargs, **options))
        for mode, kwargs in (("async", {"context": "fork"}), ("sync", {}))
    ]
    assert len({digest(each) for each in lives}) == 1


def test_keyboard_play() -> None:
    pygame = pytest.importorskip("pygame")
    play = pytest.importorskip("gymnasium.utils.play").play
    env, seen = make(render_mode="rgb_array"), []

    def watch(before, after, action, reward, terminated, truncated, info) -> None:
        seen.append(action.tolist())
        if len(seen) == 1:
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=ord("d")))
        if len(seen) == 3:
            pygame.event.post(pygame.event.Event(pygame.QUIT))

    play(env, callback=watch, seed=0, zoom=2)
    assert seen == [[0, 0], [1, 0], [1, 0]]


# --- What comes out -------------------------------------------------------------------------------


def test_observations_are_the_worlds() -> None:
    envs = {name: make(observation=name) for name in ("frame", "chunk", "latent")}
    for t in range(4):
        seen = {}
        for name, env in envs.items():
            seen[name] = env.reset(seed=3)[0] if t == 0 else env.step(np.float32([0.5, -1]))[0]
            assert env.observation_space.contains(seen[name])
        state = envs["frame"].get_state().episode.state
        np.testing.assert_array_equal(seen["chunk"], PointWorld().decode(state)[0].numpy())
        np.testing.assert_array_equal(seen["frame"], seen["chunk"][-1])
        np.testing.assert_array_equal(seen["latent"], state.latent[0].numpy())


def test_a_step_says_what_the_world_says() -> None:
    world = PointWorld(noise=0.1, arena=1.0)
    env = make(world)
    _, info = env.reset(seed=3)
    assert info == {"steps": 0}
    for t, action in enumerate(actions(env, 5), 1):
        _, said = world.step(env.get_state().episode.state, torch.from_numpy(action)[None])
        _, reward, terminated, truncated, info = env.step(action)
        assert type(reward) is float and reward == said.reward.item()
        assert type(terminated) is bool and type(truncated) is bool
        assert info == {"steps": t, "continue_prob": said.continue_prob.item(), "trust": 1.0}


class Uncalibrated(PointWorld):
    def step(self, state, action, *, generator=None):
        state, said = super().step(state, action, generator=generator)
        return state, replace(said, trust=torch.full_like(said.trust, float("nan")))


def test_an_uncalibrated_world_says_nothing_of_trust() -> None:
    env = make(Uncalibrated())
    env.reset(seed=0)
    info = env.step(env.noop)[4]
    assert info.keys() == {"steps", "continue_prob", "trust"} and info["trust"] == "unknown"


@pytest.mark.parametrize("observation", ["frame", "chunk", "latent"])
def test_what_is_handed_out_is_the_callers(observation: str) -> None:
    """Scribbling over anything returned changes nothing inside."""
    tidy, messy = (make(observation=observation, render_mode="rgb_array") for _ in range(2))
    logs: list[list[Any]] = [[], []]
    for env, log in zip((tidy, messy), logs, strict=True):
        handed = [env.reset(seed=0)[0], env.render()]
        for action in actions(env, 4):
            handed += [env.step(action)[0], env.render()]
            log.append(digest(handed))
            if env is messy:
                for array in handed:
                    array.fill(7)
            handed = [env.render()]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("observation", ["frame", "chunk", "latent"])
def test_render_is_the_newest_frame(observation: str) -> None:
    env = make(render_mode="rgb_array", observation=observation)
    env.reset(seed=0)
    start = env.get_state()
    pictures = []
    for saved in (None, start):
        if saved is not None:
            env.set_state(saved)
        for _ in range(2):
            frame = PointWorld().decode(env.get_state().episode.state)[0, -1].numpy()
            np.testing.assert_array_equal(env.render(), frame)
            pictures.append(digest(frame))
            env.step(np.float32([1, 1]))
    assert pictures[0] == pictures[2] != pictures[1]


def test_what_render_says_of_itself() -> None:
    env = make(render_mode="rgb_array")
    assert env.metadata == {"render_modes": ["rgb_array"], "render_fps": 10}
    assert "render_fps" not in WorldSimEnv.metadata
    silent = make()
    silent.reset()
    with pytest.warns(UserWarning, match="render_mode"):
        assert silent.render() is None


# --- Ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "steps"), [(None, 5), (1, 1), (3, 3)])
def test_the_time_limit_truncates(limit: int | None, steps: int) -> None:
    env = make(PointWorld(time_limit=5), time_limit=limit)
    for _ in range(2):
        env.reset(seed=0)
        flags = [env.step(env.noop)[2:4] for _ in range(steps)]
        assert flags == [(False, False)] * (steps - 1) + [(False, True)]
        with pytest.raises(ResetNeeded, match="the episode is over"):
            env.step(env.noop)


def test_an_end_terminates() -> None:
    env = make(PointWorld(arena=1.0, thrust=3.0))
    env.reset(seed=0)
    _, _, terminated, truncated, info = env.step(np.float32([1, 1]))
    assert terminated and not truncated and info["continue_prob"] == 0
    with pytest.raises(ResetNeeded):
        env.step(env.noop)
    env.reset()
    assert not env.step(env.noop)[2]


def test_nothing_goes_before_reset() -> None:
    env = make(render_mode="rgb_array")
    for call in (lambda: env.step(env.noop), env.render, env.get_state):
        with pytest.raises(ResetNeeded, match="before env"):
            call()
    env.close()
    env.close()


# --- Seeds ----------------------------------------------------------------------------------------


def lives(env: WorldSimEnv, seed: int) -> str:
    first = [env.reset(seed=seed), *run(env, 15)]
    return digest([first, env.reset(), *run(env, 15)])  # episodes of one seed differ, repeatably


def test_a_seed_names_a_life() -> None:
    world = PointWorld(noise=0.3, time_limit=6)
    one, other = make(world), make(world)
    told = [lives(one, seed) for seed in range(3)]
    assert len(set(told)) == 3
    assert [lives(other, seed) for seed in reversed(range(3))] == told[::-1]


def test_episodes_of_a_seed_differ() -> None:
    env = make()
    starts = {digest(env.reset(seed=4 if t == 0 else None)[0]) for t in range(30)}
    assert len(starts) == 30


def test_without_a_seed_lives_differ() -> None:
    assert len({digest(make().reset()[0]) for _ in range(20)}) == 20


def test_a_generator_of_ones_own_is_obeyed() -> None:
    env, starts = make(), []
    for seed in (1, 2, 1):
        env.np_random = np.random.default_rng(seed)
        starts.append(digest([env.reset()[0], env.reset()[0]]))
    assert starts[0] == starts[2] != starts[1]


# --- One's own clip -------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("chunks", [1, 2, 4])
def test_a_clip_of_ones_own(chunks: int, known: bool) -> None:
    env, donor = make(), make(observation="chunk")
    donor.reset(seed=8)
    moves = actions(donor, chunks)
    frames = np.concatenate([donor.step(action)[0] for action in moves])
    options = {"frames": frames, **({"actions": np.array(moves)} if known else {})}
    seen, info = env.reset(seed=0, options=options)
    state, true = (e.get_state().episode.state for e in (env, donor))
    assert info == {"steps": 0} and state.filled.item() == chunks
    torch.testing.assert_close(state.latent[:, :2], true.latent[:, :2], atol=5e-3, rtol=0)
    if known:
        np.testing.assert_array_equal(state.actions[0, -chunks:].numpy(), np.array(moves))
        torch.testing.assert_close(state.latent, true.latent, atol=1e-2, rtol=0)
    else:
        assert not state.known.any()
    assert np.abs(seen.astype(int) - frames[-1]).max() < 20
    assert digest(env.reset(seed=0, options=options)) == digest((seen, info))


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, list])
def test_a_picture_stands_still(kind) -> None:
    env = make()
    picture, _ = env.reset(seed=5)
    seen, _ = env.reset(options={"frames": kind(picture[None])})
    assert np.abs(seen.astype(int) - picture).max() < 12
    state = env.get_state().episode.state
    assert state.filled.item() == 1 and state.latent[0, 2:].abs().max() < 1e-6


def test_empty_options_are_none() -> None:
    env = make()
    assert digest(env.reset(seed=2)) == digest(env.reset(seed=2, options={}))
