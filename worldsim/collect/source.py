"""An environment that is to be recorded: from whatever the user has to a full `EnvironmentSpec`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import gymnasium
import numpy as np

from worldsim.core import EnvironmentSpec

from .environment import Env, RecordedEnv, make_by, make_named, make_source, named
from .errors import CollectError
from .observation import picture_key, state_parts

SIDE = 64  # pixels of the longest side of a frame, or a little more, unless the user says
MULTIPLE = 8  # sides of frames are divisible by this
FORGIVEN = 0.03  # of the aspect ratio, to come by smaller frames


@dataclass(frozen=True, kw_only=True)
class Source:
    """An environment and how it is seen.

    Attributes:
        spec: how it is seen, and how it is made again; id "" where it has no name.
        make: makes it, in any process.
        shared: whether `make` always returns the same object, which stays open.
    """

    spec: EnvironmentSpec
    make: Callable[[], Env]
    shared: bool = False

    def open(self) -> RecordedEnv:
        """The environment as it is recorded: chunks, native actions."""
        return RecordedEnv(self.make(), self.spec, observation="chunk", actions="native")


def named_source(spec: EnvironmentSpec, *, trust_code: bool = False) -> Source:
    """The environment of a dataset, a world or a recipe."""
    make_source(spec, trust_code=trust_code).close()  # what it names is refused or missing here
    return Source(spec=spec, make=partial(make_source, spec, trust_code=trust_code))


def source_of(
    env: Any,
    *,
    env_kwargs: Mapping[str, Any],
    wrappers: Sequence[Any],
    source: Literal["observation", "render"] | None,
    image: str,
    state: Sequence[str] | bool | None,
    size: tuple[int, int] | None,
    **seen: Any,
) -> Source:
    """The source of an id, "module:function", a function or an environment; see `collect`.

    seen: further fields of `EnvironmentSpec`. Raises CollectError where it cannot be recorded.
    """
    keywords = _plain(env_kwargs)
    names = [one if isinstance(one, str) else _path_of(one) for one in wrappers]
    functions = [named(one, "wrappers") if isinstance(one, str) else one for one in wrappers]
    if isinstance(env, gymnasium.Env):
        return _of_object(env, functions, keywords, source, image, state, size, seen)
    id, base = _name_and_maker(env)
    whole = id and all(names)
    spec = EnvironmentSpec(
        id=id if whole else "", size=size or (SIDE, SIDE), kwargs=keywords,
        wrappers=tuple(names) if whole else (), **seen,
    )  # fmt: skip
    probe, shows = _probe(partial(_made, base, functions), keywords, source)
    try:
        spec = _described(probe, spec, shows, image, state, size)
    finally:
        probe.close()
    make = partial(_made, base, functions, keywords, spec.source)
    return Source(spec=spec, make=make)


def _of_object(
    env: Env, functions: Sequence[Any], keywords: dict[str, Any], source: Any, image: str,
    state: Any, size: Any, seen: dict[str, Any],
) -> Source:  # fmt: skip
    if keywords:
        raise CollectError("env_kwargs: expected none for an environment that is made already")
    id, kwargs = "", {}
    if not functions and env.spec is not None and not env.spec.additional_wrappers:
        id = env.spec.id
        try:
            kwargs = _plain({k: v for k, v in env.spec.kwargs.items() if k != "render_mode"})
        except CollectError:
            id = ""
    for function in functions:
        env = function(env)
    spec = EnvironmentSpec(id=id, size=size or (SIDE, SIDE), kwargs=kwargs, **seen)
    shows = source or _best_source(env)
    return Source(
        spec=_described(env, spec, shows, image, state, size), make=lambda: env, shared=True
    )


def _name_and_maker(env: Any) -> tuple[str, Callable[[dict[str, Any]], Env]]:
    """The name that another process finds it by, and what makes it of keywords."""
    if isinstance(env, str):
        registered = None if ":" in env else gymnasium.registry.get(env)
        return env, partial(_by_id, env, registered)
    if not callable(env):
        raise CollectError(
            "env: expected an id, 'module:function', a function that returns an environment, or a "
            f"gymnasium.Env, got {type(env).__name__}"
        )
    path = _path_of(env)
    return path, lambda keywords: make_by(env, keywords, path or repr(env))


def _by_id(id: str, registered: Any, keywords: dict[str, Any]) -> Env:
    """An environment by id, which a script may have registered in its own process only."""
    if registered is not None:
        gymnasium.registry.setdefault(id, registered)
    return make_named(id, keywords)


def _made(
    base: Callable[[dict[str, Any]], Env],
    wrappers: Sequence[Callable[[Env], Env]],
    keywords: dict[str, Any],
    source: Literal["observation", "render"],
) -> Env:
    env = base({"render_mode": "rgb_array", **keywords} if source == "render" else {**keywords})
    for wrapper in wrappers:
        env = wrapper(env)
    return env


def _probe(
    make: Callable[..., Env],
    keywords: dict[str, Any],
    source: Literal["observation", "render"] | None,
) -> tuple[Env, Literal["observation", "render"]]:
    """The environment, and where its pictures are."""
    if source is not None:
        return make(keywords, source), source
    try:
        env = make(keywords, "render")
    except CollectError:  # it may show pictures without being able to render
        env = make(keywords, "observation")
    return env, _best_source(env)


def _best_source(env: Env) -> Literal["observation", "render"]:
    return "render" if picture_key(env.observation_space) is None else "observation"


def _described(
    env: Env,
    spec: EnvironmentSpec,
    source: Literal["observation", "render"],
    image: str,
    state: Sequence[str] | bool | None,
    size: tuple[int, int] | None,
) -> EnvironmentSpec:
    space = env.observation_space
    if state is None or isinstance(state, bool):
        state = () if state is False else state_parts(space)
    if source == "observation" and isinstance(space, gymnasium.spaces.Dict):
        image = image or picture_key(space) or ""
        if image not in space.spaces:
            raise CollectError(f"image: expected one of {list(space)}, got {image!r}")
    spec = replace(spec, source=source, image=image, state=tuple(state))
    return replace(spec, size=fitting_size(env, spec) if size is None else checked_size(size))


def checked_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width), refused unless both are divisible by 8."""
    if len(size) != 2 or any(type(s) is not int or s < MULTIPLE or s % MULTIPLE for s in size):
        near = tuple(max(MULTIPLE, round(s / MULTIPLE) * MULTIPLE) for s in size)
        raise CollectError(
            f"size: expected (height, width) divisible by {MULTIPLE}, got {tuple(size)}; such as "
            f"{near}"
        )
    return size[0], size[1]


