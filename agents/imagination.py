"""Learning in imagination: short dreams from real clips, then a policy gradient (`worldsim[rl]`).

Losses and return estimators are TorchRL's. Dreams are short and many: the critic says what is
still to come where a dream stops, so no dream has to run for as long as an episode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import InteractionType, TensorDictModule
from torch import Tensor, nn
from torchrl.modules import IndependentNormal, ProbabilisticActor, ValueOperator
from torchrl.objectives import A2CLoss, ClipPPOLoss
from torchrl.objectives.value import GAE, TDLambdaEstimator

from worldsim.core import WorldModel, WorldState

from .actor_critic import ActorCritic, to_world
from .scoring import heeded
from .settings import Imagination

Starts = Callable[[int, torch.Generator], WorldState]
"""(rows, generator) -> real states to dream on from."""


class _Head(nn.Module):
    """A method of the agent as a module whose parameters TorchRL finds."""

    def __init__(self, agent: ActorCritic, actor: bool) -> None:
        super().__init__()
        self.agent, self.actor = agent, actor

    def forward(self, seen: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        lead = seen.shape[:-3]  # convolutions know one axis of rows
        rows = seen.reshape(-1, *seen.shape[-3:])
        if not self.actor:
            return self.agent.value(rows).reshape(*lead, 1)
        loc = self.agent.loc(rows)
        loc = loc.reshape(*lead, loc.shape[-1])
        if self.agent.spec.action.kind == "discrete":
            return loc
        return loc, self.agent.scale(loc)


def torchrl_actor(agent: ActorCritic) -> ProbabilisticActor:
    """The agent's actor for TorchRL: "observation" (what it sees) -> "action"."""
    discrete = agent.spec.action.kind == "discrete"
    keys: list[Any] = ["logits"] if discrete else ["loc", "scale"]
    kind = torch.distributions.Categorical if discrete else IndependentNormal
    module = TensorDictModule(_Head(agent, True), in_keys=["observation"], out_keys=keys)
    extra: dict[str, Any] = {} if discrete else {"distribution_kwargs": {"tanh_loc": False}}
    return ProbabilisticActor(
        module,
        in_keys=keys,
        distribution_class=kind,
        return_log_prob=True,
        default_interaction_type=InteractionType.RANDOM,  # TorchRL's default draws nothing
        **extra,
    )


def torchrl_critic(agent: ActorCritic) -> ValueOperator:
    """The agent's critic for TorchRL: "observation" -> "state_value"."""
    return ValueOperator(_Head(agent, False), in_keys=["observation"])


class Learner:
    """Dreams and learns; the agent is changed in place, the world never.

    Args:
        world: where to dream. agent: who learns. how: the settings.
        optimizer: of the agent's parameters.
        anchor: the agent to stay near, see `Imagination.anchor`.
    """

    def __init__(
        self,
        world: WorldModel,
        agent: ActorCritic,
        how: Imagination,
        optimizer: torch.optim.Optimizer,
        anchor: ActorCritic | None = None,
    ) -> None:
        self.world, self.agent, self.how, self.optimizer = world, agent, how, optimizer
        self.anchor = anchor
        self.actor, self.critic = torchrl_actor(agent), torchrl_critic(agent)
        returns = {"gamma": how.gamma, "lmbda": how.lmbda, "value_network": self.critic}
        if how.method == "ppo":
            self.estimator = GAE(**returns)
            self.loss = ClipPPOLoss(
                self.actor, self.critic, clip_epsilon=how.clip, entropy_coeff=how.entropy,
                critic_coeff=0.5, normalize_advantage=True,
            )  # fmt: skip
        else:
            self.estimator = TDLambdaEstimator(**returns)
            self.loss = A2CLoss(
                self.actor, self.critic, entropy_coeff=how.entropy, critic_coeff=0.5
            )

    @torch.no_grad()
    def dream(self, state: WorldState) -> TensorDict:
        """Dream from `state` with sampled actions: (B, T), with "next", "live" and log-odds."""
        how, steps = self.how, []
        seen = self.agent.see(self.world, state)
        live = torch.ones(len(state), 1, dtype=torch.bool, device=seen.device)
        for t in range(1, how.horizon + 1):
            moment = self.actor(TensorDict({"observation": seen}, batch_size=[len(state)]))
            drawn = moment["action"]
            discrete = self.agent.spec.action.kind == "discrete"
            action = drawn if discrete else to_world(self.agent.spec.action, drawn)
            state, said = self.world.step(state, action)
            seen = self.agent.see(self.world, state)
            ended = (said.cont < 0.5)[:, None]
            cut = (said.trust < how.least_trust)[:, None] | (t == how.horizon)  # NaN cuts nothing
            after = {
                "observation": seen,
                "reward": how.scale * heeded(said, how.distrust)[:, None],
                "terminated": ended,
                "done": ended | cut,
            }
            moment.set("next", TensorDict(after, batch_size=[len(state)]))
            moment.set("live", live)
            live = live & ~after["done"]
            steps.append(moment)
        return torch.stack(steps, 1)  # type: ignore[return-value]

    def learn(self, state: WorldState, generator: torch.Generator) -> dict[str, float]:
        """One batch of dreams and what is learnt from it; figures for the log."""
        batch = self.dream(state)
        self.estimator(batch)
        live = batch["live"][..., 0]
        moments = batch[live].detach()
        figures: dict[str, float] = {}
        for some in self._minibatches(moments, generator):
            losses = self.loss(some)
            names = ("loss_objective", "loss_critic", "loss_entropy")
            total = torch.stack([losses[n].mean() for n in names if n in losses.keys()]).sum()
            if self.anchor is not None and self.how.anchor:
                total = total + self.how.anchor * self._strayed(some["observation"], self.anchor)
            if not bool(total.isfinite()):
                raise FloatingPointError(f"loss is not finite: {dict(losses.items())}")
            self.optimizer.zero_grad(set_to_none=True)
            total.backward()
            nn.utils.clip_grad_norm_(self.agent.parameters(), 0.5)
            self.optimizer.step()
            figures = {n: losses[n].mean().item() for n in names if n in losses.keys()}
        reward = (batch["next", "reward"] * batch["live"]).sum() / batch["live"].sum()
        figures["reward"] = reward.item() / self.how.scale  # a step
        figures["value"] = moments.get("state_value").mean().item()
        figures["spread"] = self.agent.log_spread.exp().mean().item()
        return figures

    def _minibatches(
        self, moments: TensorDictBase, generator: torch.Generator
    ) -> Iterator[TensorDictBase]:
        for _ in range(self.how.epochs if self.how.method == "ppo" else 1):
            order = torch.randperm(len(moments), generator=generator)
            for rows in order.split(self.how.minibatch):
                yield moments[rows]

    def _strayed(self, seen: Tensor, home: ActorCritic) -> Tensor:
        with torch.no_grad():
            there = home.loc(seen)
        return (self.agent.loc(seen) - there).square().mean()
