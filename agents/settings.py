"""How an agent learns in dreams, as data: read where TorchRL is not installed too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from worldsim.core import WorldError
from worldsim.fields import ABSENT


@dataclass(frozen=True, kw_only=True)
class ImaginationConfig:
    """How to learn in dreams.

    Attributes:
        method: "ppo" (clipped, GAE; Schulman et al. 2017) or "actor-critic" (one pass over each
            batch, lambda-returns, as Dreamer's with REINFORCE; Hafner et al. 2023, 2301.04104).
        rows, horizon: dreams a batch, and their decisions.
        action_repeat: steps that a decision is held for. Held longer, actions drawn at random lead
            somewhere, and a reward is fewer decisions away; the agent may decide at every step
            when it has learnt.
        epochs, minibatch: passes over a batch, and moments a gradient step (PPO).
        gamma, lmbda: discount, a decision, and lambda of the returns.
        clip: of PPO's ratio.
        entropy: weight of the entropy bonus.
        scale: of rewards, so that values are near 1 to 10.
        distrust: reward lost for a step that the world is sure it gets wrong.
        least_trust: a dream is cut (and bootstrapped) where trust falls below; 0 for never.
        anchor: weight of staying near the cloned actor (squared distance of mean actions).
        text: prompts, of which each dream draws one, in a world that knows words.
    """

    method: Literal["ppo", "actor-critic"] = "ppo"
    rows: int = 128
    horizon: int = 15
    action_repeat: int = field(default=1, metadata=ABSENT)
    epochs: int = 4
    minibatch: int = 480
    gamma: float = 0.98
    lmbda: float = 0.95
    clip: float = 0.2
    entropy: float = 1e-4
    scale: float = 0.1
    distrust: float = 0.0
    least_trust: float = 0.0
    anchor: float = 0.0
    text: tuple[str, ...] = field(default=(), metadata=ABSENT)

    def __post_init__(self) -> None:
        for name in ("rows", "horizon", "action_repeat", "epochs", "minibatch"):
            if getattr(self, name) < 1:
                raise WorldError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.method not in ("ppo", "actor-critic"):
            raise WorldError(f"method: expected ppo or actor-critic, got {self.method!r}")

    @property
    def steps(self) -> int:
        """Of the world, a batch."""
        return self.rows * self.horizon * self.action_repeat
