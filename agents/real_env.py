"""Real environments as TorchRL's collectors take them, beside the dreams of `imagination`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from worldsim.collect.environment import RecordedEnv
from worldsim.core import WorldSpec

from .actor_critic import SEEN, ActorCritic
from .imagination import AgentEnv
from .settings import ImaginationConfig


class RealEnv(AgentEnv):
    """Real environments side by side with the entries of a `DreamEnv`; rewards are scaled alike.

    Args:
        spec: of the world that the agent would dream in. agent: who acts. config: the settings.
        envs: a row each, their actions native. seeds: of the episodes of each.
        see: the newest two chunks' frames (B, 2c, H, W, 3) uint8 -> what the agent sees of them.
    """

    def __init__(
        self,
        spec: WorldSpec,
        agent: ActorCritic,
        config: ImaginationConfig,
        envs: Sequence[RecordedEnv],
        seeds: Sequence[Iterator[int]],
        see: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__(spec, agent.config, len(envs), torch.device("cpu"))
        self.world_spec, self.config, self.envs, self.see = spec, config, envs, see
        self.seeds = seeds
        self.frames = np.zeros((len(envs), SEEN * spec.chunk, *spec.frame_shape), np.uint8)

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDict:
        asked = None if tensordict is None else tensordict.get("_reset", None)
        for row, env in enumerate(self.envs):
            if asked is None or bool(asked[row].any()):
                self.frames[row] = np.concatenate([env.reset(seed=next(self.seeds[row]))[0]] * SEEN)
        return self._seen({})

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        actions = self.taken(tensordict.get("action")).numpy()
        results = [self._held(row, action) for row, action in enumerate(actions)]
        rewards, terminated, truncated = zip(*results, strict=True)
        return self._seen({
            "reward": self.config.scale * torch.tensor(rewards)[:, None],
            "terminated": torch.tensor(terminated)[:, None],
            "truncated": torch.tensor(truncated)[:, None],
        })  # fmt: skip

    def _held(self, row: int, action: np.ndarray) -> tuple[float, bool, bool]:
        """One row's reward for a decision, and whether its episode ended or was cut meanwhile."""
        total, terminated, truncated = 0.0, False, False
        for _ in range(self.config.action_repeat):
            chunk, reward, terminated, truncated, _ = self.envs[row].step(action)
            self.frames[row] = np.concatenate([self.frames[row], chunk])[-len(self.frames[row]) :]
            total += float(reward)
            if terminated or truncated:
                break
        return total, terminated, truncated

    @torch.no_grad()
    def _seen(self, entries: dict[str, Tensor]) -> TensorDict:
        entries["observation"] = self.see(torch.from_numpy(self.frames))
        return TensorDict(entries, self.batch_size)
