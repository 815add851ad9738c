"""B4: three hundred bad inputs, each refused by name, with the state's bytes as they were."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from tests.reliability.exact.streams import Digest
from tests.worlds import BUTTONS, tiny_world
from worldsim.core import WorldError
from worldsim.envs import WorldSimEnv, WorldSimTorchRL, WorldSimVectorEnv
from worldsim.world.point import PointWorld

ROWS = 3
Case = tuple[str, Any, Callable[[], Any], Callable[[], Any]]
"""Name, environment, the bad call, and the state that it must leave alone."""
WORLDS: dict[str, Any] = {
    "point": PointWorld(size=16, noise=0.3, time_limit=50),
    "buttons": PointWorld(size=16, discrete=True, time_limit=50),
    "tiny": tiny_world(),
    "tiny buttons": tiny_world(BUTTONS),
}
ODD = (float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 2.0, -1.5)


def bad_actions(spec: Any, rows: int | None) -> Iterator[tuple[str, Any]]:
    """Values, kinds and shapes that no action has."""
    lead = () if rows is None else (rows,)
    shape = (*lead, *spec.shape)
    fine = np.zeros(shape, np.int64 if spec.kind == "discrete" else np.float32)
    entries = range(max(1, fine.size))

    def planted(value: Any, entry: int, dtype: Any = None) -> np.ndarray:
        wrong = fine.astype(dtype or fine.dtype).reshape(-1)
        wrong[entry] = value
        return wrong.reshape(shape)

    if spec.kind == "discrete":
        for entry in entries:
            for value in (-1, -(2**31), spec.n, spec.n + 1, 2**62):
                yield f"{value} at {entry}", planted(value, entry)
        yield "floats", fine.astype(np.float32)
        yield "half a choice", fine + 0.5
    else:
        above = np.nextafter(np.float32(1), np.float32(2))
        for entry in entries:
            for value in (*ODD, float(above), -float(above)):
                yield f"{value} at {entry}", planted(value, entry)
        yield "doubles beyond", planted(1.001, 0, np.float64)
    for name, value in {
        "bool": fine.astype(bool),
        "complex": fine.astype(np.complex64),
        "an axis more": fine[None],
        "words": np.full(shape, "left"),
        "objects": np.full(shape, None, object),
        "None": None,
        "a dict": {"action": 0},
        "a tensor too long": torch.zeros(*shape, 2),
        "an empty list": [],
        "a ragged list": [[0.0], [0.0, 0.0]],
    }.items():
        yield name, value
    if rows is not None:
        yield "a row less", fine[:-1]
        yield "a row more", np.concatenate([fine, fine[:1]])


def bad_clips(spec: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Start clips that do not fit, and options that are none."""
    height, width, _ = spec.frame_shape
    fine = np.zeros((spec.chunk, height, width, 3), np.uint8)
    frames = {
        "floats": fine / 255,
        "wide integers": fine.astype(np.int32),
        "channels first": np.moveaxis(fine, -1, 1),
        "too small": fine[:, : height // 2],
        "grey": fine[..., 0],
        "alpha": np.zeros((spec.chunk, height, width, 4), np.uint8),
        "none": fine[:0],
        "too many": np.repeat(fine, spec.context + 1, 0),
        "no axis": fine[0],
        "words": ["a"],
        "NaN": np.full(fine.shape, np.nan),
    }
    for name, wrong in frames.items():
        yield f"frames {name}", {"frames": wrong}
    yield "actions alone", {"actions": np.zeros((1, *spec.action.shape))}
    yield "actions too many", {"frames": fine, "actions": np.zeros((5, *spec.action.shape))}
    yield "misspelt", {"frame": fine}


def damaged(env: Any, saved: Any) -> Iterator[tuple[str, Any]]:
    """Saved states that fit no environment of this world."""
    episode = getattr(saved, "episode", saved)
    state = episode.state
    for name, wrong in {
        "half latents": replace(state, latents=state.latents.half()),
        "short latents": replace(state, latents=state.latents[..., :-1]),
        "short context": replace(state, latents=state.latents[:, 1:]),
        "float age": replace(state, age=state.age.float()),
        "negative age": replace(state, age=state.age - 10**6),
        "empty": replace(state, filled=state.filled * 0),
        "overfull": replace(state, filled=state.filled + env.core.world.spec.context),
        "a key too long": replace(state, key=state.key.repeat(1, 2)),
        "more rows": state.repeat(2),
    }.items():
        if episode is saved:
            yield name, replace(saved, state=wrong)
        else:
            yield name, replace(saved, episode=replace(episode, state=wrong))
    yield "another world", replace(saved, world="mars")
    yield "nothing", None
    yield "a dict", {"state": state}


def cases() -> Iterator[Case]:
    """All of them; every environment is some steps into an episode."""
    for name, world in WORLDS.items():
        for rows in (None, ROWS):
            if rows is None:
                env: Any = WorldSimEnv(world, time_limit=50)
            else:
                env = WorldSimVectorEnv(rows, world, time_limit=50)
            env.reset(seed=0)
            env.step(env.action_space.sample() * 0)
            kind = f"{name}, {'single' if rows is None else 'vector'}"
            saved, reset = env.get_state(), env.reset
            for what, action in bad_actions(env.core.action, rows):
                yield f"{kind}: {what}", env, lambda e=env, a=action: e.step(a), env.get_state
            for what, options in bad_clips(world.spec):
                call = lambda r=reset, o=options: r(seed=1, options=o)  # noqa: E731
                yield f"{kind}: {what}", env, call, env.get_state
            for what, wrong in damaged(env, saved):
                yield f"{kind}: {what}", env, lambda e=env, w=wrong: e.set_state(w), env.get_state
        yield from torchrl_cases(name, world)


def torchrl_cases(name: str, world: Any) -> Iterator[Case]:
    env = WorldSimTorchRL(world, (ROWS,))
    env.set_seed(0)
    td = env.rand_step(env.reset())["next"].exclude("reward")

    def state() -> Any:
        return env.get_state(td)

    for what, wrong in damaged(env, state()):
        yield f"{name}, torchrl: {what}", env, lambda w=wrong: env.set_state(w), state
    for what, shape in {"a row less": (ROWS - 1,), "an axis more": (ROWS, 1)}.items():
        action = torch.zeros(*shape, *world.spec.action.shape, dtype=world.spec.action.dtype)
        packed = state().state
        yield f"{name}, world: {what}", env, lambda a=action, p=packed: world.step(p, a), state


def bytes_of(state: Any) -> str:
    """A digest of every tensor and every number of a saved state."""
    from worldsim.store.snapshot import _take_apart

    tensors: dict[str, Any] = {}
    told = Digest()
    told.add(np.array(str(_take_apart(state, "", tensors))))
    for name in sorted(tensors):
        told.add(np.array(name), tensors[name])
    return str(told)


def wrong(case: Case) -> str | None:
    """What was not as it must be, or None."""
    name, _, call, state = case
    before = bytes_of(state())
    try:
        call()
    except WorldError as error:
        if "expected" not in str(error) and "needs" not in str(error):
            return f"{name}: does not say what was expected: {error}"
    except Exception as error:  # noqa: BLE001
        return f"{name}: {type(error).__name__}: {error}"
    else:
        return f"{name}: taken"
    return None if bytes_of(state()) == before else f"{name}: changed the state"