def fitting_size(env: Env, spec: EnvironmentSpec) -> tuple[int, int]:
    """A size for the frames of `env`, said aloud: small, of the same aspect, divisible by 8."""
    seen = RecordedEnv(env, spec)
    seen.reset(seed=0)
    shape = seen.picture().shape[:2]
    size = small_size(*shape)
    if size != shape:
        aspect = "" if abs(size[1] * shape[0] / size[0] / shape[1] - 1) <= FORGIVEN else (
            ", which changes the aspect"
        )  # fmt: skip
        print(
            f"size: frames of {shape[0]}x{shape[1]} are resized to {size[0]}x{size[1]}{aspect}; "
            "pass size=(height, width), divisible by 8, for another",
            file=sys.stderr,
        )
    return size


def small_size(height: int, width: int) -> tuple[int, int]:
    """Sides divisible by 8, the longest at least 64 unless the picture is smaller; the first of
    growing sizes whose aspect is the picture's."""
    longest = max(height, width)
    least = min(SIDE, max(MULTIPLE, round(longest / MULTIPLE) * MULTIPLE))
    sizes = []
    for side in range(least, max(least, min(longest, 2 * SIDE)) + 1, MULTIPLE):
        rows, columns = (max(MULTIPLE, round(s * side / longest / MULTIPLE) * MULTIPLE)
                         for s in (height, width))  # fmt: skip
        sizes.append((abs(np.log(columns * height / (rows * width))), (rows, columns)))
    return next((size for error, size in sizes if error <= FORGIVEN), min(sizes)[1])


def _plain(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """As they will be read again, so that a resumed recording finds itself equal."""
    try:
        return json.loads(json.dumps(dict(keywords), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise CollectError(
            f"env_kwargs: expected values that JSON can hold, got {error}; give a function that "
            "makes the environment instead"
        ) from error


def _path_of(function: Any) -> str:
    """The "module:name" by which another process finds a function, "" if there is none."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if not module or module == "__main__" or not name.isidentifier():
        return ""
    found = getattr(sys.modules.get(module), name, None)
    return f"{module}:{name}" if found is function else ""
