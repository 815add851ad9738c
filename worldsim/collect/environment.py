"""A real environment exactly as its world shows it and takes actions."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray

from worldsim.core import ActionSpec, EnvironmentSpec
from worldsim.data.resize import area_resize, crop_frames

from .errors import CollectError
from .observation import state_names, state_vector, text_of, to_picture

Env = gymnasium.Env[Any, Any]
CODE = re.compile(r"[:/\\]|^[^\W\d]\w*(\.[^\W\d]\w*)+$")
"""What may name a module or a file: a colon or a slash anywhere, or names joined by dots."""

FAMILIES = {  # of ids that Gymnasium does not have itself: distribution, module that registers them
    "ALE": ("ale-py", "ale_py"),
    "BabyAI": ("minigrid", "minigrid"),
    "MiniGrid": ("minigrid", "minigrid"),
    "MiniWorld": ("miniworld", "miniworld"),
    "Vizdoom": ("vizdoom", "vizdoom.gymnasium_wrapper"),
    "gym_pusht": ("gym-pusht", "gym_pusht"),
}


def make_environment(
    spec: EnvironmentSpec,
    *,
    observation: Literal["frame", "chunk"] = "frame",
    actions: Literal["normalized", "native"] = "normalized",
    trust_code: bool = False,
) -> RecordedEnv:
    """The real environment of a world or a dataset, with the spaces that `WorldSim-v0` has.

    trust_code: allow names of modules in `spec` to be imported; only for files that you made
    yourself or whose makers you trust.
    Raises CollectError where it cannot be made here, and says what to install.
    """
    return RecordedEnv(
        make_source(spec, trust_code=trust_code), spec, observation=observation, actions=actions
    )


def make_source(spec: EnvironmentSpec, *, trust_code: bool = False) -> Env:
    """The environment that `spec` names, in its wrappers, before `RecordedEnv`."""
    if not trust_code:
        _refuse_imports(spec)
    keywords: dict[str, Any] = {**spec.kwargs}
    if spec.source == "render":
        keywords.setdefault("render_mode", "rgb_array")
    env = make_named(spec.id, keywords)
    for path in spec.wrappers:
        env = named(path, "wrappers")(env)
        if not isinstance(env, gymnasium.Env):
            got = type(env).__name__
            raise CollectError(f"wrappers: expected {path!r} to return an environment, got {got}")
    return env


def _refuse_imports(spec: EnvironmentSpec) -> None:
    """Nothing in a file may choose what is imported or opened.

    Keywords count: what an environment does with "package.module" or with a path is not known.
    """
    names = [spec.id] if ":" in spec.id else []
    names += [*spec.wrappers, *filter(CODE.search, _strings(spec.kwargs))]
    if names:
        raise CollectError(
            f"environment: expected no module or path to be named by a file, got "
            f"{names[0][:200]!r}; pass trust_code=True (--trust-code) to use it, if you trust "
            "whoever made the file"
        )


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from (key, *_strings(item))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def make_named(id: str, keywords: dict[str, Any]) -> Env:
    """An environment by its Gymnasium id or "module:function", imported if it names a module."""
    if ":" in id and not re.search(r"-v\d+$", id):
        return make_by(named(id, "env"), keywords, id)
    _register_family(id)
    os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")  # or it swallows SIGTERM
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # or SDL complains of a missing screen
    try:
        return gymnasium.make(id, **keywords)
    except (gymnasium.error.UnregisteredEnv, ModuleNotFoundError) as error:
        raise CollectError(
            f"env: expected an environment that is registered here, got {id!r} ({error}); "
            "install its package, or name the module that registers it: 'module:Name-v0'"
        ) from error
    except gymnasium.error.DependencyNotInstalled as error:
        extra = "; or pip install 'worldsim[box2d]'" * ("box2d" in str(error).lower())
        raise CollectError(
            f"env: {id} needs a package that is not installed here: {error}{extra}"
        ) from error
    except (gymnasium.error.Error, ImportError, TypeError, ValueError, AttributeError) as error:
        raise CollectError(
            f"env: {id!r} cannot be made with {keywords}: {error}; look at its keywords"
        ) from error


def _register_family(id: str) -> None:
    """Import the installed package that registers ids of a well-known family."""
    family = FAMILIES.get(re.split(r"[/-]", id)[0])
    if family is None or id in gymnasium.registry:
        return
    package, module = family
    try:
        distribution(package)
        import_module(module)
    except (PackageNotFoundError, ImportError) as error:
        raise CollectError(
            f"env: {id!r} comes with a package that is not installed here: pip install {package}"
        ) from error


def make_by(function: Any, keywords: dict[str, Any], name: str) -> Env:
    """The environment that a function returns; it is asked to render if it takes that keyword."""
    if "render_mode" in keywords and not _takes(function, "render_mode"):
        keywords = {key: value for key, value in keywords.items() if key != "render_mode"}
    env = function(**keywords)
    if not isinstance(env, gymnasium.Env):
        got = type(env).__name__
        raise CollectError(f"env: expected {name!r} to return a gymnasium.Env, got {got}")
    return env


def _takes(function: Any, keyword: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return keyword in parameters or any(p.kind == p.VAR_KEYWORD for p in parameters.values())


def named(path: str, field: str) -> Any:
    """The callable at "module:function"; raises CollectError if there is none."""
    module, _, name = path.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise CollectError(
            f"{field}: expected an importable 'module:function', got {path!r} ({error}); "
            "run from the folder that holds the module, or install it"
        ) from error
    if not callable(found):
        got = type(found).__name__
        raise CollectError(f"{field}: expected a callable at {path!r}, got {got}")
    return found


class RecordedEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A real environment seen and stepped chunk by chunk, as its recording was made.

    One step is one action for `chunk` frames, their rewards summed. Warm-up frames are dropped
    after a reset, and an episode is truncated after `max_frames`. Observation and action spaces are
    those of `WorldSim-v0` of the same world: a frame (H, W, 3) or chunk (c, H, W, 3) of uint8,
    cropped and resized; boxes flattened and, by default, from -1 to 1.

    `info["state"]` holds the state vector where the recording has one, `info["frames"]` the chunk.

    Args:
        env: the environment, in its own wrappers.
        recording: how it is seen.
        observation: "frame", the newest one, or "chunk".
        actions: "normalized" or "native", the environment's own range.

    Raises CollectError where it shows no pictures, or its actions cannot be those of a world, and
    WorldError for an action outside the space.
    """

    def __init__(
        self,
        env: Env,
        recording: EnvironmentSpec,
        *,
        observation: Literal["frame", "chunk"] = "frame",
        actions: Literal["normalized", "native"] = "normalized",
    ) -> None:
        super().__init__(env)
        self.recording, self.observation = recording, observation
        self.native = ActionSpec.from_space(env.action_space)
        self.taken = self.native.normalized() if actions == "normalized" else self.native
        self.action_space = self.taken.space()
        shape = (*recording.size, 3)
        shape = shape if observation == "frame" else (recording.chunk, *shape)
        self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)
        self.fps = float(env.metadata.get("render_fps") or 30)
        self.metadata = {**env.metadata, "render_fps": self.fps / recording.chunk}
        self.state_names = state_names(env.observation_space, recording.state)
        self.observed: Any = None
        self.info: dict[str, Any] = {}
        self.frames: NDArray[np.uint8] = np.zeros((recording.chunk, *recording.size, 3), np.uint8)
        self.played = 0

    @property
    def state(self) -> NDArray[np.float32]:
        """The newest state vector, (S,)."""
        return state_vector(self.observed, self.recording.state)

    @property
    def texts(self) -> tuple[str, ...]:
        """Captions of the newest chunk: in a dict observation, or of `info["text"]`."""
        told = self.info.get("text", text_of(self.observed))
        return tuple(filter(None, [told] if isinstance(told, str) else map(str, told)))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Begin an episode: the newest frame, or a chunk in which nothing moves."""
        self.observed, info = self.env.reset(seed=seed, options=options)
        self.info = info
        self._warm_up()
        self.played = 0
        self.frames = self._resized([self.picture()] * self.recording.chunk)
        return self._seen(), self._told(info)

    def _warm_up(self) -> None:
        still = self._own(np.clip(0, *self._bounds))
        for step in range(self.recording.warmup):
            self.observed, _, terminated, truncated, self.info = self.env.step(still)
            if terminated or truncated:
                raise CollectError(
                    f"warmup: expected an episode longer than {self.recording.warmup} frames, but "
                    f"it ended after {step + 1}; lower warmup"
                )

    def step(self, action: Any) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """One action for a chunk; an end inside the chunk repeats the last true frame."""
        given = self.taken.check(action)
        if self.taken is not self.native:
            given = self.native.from_normalized(given)
        own, pictures, total, info = self._own(given.numpy()), [], 0.0, {}
        terminated = truncated = False
        while len(pictures) < self.recording.chunk and not (terminated or truncated):
            self.observed, reward, terminated, truncated, info = self.env.step(own)
            pictures.append(self.picture())
            total += float(reward)
        pictures += pictures[-1:] * (self.recording.chunk - len(pictures))
        self.info = info
        self.frames = self._resized(pictures)
        self.played += self.recording.chunk
        over = self.played + self.recording.chunk > self.recording.max_frames
        truncated = bool(truncated or (over and not terminated))
        return self._seen(), total, bool(terminated), truncated, self._told(info)

    def to_native(self, action: Any) -> NDArray[Any]:
        """Any action for the environment's own space as a world's recording holds it: flattened,
        float32 clipped to the bounds, or int64. Raises CollectError for what it does not take."""
        spec, size = self.native, int(np.prod(self.native.shape))
        values = np.asarray(action.numpy(force=True) if hasattr(action, "numpy") else action)
        if values.dtype.kind not in "biuf" or values.size not in (1, size):
            got = f"{values.dtype} {values.shape}"
            raise CollectError(f"action: expected one of {self.env.action_space}, got {got}")
        values = np.broadcast_to(values.ravel(), (size,)).reshape(spec.shape)
        low, high = self._bounds
        if not spec.is_discrete:
            if not np.isfinite(values).all():
                raise CollectError(f"action: expected finite numbers, got {action!r}")
            return np.clip(values.astype(np.float32), low, high)
        whole = values.astype(np.int64)
        if (whole != values).any() or (whole < low).any() or (whole > high).any():
            expected = f"whole numbers from {low} to {np.asarray(high).tolist()}"
            raise CollectError(f"action: expected {expected}, got {values.tolist()}")
        return whole

    @property
    def _bounds(self) -> tuple[Any, Any]:
        spec = self.native
        if not spec.is_discrete:
            return np.array(spec.low, np.float32), np.array(spec.high, np.float32)
        high = spec.least + np.array(spec.choices) - 1
        return spec.least, high if spec.shape else high[0]

    def _own(self, values: NDArray[Any]) -> Any:
        """A native action as the environment's own space takes it."""
        space = self.env.action_space
        if isinstance(space, gymnasium.spaces.Discrete):
            return int(values)
        values = values.reshape(space.shape or ())
        if isinstance(space, gymnasium.spaces.Box):  # a bound may round beyond itself in float32
            values = np.rint(values) if space.dtype.kind in "iu" else values
            return np.clip(values.astype(space.dtype), space.low, space.high)
        return values.astype(space.dtype)

    def picture(self) -> NDArray[np.uint8]:
        """The newest picture, cropped; a copy, as the environment may reuse its buffer."""
        source, key = self.recording.source, self.recording.image
        if source == "render":
            value = self.env.render()
        else:
            value = self.observed[key] if key else self.observed
        picture = to_picture(value, source)
        try:
            return crop_frames(picture, self.recording.crop).copy()
        except ValueError as error:
            raise CollectError(str(error)) from error

    def _resized(self, pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        return area_resize(np.stack(pictures), self.recording.size)

    def _seen(self) -> NDArray[np.uint8]:
        return self.frames if self.observation == "chunk" else self.frames[-1]

    def _told(self, info: dict[str, Any]) -> dict[str, Any]:
        shown = {"state": self.state} if self.recording.state else {}
        return {**info, **shown, "frames": self.frames}
