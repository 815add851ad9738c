"""A world whose every number is known in advance, and its environments told in plain Python.

`ClockWorld` speaks torch; `ClockRow` is the same life in Python's integers and knows nothing of
worldsim: what the two disagree on, one of them got wrong. `ClockEnvs` tells what Gymnasium asks of
a vector environment in each autoreset mode.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldsim.core import ActionSpec, Prediction, WorldSpec, WorldState

CHOICES, SIZE, CHUNK = 5, 8, 2
CONT = {0: 0.0, 1: 0.49, 2: 0.5}  # of 17; 0.5 goes on


class ClockWorld:
    """Latent (4,): seed's remainder, episode, age and a sum over all actions so far."""

    device = torch.device("cpu")
    calibrated = True
    spec = WorldSpec(
        name="clock",
        frame_shape=(SIZE, SIZE, 3),
        chunk=CHUNK,
        context=2,
        latent_shape=(4,),
        action=ActionSpec(kind="discrete", n=CHOICES),
        fps=20.0,
        time_limit=7,
    )

    def reset(self, key: Tensor) -> WorldState:
        nothing = torch.zeros_like(key[:, 0])
        latent = torch.stack([key[:, 0] % 1009, key[:, 1], nothing, nothing], 1).float()
        return WorldState.of(
            latents=torch.stack([torch.zeros_like(latent), latent], 1),
            actions=self.spec.action.blank(len(key), 2),
            known=torch.zeros(len(key), 2, dtype=torch.bool),
            filled=torch.ones_like(nothing),
            age=nothing,
            key=key,
        )

    def with_num_steps(self, num_steps: int) -> "ClockWorld":
        raise NotImplementedError("nothing is denoised")

    def encode(self, *clip: Any, **more: Any) -> WorldState:
        raise NotImplementedError("programs bring no clips")

    def from_latents(self, *clip: Any, **more: Any) -> WorldState:
        raise NotImplementedError("programs bring no clips")

    def decode_latents(self, latent: Tensor, previous: Tensor, filled: Tensor) -> Tensor:
        raise NotImplementedError("programs look at states")

    def step(
        self,
        state: WorldState,
        action: Tensor | None = None,
        *,
        latent_action: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[WorldState, Prediction]:
        assert action is not None
        seed, episode, age, total = state.latent.long().unbind(1)
        age, total = age + 1, (total * 3 + action) % 97
        latent = torch.stack([seed, episode, age, total], 1).float()
        rest = (seed * 5 + episode * 7 + age * 3 + total) % 17
        continue_prob = torch.ones(len(state))
        for remainder, value in CONT.items():
            continue_prob[rest == remainder] = value
        reward = ((seed * 7 + episode * 3 + age * 5 + total) % 11 - 5).float() / 4
        after = replace(
            state,
            latents=torch.stack([state.latent, latent], 1),
            actions=torch.cat([state.actions[:, 1:], action[:, None]], 1),
            known=torch.cat([state.known[:, 1:], torch.ones_like(state.known[:, :1])], 1),
            filled=torch.full_like(age, 2),
            age=state.age + 1,
        )
        return after, Prediction(reward, continue_prob, torch.full_like(continue_prob, 0.75))

    def decode(self, state: WorldState) -> Tensor:
        seed, episode, age, total = state.latent.long().unbind(1)
        first = torch.stack([age * CHUNK, total, seed + episode], 1)
        later = first + torch.tensor([1, 0, 0])
        both = (torch.stack([first, later], 1) % 256).to(torch.uint8)
        return both[:, :, None, None].expand(-1, -1, SIZE, SIZE, -1).contiguous()


def drawn(seed: int) -> int:
    """What a seed names its episodes' randomness by: NumPy's first draw from it."""
    return int(np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed))).integers(2**63))


@dataclass
class ClockRow:
    """One row's life."""

    name: int = 0  # what the seed drew
    episode: int = -1
    age: int = 0
    total: int = 0
    over: bool = False

    def begin(self, seed: int | None) -> None:
        self.name = self.name if seed is None else drawn(seed)
        self.episode = self.episode + 1 if seed is None else 0
        self.age = self.total = 0
        self.over = False

    def step(self, action: int, limit: int) -> tuple[float, float, bool, bool]:
        """Reward, continue_prob, terminated, truncated."""
        self.age, self.total = self.age + 1, (self.total * 3 + action) % 97
        seed = self.name % 1009
        continue_prob = CONT.get(
            (seed * 5 + self.episode * 7 + self.age * 3 + self.total) % 17, 1.0
        )
        reward = ((seed * 7 + self.episode * 3 + self.age * 5 + self.total) % 11 - 5) / 4
        terminated, truncated = continue_prob < 0.5, self.age >= limit
        self.over = terminated or truncated
        return reward, continue_prob, terminated, truncated

    def seen(self, observation: str) -> Any:
        seed = self.name % 1009
        if observation == "latent":
            return [seed, self.episode, self.age, self.total]
        colours = [
            [(self.age * CHUNK + k) % 256, self.total, (seed + self.episode) % 256] for k in (0, 1)
        ]
        frames = [[[colour] * SIZE] * SIZE for colour in colours]
        return frames if observation == "chunk" else frames[-1]


@dataclass
class ClockEnvs:
    """Rows side by side: what a vector environment must say, entry by entry."""

    rows: int
    mode: str
    limit: int
    observation: str
    row: list[ClockRow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.row = [ClockRow() for _ in range(self.rows)]

    def reset(self, seeds: list[int | None], mask: list[bool]) -> dict[str, Any]:
        for row, seed, chosen in zip(self.row, seeds, mask, strict=True):
            if chosen:
                row.begin(seed)
        steps = [r.age if chosen else 0 for r, chosen in zip(self.row, mask, strict=True)]
        return {"obs": self.seen(), "steps": steps, "_steps": mask}

    def seen(self) -> list[Any]:
        return [row.seen(self.observation) for row in self.row]

    def stuck(self) -> list[int]:
        """Rows that nobody resets."""
        return [i for i, r in enumerate(self.row) if r.over and self.mode == "DISABLED"]

    def step(self, actions: list[int]) -> dict[str, Any]:
        """Lists by name; `final` has the last words of rows that ended, by row."""
        told: dict[str, Any] = {
            n: []
            for n in (
                "obs",
                "reward",
                "terminated",
                "truncated",
                "steps",
                "continue_prob",
                "_continue_prob",
            )
        }
        final: dict[int, dict[str, Any]] = {}
        for i, (row, action) in enumerate(zip(self.row, actions, strict=True)):
            begun = row.over and self.mode == "NEXT_STEP"
            if begun:
                row.begin(None)
                reward, continue_prob, terminated, truncated = 0.0, 0.0, False, False
            else:
                reward, continue_prob, terminated, truncated = row.step(action, self.limit)
            if row.over and self.mode == "SAME_STEP":
                final[i] = {
                    "obs": row.seen(self.observation),
                    "steps": row.age,
                    "continue_prob": continue_prob,
                }
                row.begin(None)
                begun, continue_prob = True, 0.0
            values = (
                row.seen(self.observation),
                reward,
                terminated,
                truncated,
                row.age,
                continue_prob,
            )
            for name, value in zip(told, (*values, not begun), strict=True):
                told[name].append(value)
        return {**told, "final": final}
