"""Recording one episode from any Gymnasium environment."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray

from worldsim.core import ActionSpec, EnvironmentSpec, WorldError
from worldsim.data.dataset import Dataset, DatasetSpec, Episode
from worldsim.data.resize import area_resize, crop_frames

from .policies import Behaviour, Policy, choose

SPLITS = {"train": (0, 1000), "val": (1000, 1050), "test": (5000, 5050)}  # seeds [first, stop)
RESERVED_SEED = 10_000  # seeds from here up belong to nobody's training, tuning or testing


class CollectError(ValueError):
    """A recording that was asked for and cannot be made."""


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """What to record and where.

    env_id, env_kwargs: for ``gymnasium.make`` ("module:Name-v0" imports the module first).
    folder: of the dataset; episodes already there are kept.
    source: frames are the environment's observations, or what it renders.
    crop: rows top:bottom and columns left:right kept. size: (height, width) after area resize.
    chunk: frames per action. warmup: no-op frames dropped after reset.
    max_frames: an episode is cut here, at the latest.
    train, val, test: seeds [first, stop) to record in each split; equal ends record none.
    workers: processes; 1 records in this one.
    """

    env_id: str
    folder: Path
    size: tuple[int, int]
    env_kwargs: dict[str, bool | int | float | str] = field(default_factory=dict)
    source: Literal["observation", "render"] = "render"
    crop: tuple[int, int, int, int] | None = None
    chunk: int = 2
    warmup: int = 0
    max_frames: int = 1000
    train: tuple[int, int] = (0, 100)
    val: tuple[int, int] = (1000, 1020)
    test: tuple[int, int] = (5000, 5020)
    workers: int = os.cpu_count() or 1

    def __post_init__(self) -> None:
        least = {"chunk": 1, "workers": 1, "warmup": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise CollectError(f"{name}: expected at least {bound}, got {getattr(self, name)}")
        if self.max_frames < self.chunk:
            got = f"{self.max_frames} for chunks of {self.chunk}"
            raise CollectError(f"max_frames: expected at least one chunk, got {got}")
        for split, (first, stop) in self.seeds.items():
            _check_seeds(split, first, stop)

    @property
    def seeds(self) -> Mapping[str, tuple[int, int]]:
        """Seeds [first, stop) of each split."""
        return {"train": self.train, "val": self.val, "test": self.test}


def _check_seeds(split: str, first: int, stop: int) -> None:
    least, most = SPLITS[split]
    if first == stop:
        return
    if stop > RESERVED_SEED:
        raise CollectError(
            f"{split}: seeds from {RESERVED_SEED} up belong to nobody's training, tuning or "
            f"testing, got {first} to {stop - 1}; choose seeds from {least} to {most - 1}"
        )
    if not least <= first < stop <= most:
        raise CollectError(
            f"{split}: expected seeds [first, stop) within [{least}, {most}), so that no track is "
            f"in two splits, got [{first}, {stop})"
        )


def _make_env(config: CollectConfig) -> gymnasium.Env[Any, Any]:
    keywords: dict[str, Any] = {**config.env_kwargs}
    if config.source == "render":
        keywords.setdefault("render_mode", "rgb_array")
    try:
        return gymnasium.make(config.env_id, **keywords)
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        raise CollectError(
            f"env_id: expected an environment that can be made here, got {config.env_id!r} "
            f"({error}); install its package, or name it 'module:Name-v0'"
        ) from error


def as_recorded(
    data: Dataset, folder: Path, band: tuple[int, int] = (0, 0), max_frames: int = 1000
) -> CollectConfig:
    """The settings that a dataset was recorded with, for more training episodes of it.

    Raises CollectError for video that no environment made.
    """
    info = data.spec.environment
    if info is None:
        raise CollectError("data: expected episodes of an environment, got video without one")
    none = {split: (first, first) for split, (first, _) in SPLITS.items()}
    return CollectConfig(
        env_id=info.id, env_kwargs=info.kwargs, folder=folder, source=info.source,
        crop=info.crop, size=info.size, chunk=info.chunk, warmup=info.warmup,
        max_frames=max_frames, workers=1, **(none | {"train": band}),
    )  # fmt: skip


def describe(config: CollectConfig) -> DatasetSpec:
    """The ``dataset.json`` of a recording. Raises CollectError for spaces that cannot be stored."""
    try:  # as it will be read again, so that a resumed recording finds itself equal
        env_kwargs = json.loads(json.dumps(config.env_kwargs))
    except (TypeError, ValueError) as error:
        raise CollectError(
            f"env_kwargs: expected values that JSON can hold, got {error}"
        ) from error
    env = _make_env(config)
    try:
        return DatasetSpec(
            name=config.folder.name,
            chunk=config.chunk,
            fps=float(env.metadata.get("render_fps", 30)),
            frame_shape=(*config.size, 3),
            action=_action_spec(env.action_space),
            has_rewards=True,
            environment=EnvironmentSpec(
                id=config.env_id, kwargs=env_kwargs, source=config.source, crop=config.crop,
                size=config.size, chunk=config.chunk, warmup=config.warmup,
                max_frames=config.max_frames,
            ),
        )  # fmt: skip
    finally:
        env.close()


def _action_spec(space: gymnasium.Space[Any]) -> ActionSpec:
    try:
        return ActionSpec.from_space(space)
    except WorldError as error:
        raise CollectError(str(error)) from error


def episode_name(seed: int) -> str:
    """The name of the episode of `seed`."""
    return f"episode_{seed:06d}"


def record(config: CollectConfig, behaviours: Sequence[Behaviour], seed: int) -> Episode:
    """Play and record the episode of `seed`, without writing it. Raises CollectError if it ends
    within the warm-up, or its frames are not images."""
    env = _make_env(config)
    try:
        behaviour = choose(behaviours, seed)
        policy = behaviour.make(env, np.random.default_rng([seed, 0]))
        obs, _ = env.reset(seed=seed)
        obs = _warm_up(env, config, obs)
        return _play(env, config, policy, obs, seed=seed, behaviour=behaviour)
    finally:
        env.close()


def _warm_up(env: gymnasium.Env[Any, Any], config: CollectConfig, obs: Any) -> Any:
    action = _to_space(env.action_space, 0)
    for step in range(config.warmup):
        obs, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            raise CollectError(
                f"warmup: expected an episode longer than {config.warmup} frames, but "
                f"{config.env_id} ended after {step + 1}; lower warmup"
            )
    return obs


def _play(
    env: gymnasium.Env[Any, Any],
    config: CollectConfig,
    policy: Policy,
    obs: Any,
    *,
    seed: int,
    behaviour: Behaviour,
) -> Episode:
    frames, actions, rewards = [], [], []
    terminated = truncated = False
    sees_chunks = behaviour.sees == "chunk"
    chunk = _still(env, config, obs) if sees_chunks else None
    while not (terminated or truncated):
        action = _to_space(env.action_space, policy(chunk if sees_chunks else obs))
        obs, chunk, reward, terminated, truncated = _step_chunk(env, config, action)
        frames.append(chunk)
        actions.append(action)
        rewards.append(reward)
        full = (len(frames) + 1) * config.chunk > config.max_frames
        truncated = truncated or (full and not terminated)
    discrete = isinstance(env.action_space, gymnasium.spaces.Discrete)
    return Episode(
        name=episode_name(seed),
        frames=np.concatenate(frames),
        chunk=config.chunk,
        fps=float(env.metadata.get("render_fps", 30)),
        actions=np.asarray(actions, np.int64 if discrete else np.float32),
        rewards=np.asarray(rewards, np.float32),
        terminated=terminated,
        truncated=truncated,
        seed=seed,
        policy=behaviour.name,
    )


def _still(env: gymnasium.Env[Any, Any], config: CollectConfig, obs: Any) -> NDArray[np.uint8]:
    """The newest frame as a chunk in which nothing moves, (c, H, W, 3)."""
    frame = _frame(obs if config.source == "observation" else env.render(), config)
    return area_resize(np.stack([frame] * config.chunk), config.size)


def _step_chunk(
    env: gymnasium.Env[Any, Any], config: CollectConfig, action: Any
) -> tuple[Any, NDArray[np.uint8], float, bool, bool]:
    """One action for `chunk` frames; an end inside the chunk repeats the last true frame."""
    frames, total = [], 0.0
    obs, terminated, truncated = None, False, False
    for _ in range(config.chunk):
        obs, reward, terminated, truncated, _ = env.step(action)
        frames.append(_frame(obs if config.source == "observation" else env.render(), config))
        total += float(reward)
        if terminated or truncated:
            break
    frames += frames[-1:] * (config.chunk - len(frames))
    return obs, area_resize(np.stack(frames), config.size), total, terminated, truncated


def _frame(image: Any, config: CollectConfig) -> NDArray[np.uint8]:
    pixels = isinstance(image, np.ndarray) and image.dtype == np.uint8
    if not (pixels and image.ndim == 3 and image.shape[-1] == 3):
        got = f"{getattr(image, 'dtype', type(image).__name__)} {getattr(image, 'shape', '')}"
        raise CollectError(
            f"source: expected {config.source} frames that are uint8 (H, W, 3) images, got {got}; "
            "try the other source, or wrap the environment"
        )
    return crop_frames(image, config.crop).copy()  # the environment may reuse its buffer


def _to_space(space: gymnasium.Space[Any], action: Any) -> Any:
    """The action as the environment takes it; continuous ones are clipped to the bounds."""
    if isinstance(space, gymnasium.spaces.Discrete):
        if not space.contains(np.int64(action)):
            raise CollectError(f"action: expected 0 to {space.n - 1}, got {action!r}")
        return int(action)
    assert isinstance(space, gymnasium.spaces.Box)
    values = np.broadcast_to(np.asarray(action, np.float32), space.shape)
    if not np.isfinite(values).all():
        raise CollectError(f"action: expected finite numbers, got {action!r}")
    return np.clip(values, space.low, space.high).astype(np.float32)


class Camera:
    """One environment, seen and stepped chunk by chunk as a recording of it is.

    Args:
        config: how it is recorded; its `max_frames` truncates an episode.
        seeds: of its episodes, one after the other, and round again.
    """

    def __init__(self, config: CollectConfig, seeds: Sequence[int]) -> None:
        self.config, self.seeds, self.played = config, cycle(seeds), 0
        self.env = _make_env(config)

    def reset(self) -> NDArray[np.uint8]:
        """The next episode's first chunk, standing still, (c, H, W, 3) uint8."""
        obs, _ = self.env.reset(seed=next(self.seeds))
        self.played = 0
        return _still(self.env, self.config, _warm_up(self.env, self.config, obs))

    def step(self, action: Any) -> tuple[NDArray[np.uint8], float, bool, bool]:
        """An action for one chunk: its frames (c, H, W, 3), reward, terminated, truncated."""
        _, chunk, reward, terminated, truncated = _step_chunk(self.env, self.config, action)
        self.played += self.config.chunk
        over = self.played + self.config.chunk > self.config.max_frames
        return chunk, reward, terminated, truncated or over

    def close(self) -> None:
        """Let the environment go."""
        self.env.close()
