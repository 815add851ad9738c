"""Policies of stable-baselines3 and TorchRL as ``obs -> action``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from worldsim.actions import as_tensor

from .environment import RecordedEnv
from .errors import CollectError
from .observation import WHOLE


def is_sb3(policy: Any) -> bool:
    """Whether this acts as stable-baselines3's models and policies do."""
    return callable(getattr(policy, "predict", None)) and hasattr(policy, "observation_space")


def is_tensordict(policy: Any) -> bool:
    """Whether this is a TorchRL actor or another tensordict module."""
    return callable(policy) and hasattr(policy, "in_keys") and hasattr(policy, "out_keys")


def from_sb3(model: Any, env: RecordedEnv, rng: object) -> Callable[[Any], Any]:
    """A stable-baselines3 model, trained in the environment itself or in a world of it.

    One that was trained in the environment sees its observations. One that was trained in
    `WorldSim-v0` sees the frames of a world, and its actions are from -1 to 1.
    """
    actor = getattr(model, "policy", model)
    dreamt = _sees_frames(actor.observation_space, env)
    state, first = None, np.ones(1, bool)

    def policy(obs: Any) -> Any:
        nonlocal state, first
        seen = env.frames[-1] if dreamt else obs
        with torch.no_grad():
            action, state = actor.predict(seen, state=state, episode_start=first)
        first = np.zeros(1, bool)
        return _in_range(action, env) if dreamt else action

    return policy


def _sees_frames(space: spaces.Space[Any], env: RecordedEnv) -> bool:
    """Whether a space is that of a world's frames (channels may lead) and not the environment's."""
    ours, theirs = env.recording.size, env.env.observation_space.shape
    frames = ((*ours, 3), (3, *ours))
    return space.shape in frames and theirs not in frames


def _in_range(action: Any, env: RecordedEnv) -> NDArray[Any]:
    given = as_tensor(action, "action")
    return env.native.from_normalized(given).numpy() if not env.native.is_discrete else action


def from_tensordict(actor: Any, env: RecordedEnv, rng: object) -> Callable[[Any], Any]:
    """A TorchRL actor. It is given "observation" or the parts of a dict observation, and "pixels",
    the newest frame as it is recorded; choices may be one-hot, as TorchRL's are by default."""
    from tensordict import TensorDict

    device = next((p.device for p in getattr(actor, "parameters", lambda: ())()), None)

    def policy(obs: Any) -> NDArray[Any]:
        parts = obs if isinstance(obs, Mapping) else {WHOLE: obs}
        arrays = {"pixels": env.frames[-1], **parts}
        seen = {key: torch.as_tensor(np.array(value)) for key, value in arrays.items()
                if key in _names(actor.in_keys)}  # fmt: skip
        seen = {k: v.float() if v.is_floating_point() else v for k, v in seen.items()}
        with torch.no_grad():
            action = actor(TensorDict(seen, device=device)).get("action", None)
        if action is None:
            keys = list(actor.out_keys)
            raise CollectError(f'policy: expected a module that writes "action", got {keys}')
        return _choice(action.detach().cpu().numpy(), env)

    return policy


def _names(keys: Any) -> set[str]:
    return {key if isinstance(key, str) else key[-1] for key in keys}


def _choice(action: NDArray[Any], env: RecordedEnv) -> NDArray[Any]:
    """A one-hot choice as its number."""
    spec = env.native
    if spec.kind == "discrete" and action.size == spec.n > 1:
        return np.asarray(spec.start + int(action.argmax()))
    return action
