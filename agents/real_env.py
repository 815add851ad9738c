"""Real environments as TorchRL's collectors take them, beside the dreams of `imagination`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from worldsim.core import WorldSpec

from .actor_critic import SEEN, ActorCritic, to_world
from .imagination import AgentEnv
from .settings import ImaginationConfig

Frames = NDArray[np.uint8]


class Filmed(Protocol):
    """One real environment, seen and stepped chunk by chunk."""

    def reset(self) -> Frames:
        """The next episode's first chunk, (c, H, W, 3)."""
        ...

    def step(self, action: Any) -> tuple[Frames, float, bool, bool]:
        """An action for one chunk: frames, reward, terminated, truncated."""
        ...


class RealEnv(AgentEnv):
    """Real environments side by side with the entries of a `DreamEnv`; rewards are scaled alike.

    Args:
        spec: of the world that the agent would dream in. agent: who acts. how: the settings.
        envs: a row each.
        see: the newest two chunks' frames (B, 2c, H, W, 3) uint8 -> what the agent sees of them.
    """

    def __init__(
        self,
        spec: WorldSpec,
        agent: ActorCritic,
        how: ImaginationConfig,
        envs: Sequence[Filmed],
        see: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__(spec, agent.config, len(envs), torch.device("cpu"))
        self.world_spec, self.how, self.envs, self.see = spec, how, envs, see
        self.frames = np.zeros((len(envs), SEEN * spec.chunk, *spec.frame_shape), np.uint8)

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDict:
        asked = None if tensordict is None else tensordict.get("_reset", None)
        for row, env in enumerate(self.envs):
            if asked is None or bool(asked[row].any()):
                self.frames[row] = np.concatenate([env.reset()] * SEEN)
        return self._seen({})

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        drawn = tensordict.get("action")
        actions = drawn if self.discrete else to_world(self.world_spec.action, drawn)
        found = [env.step(a) for env, a in zip(self.envs, actions.numpy(), strict=True)]
        chunks, rewards, terminated, truncated = zip(*found, strict=True)
        before = self.frames[:, self.world_spec.chunk :]
        self.frames = np.concatenate([before, np.stack(chunks)], 1)
        return self._seen({
            "reward": self.how.scale * torch.tensor(rewards)[:, None],
            "terminated": torch.tensor(terminated)[:, None],
            "truncated": torch.tensor(truncated)[:, None],
        })  # fmt: skip

    @torch.no_grad()
    def _seen(self, told: dict[str, Tensor]) -> TensorDict:
        told["observation"] = self.see(torch.from_numpy(self.frames))
        return TensorDict(told, self.batch_size)
