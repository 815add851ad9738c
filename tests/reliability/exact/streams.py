"""What an environment says, row by row, as bytes: the same through every face."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.worlds import tiny_world
from worldsim.core import WorldModel
from worldsim.envs import WorldSimEnv, WorldSimTorchRL, WorldSimVectorEnv
from worldsim.world.point import PointWorld

FACES = ("gym", "vector", "torchrl")


def world(name: str) -> Any:
    """ "point" ends both ways within six steps, "tiny" is a real network, else a bundled name."""
    if name == "point":
        return PointWorld(size=16, noise=0.3, thrust=0.4, arena=1.0, time_limit=6)
    return tiny_world() if name == "tiny" else name


def actions(world: WorldModel, count: int, seed: int = 0) -> np.ndarray:
    """`(count, *action)` normalised, the same for all rows: only seeds tell them apart."""
    spec, rng = world.spec.action, np.random.default_rng(seed)
    if spec.kind == "discrete":
        return rng.integers(spec.n, size=count)
    return rng.uniform(-1, 1, (count, *spec.shape)).astype(np.float32)


class Digest:
    """SHA-256 over all that was told, values in the types they came in."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()

    def add(self, *values: Any) -> None:
        for x in values:
            x = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
            if x.dtype in (np.float64, np.int64):  # Python's numbers and tensors' alike
                x = x.astype(np.float32)
            self.hash.update(f"{x.dtype}{x.shape}".encode() + np.ascontiguousarray(x).tobytes())

    def __str__(self) -> str:
        return self.hash.hexdigest()


def gym(world: Any, seeds: range, steps: int, **options: Any) -> Iterator[str]:
    """One environment after the other."""
    for seed in seeds:
        env, told = WorldSimEnv(world, **options), Digest()
        told.add(env.reset(seed=seed)[0])
        for action in actions(env.world, steps):
            obs, reward, terminated, truncated, info = env.step(action)
            told.add(obs, np.float32(reward), terminated, truncated)
            told.add(info["steps"], np.float32(info["continue_prob"]))
            if terminated or truncated:
                told.add(env.reset()[0])
        yield str(told)


def vector(world: Any, seeds: range, steps: int, **options: Any) -> Iterator[str]:
    """All seeds as rows of one environment."""
    env = WorldSimVectorEnv(len(seeds), world, **options)
    told = [Digest() for _ in seeds]
    first, _ = env.reset(seed=list(seeds))
    for i, row in enumerate(told):
        row.add(first[i])
    for action in actions(env.world, steps):
        obs, reward, terminated, truncated, info = env.step(np.stack([action] * len(seeds)))
        ended = terminated | truncated
        for i, row in enumerate(told):
            last = info["final_info"] if ended[i] else info
            row.add(info["final_obs"][i] if ended[i] else obs[i], reward[i])
            row.add(terminated[i], truncated[i], last["steps"][i], last["continue_prob"][i])
            if ended[i]:
                row.add(obs[i])
    yield from map(str, told)


def torchrl(world: Any, seeds: range, steps: int, **options: Any) -> Iterator[str]:
    """One environment after the other; `continue_prob` is not told there, so the world is asked."""
    for seed in seeds:
        env, told = WorldSimTorchRL(world, (1,), **options), Digest()
        env.set_seed(seed)
        td = env.reset()
        told.add(td[env._seen_key][0])
        for action in actions(env.core.world, steps):
            td["action"] = torch.as_tensor(action)[None]
            state = env.get_state(td).state
            td = env.step(td)["next"]
            _, said = env.core.world.step(state, env.core.native(torch.as_tensor(action)[None]))
            flags = td["terminated"][0, 0], td["truncated"][0, 0]
            told.add(td[env._seen_key][0], td["reward"][0, 0], *flags)
            told.add(td["world", "age"][0, 0], said.continue_prob[0])
            if any(flags):
                td = env.reset()
                told.add(td[env._seen_key][0])
        yield str(told)


def digests(face: str, name: str, seeds: range, steps: int, **options: Any) -> list[str]:
    """One digest a seed."""
    streams = {"gym": gym, "vector": vector, "torchrl": torchrl}
    return list(streams[face](world(name), seeds, steps, **options))
