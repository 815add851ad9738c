"""What every core of a world shares: where it comes from, its actions, what is seen of it."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from os import PathLike
from typing import Any, ParamSpec, TypeVar

import gymnasium
import numpy as np
import torch
from einops import repeat
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded
from torch import Tensor

from worldsim.actions import as_tensor
from worldsim.core import WorldError, WorldModel
from worldsim.nn.device import as_device

from .rows import Clip
from .source import SharedWorld, Source, as_source, find_world, use_one_thread_if_forked

OBSERVATIONS = ("frame", "chunk", "latent", "dict")
SEEDS = 2**63  # a row's key holds int64
MOST_STEPS = 128  # of denoising: more changes nothing that can be seen, and takes minutes a step


class NeedsReset(WorldError, ResetNeeded):
    """A step before the first reset or past an episode's end, in our words and in Gymnasium's."""


P = ParamSpec("P")
R = TypeVar("R")


class OneCaller:
    """Refuses a second thread while a first one is inside: its steps would be lost in silence."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise WorldError(
                "env: expected one call at a time, got one while another thread is inside; make an "
                "environment for each thread, or use make_vec"
            )

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> Any:
        return OneCaller, ()  # locks are neither copied nor pickled


def one_caller(method: Callable[P, R]) -> Callable[P, R]:
    """`method` of an object with a `core`, refused while another thread is inside it."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with args[0].core.caller:  # type: ignore[attr-defined]
            use_one_thread_if_forked()
            return method(*args, **kwargs)

    return call


class EnvCore:
    """A world as an agent meets it. Holds no episode: those who do are built on it.

    Attributes:
        world: the world itself; not pickled where it can be found again.
        source: what finds it again.
        observation: "frame", "chunk", "latent" or "dict".
        action: the actions an agent gives, in the range it gives them in.
        normalized: whether that range is -1 to 1.
        time_limit: steps an episode.
        caller: lets one thread in at a time.
    """

    def __init__(
        self,
        world: str | PathLike[str] | WorldModel | SharedWorld,
        device: str | torch.device,
        observation: str,
        actions: str,
        num_steps: int | None,
        time_limit: int | None,
        compile: bool = False,
        dtype: str | None = None,
        micro_batch: int | None = None,
    ) -> None:
        check_choice("observation", observation, OBSERVATIONS)
        check_choice("actions", actions, ("normalized", "native"))
        check_count("num_steps", num_steps, MOST_STEPS)
        check_count("time_limit", time_limit)
        check_count("micro_batch", micro_batch)
        self.source: Source = as_source(world)
        self._loading = (str(as_device(device)), num_steps, compile, dtype, micro_batch)
        self.caller = OneCaller()
        self.world = find_world(self.source, *self._loading)
        spec = self.world.spec
        if observation == "dict" and spec.state is None:
            raise WorldError(
                f"observation: expected {OBSERVATIONS[:-1]}, as {spec.name} knows no state vector "
                "beside its frames, got 'dict'; a world of recordings with a state has one"
            )
        self.observation = observation
        self.normalized = actions == "normalized"
        self.action = spec.action.normalized() if self.normalized else spec.action
        self.time_limit = spec.time_limit if time_limit is None else time_limit

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "world"}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.__dict__.update(saved)
        self.world = find_world(self.source, *self._loading)

    @property
    def pixels(self) -> bool:
        """Whether observations are decoded."""
        return self.observation != "latent"

    def space(self) -> gymnasium.spaces.Box | gymnasium.spaces.Dict:
        """What one row is seen as."""
        spec = self.world.spec
        if self.observation == "dict":
            assert spec.state is not None
            frame = gymnasium.spaces.Box(0, 255, spec.frame_shape, np.uint8)
            return gymnasium.spaces.Dict({"frame": frame, "state": spec.state.space()})
        if not self.pixels:
            most = np.finfo(np.float32).max
            return gymnasium.spaces.Box(-most, most, spec.latent_shape, np.float32)
        lead = (spec.chunk,) if self.observation == "chunk" else ()
        return gymnasium.spaces.Box(0, 255, (*lead, *spec.frame_shape), np.uint8)

    def metadata(self) -> dict[str, Any]:
        """Gymnasium's, one's own to change; an agent's step is a chunk of frames long."""
        spec = self.world.spec
        rate = spec.fps / spec.chunk  # whole where it can be: gymnasium.utils.play insists
        return {
            "render_modes": ["rgb_array"],
            "render_fps": int(rate) if rate == int(rate) else rate,
        }

    def native(self, actions: Tensor) -> Tensor:
        """An agent's actions `(..., *action)` in the world's own range."""
        return self.world.spec.action.from_normalized(actions) if self.normalized else actions

    def from_native(self, action: Any) -> Any:
        """One action in the world's own range as an agent gives it: an array, or a whole number."""
        if not self.normalized:
            return action
        given = self.world.spec.action.to_normalized(as_tensor(action, "action"))
        return given.numpy() if given.ndim else int(given)

    def clip(self, options: dict[str, Any], rows: int | None = None) -> Clip | None:
        """The user's start clip in `options`, `(B, k * c, H, W, 3)`, and `(B, k, *action)` and
        `(B, k, D)` if known.

        Without `rows` the clip is that of a sole environment, and B is 1. With `rows` it is one for
        all of them, or one for each with a leading axis of its own.
        """
        frames, actions = options.get("frames"), options.get("actions")
        self._check_fps(options.get("fps"))
        states = options.get("states")
        if frames is None and actions is None and states is None:
            return None
        if frames is None:
            name = "actions" if actions is not None else "states"
            raise WorldError(f'options["{name}"]: needs the clip it led into as options["frames"]')
        try:
            shown, acts = self._check_clip(as_tensor(frames, "frames"), actions, rows)
            return shown.clone(), acts, self._check_states(states, len(shown))
        except WorldError as error:
            raise WorldError(f"options: {error}") from error

    def _check_fps(self, fps: Any) -> None:
        name, wanted = self.world.spec.name, self.world.spec.fps
        if fps is not None and not abs(float(fps) - wanted) <= 0.01 * wanted:
            raise WorldError(
                f'options["fps"]: expected {wanted:g}, the frames a second of {name}, got {fps}; '
                "resample the clip"
            )

    def _check_states(self, states: Any, rows: int) -> Tensor | None:
        """State vectors of a clip of `rows`, (B, k, D); one list of them is for all rows."""
        if states is None:
            return None
        given = as_tensor(states, "states").to(torch.float32)
        return repeat(given, "... -> b ...", b=rows) if given.ndim == 2 else given

    @torch.no_grad()
    def _check_clip(
        self, frames: Tensor, actions: Any, rows: int | None
    ) -> tuple[Tensor, Tensor | None]:
        spec = self.world.spec
        batch = () if rows is None or frames.ndim != 5 else (rows,)
        time = len(batch)
        if frames.ndim > time and frames.shape[time] == 1:
            frames = frames.repeat_interleave(spec.chunk, time)
        chunks = max(1, frames.shape[time] // spec.chunk) if frames.ndim > time else 1
        spec.check_clip(frames, None, batch)
        if actions is not None:
            actions = self.native(self.action.check(actions, (*batch, chunks)))
        if batch:
            return frames, actions
        count = 1 if rows is None else rows
        frames = repeat(frames, "... -> b ...", b=count)
        return frames, None if actions is None else repeat(actions, "... -> b ...", b=count)


def draw_seed(generator: np.random.Generator) -> int:
    """What names the randomness of all episodes of a seed, the same through every environment."""
    return int(generator.integers(SEEDS))


class LightSpec:
    """An environment whose `spec` names its world instead of holding it."""

    core: EnvCore
    _spec: EnvSpec | None = None

    @property
    def spec(self) -> EnvSpec | None:
        """How Gymnasium makes this environment again."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        if spec is not None and "world" in spec.kwargs:  # a network would be copied at every look
            spec.kwargs = {**spec.kwargs, "world": self.core.source}
        self._spec = spec


def check_options(options: Any, known: tuple[str, ...]) -> dict[str, Any]:
    """The `options` of a reset as a dict with none but `known` keys."""
    options = {} if options is None else options
    if not isinstance(options, dict):
        raise WorldError(f"options: expected a dict or None, got {type(options).__name__}")
    if unknown := options.keys() - set(known):
        names = " and ".join(f'"{name}"' for name in known)
        raise WorldError(f"options: expected {names}, got {sorted(unknown)}")
    return options


def check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Raise `WorldError` for a value that is not among `choices`."""
    if value not in choices:
        raise WorldError(f"{name}: expected one of {choices}, got {value!r}")


def check_count(name: str, value: Any, most: int | None = None) -> None:
    """Raise `WorldError` for a value that is neither None nor a whole number from 1 to `most`."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value is not None and not (whole and 1 <= value <= (most or value)):
        span = "from 1 up" if most is None else f"from 1 to {most}"
        raise WorldError(f"{name}: expected None or a whole number {span}, got {value!r}")
