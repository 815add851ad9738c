"""Learning in imagination: short dreams from real clips, then a policy gradient.

Losses, return estimators and the collector are TorchRL's. Dreams are short and many: the critic
says what is still to come where a dream stops, so none has to run for as long as an episode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import InteractionType, TensorDictModule
from torch import Tensor, nn
from torchrl.collectors import Collector
from torchrl.data import Categorical, Composite, MultiCategorical, TensorSpec, Unbounded
from torchrl.envs import EnvBase
from torchrl.modules import IndependentNormal, ProbabilisticActor, ValueOperator
from torchrl.objectives import A2CLoss, ClipPPOLoss
from torchrl.objectives.value import GAE, TDLambdaEstimator

from worldsim.core import ActionSpec, WorldModel, WorldSpec, WorldState

from .actor_critic import ActorCritic, AgentConfig, seen_shape
from .distributions import IndependentCategorical, ScaledBeta
from .scoring import trusted_reward
from .settings import ImaginationConfig

Starts = Callable[[int, torch.Generator], WorldState]
"""(rows, generator) -> real states to dream on from."""

LOSSES = ("loss_objective", "loss_critic", "loss_entropy")


class _Head(nn.Module):
    """A method of the agent as a module whose parameters TorchRL finds."""

    def __init__(self, agent: ActorCritic, actor: bool) -> None:
        super().__init__()
        self.agent, self.actor = agent, actor

    def forward(self, seen: Tensor) -> Tensor | tuple[Tensor, ...]:
        tail = seen_shape(self.agent.spec, self.agent.config)
        lead = seen.shape[: -len(tail)]  # convolutions know one axis of rows
        rows = seen.reshape(-1, *tail)
        if not self.actor:
            return self.agent.value(rows).reshape(*lead, 1)
        found = self.agent.distribution(rows)
        parts = [part.reshape(*lead, *part.shape[1:]) for part in found]
        return tuple(parts) if len(parts) > 1 else parts[0]


def torchrl_actor(agent: ActorCritic) -> ProbabilisticActor:
    """The agent's actor for TorchRL: "observation" (what it sees) -> "action"."""
    kind, keys = _distribution(agent)
    module = TensorDictModule(_Head(agent, True), in_keys=["observation"], out_keys=keys)
    unbounded = kind is IndependentNormal
    extra: dict[str, Any] = {"distribution_kwargs": {"tanh_loc": False}} if unbounded else {}
    return ProbabilisticActor(
        module,
        in_keys=keys,
        distribution_class=kind,
        return_log_prob=True,
        default_interaction_type=InteractionType.RANDOM,  # TorchRL's default draws nothing
        **extra,
    )


def _distribution(agent: ActorCritic) -> tuple[Any, list[Any]]:
    """Of the agent's actions, and the names of its parameters."""
    if agent.choices:
        several = bool(agent.spec.action.shape)
        return IndependentCategorical if several else torch.distributions.Categorical, ["logits"]
    if agent.config.distribution == "beta":
        return ScaledBeta, ["concentration1", "concentration0"]
    return IndependentNormal, ["loc", "scale"]


def torchrl_critic(agent: ActorCritic) -> ValueOperator:
    """The agent's critic for TorchRL: "observation" -> "state_value"."""
    return ValueOperator(_Head(agent, False), in_keys=["observation"])


class AgentEnv(EnvBase):
    """Rows that an agent acts in, as TorchRL's collectors take them.

    Entries: "observation" (what the agent sees), "action" (around -1 to 1, clipped where it is
    carried out; choices are int64 from 0), "reward", "done", "terminated", "truncated".

    Attributes:
        generator: of whatever the environment draws.
    """

    def __init__(self, spec: WorldSpec, config: AgentConfig, rows: int, device: torch.device):
        super().__init__(device=device, batch_size=torch.Size([rows]))
        self.generator = torch.Generator()
        shape, action = self.batch_size, spec.action
        seen = torch.Size((*shape, *seen_shape(spec, config)))
        self.observation_spec = Composite(
            observation=Unbounded(seen, dtype=torch.float32), shape=shape
        )
        self.world_action = action
        self.action_spec = _action_spec(action, torch.Size((*shape, *action.shape)))
        single = torch.Size((*shape, 1))
        self.reward_spec = Unbounded(single, dtype=torch.float32)
        flag = Categorical(2, shape=single, dtype=torch.bool)
        ends = ("done", "terminated", "truncated")
        self.done_spec = Composite({name: flag.clone() for name in ends}, shape=shape)

    def _set_seed(self, seed: int | None) -> None:
        self.generator.manual_seed(seed or 0)

    def taken(self, drawn: Tensor) -> Tensor:
        """What was drawn, as the world takes it."""
        action = self.world_action
        return action.from_normalized(drawn if action.is_discrete else drawn.clamp(-1, 1))


def _action_spec(action: ActionSpec, shape: torch.Size) -> TensorSpec:
    if not action.is_discrete:
        return Unbounded(shape, dtype=torch.float32)
    if action.shape:
        return MultiCategorical(action.choices, shape=shape, dtype=torch.int64)
    return Categorical(action.choices[0], shape=shape, dtype=torch.int64)


class DreamEnv(AgentEnv):
    """Dreams that begin in real states, as TorchRL's collectors take them.

    The world's state stays inside (its keys and values, most of what a row weighs, would travel
    twice a step otherwise), so the rows are fixed. A dream never ends by itself: a collector that
    resets at each batch cuts it at the batch's length, which is not an end, so estimators bootstrap
    there. Where the world ends an episode (`terminated`), or is no longer to be trusted
    (`truncated`), a row begins a new dream. Rewards are scaled, less what distrust costs.
    """

    def __init__(
        self, world: WorldModel, agent: ActorCritic, config: ImaginationConfig, starts: Starts
    ) -> None:
        super().__init__(world.spec, agent.config, config.rows, world.device)
        self.world, self.agent, self.config, self.starts = world, agent, config, starts
        self.state: WorldState | None = None

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDict:
        asked = None if tensordict is None else tensordict.get("_reset", None)
        if asked is None or self.state is None or bool(asked.all()):
            self.state = self.starts(self.config.rows, self.generator)
        else:
            rows = asked.reshape(-1)
            fresh = self.starts(int(rows.sum()), self.generator)
            self.state = fresh[(rows.cumsum(0) - 1).clamp(min=0)].where(rows, self.state)
        return self._seen({})

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        assert self.state is not None
        action = self.taken(tensordict.get("action"))
        reward = torch.zeros(self.batch_size, device=self.device)
        terminated = torch.zeros(self.batch_size, dtype=torch.bool, device=self.device)
        truncated = terminated.clone()
        for held in range(self.config.action_repeat):
            over = terminated | truncated  # such a row stays where it ended
            state, prediction = self.world.step(self.state, action)
            # nothing is over in the first step: asking would have a GPU waited for
            self.state = self.state.where(over, state) if held and bool(over.any()) else state
            reward += trusted_reward(prediction, self.config.distrust).masked_fill(over, 0)
            terminated |= (prediction.continue_prob < 0.5) & ~over
            # trust that is unknown (NaN) cuts nothing
            truncated |= (prediction.trust < self.config.least_trust) & ~over
        ends = {"terminated": terminated[:, None], "truncated": truncated[:, None]}
        return self._seen({"reward": self.config.scale * reward[:, None], **ends})

    @torch.no_grad()
    def _seen(self, entries: dict[str, Tensor]) -> TensorDict:
        assert self.state is not None
        entries["observation"] = self.agent.see(self.world, self.state)
        return TensorDict(entries, self.batch_size, device=self.device)


class Learner:
    """Acts and learns; the agent is changed in place, nothing else is.

    Args:
        env: where to act.
        agent: who learns. config: the settings.
        optimizer: of the agent's parameters.
        anchor: the agent to stay near, see `ImaginationConfig.anchor`.
    """

    def __init__(
        self,
        env: AgentEnv,
        agent: ActorCritic,
        config: ImaginationConfig,
        optimizer: torch.optim.Optimizer,
        anchor: ActorCritic | None = None,
    ) -> None:
        self.agent, self.config, self.optimizer, self.anchor = agent, config, optimizer, anchor
        actor, critic = torchrl_actor(agent), torchrl_critic(agent)
        self.env = env
        self.collector = Collector(
            self.env,
            actor,
            frames_per_batch=config.rows * config.horizon,
            total_frames=-1,
            reset_at_each_iter=True,  # so that nothing but the agent lasts from batch to batch
        )
        self.batches = iter(self.collector)
        returns: dict[str, Any] = {
            "gamma": config.gamma,
            "lmbda": config.lmbda,
            "value_network": critic,
        }
        weights: dict[str, Any] = {"entropy_coeff": config.entropy, "critic_coeff": 0.5}
        if config.method == "ppo":
            self.estimator = GAE(**returns)
            clipped: dict[str, Any] = {"clip_epsilon": config.clip, "normalize_advantage": True}
            self.loss = ClipPPOLoss(actor, critic, **clipped, **weights)
        else:
            self.estimator = TDLambdaEstimator(**returns)
            self.loss = A2CLoss(actor, critic, **weights)

    def dream(self, generator: torch.Generator) -> TensorDictBase:
        """A batch of dreams under sampled actions, (rows, horizon), with advantages.

        generator: of the states that they begin in; actions are drawn by torch's default one.
        """
        self.env.generator = generator
        batch = next(self.batches)
        with torch.no_grad():
            return self.estimator(batch)

    def learn(self, generator: torch.Generator) -> dict[str, float]:
        """One batch of dreams and what is learnt from it; figures for the log."""
        batch = self.dream(generator)
        moments, figures = batch.reshape(-1), {}
        for some in self._minibatches(moments, generator):
            losses = self.loss(some)
            total = torch.stack([losses[n].mean() for n in LOSSES]).sum()
            if self.anchor is not None and self.config.anchor:
                total = total + self.config.anchor * self._distance(
                    some["observation"], self.anchor
                )
            if not bool(total.isfinite()):
                raise FloatingPointError(f"loss is not finite: {dict(losses.items())}")
            self.optimizer.zero_grad(set_to_none=True)
            total.backward()
            norm = nn.utils.clip_grad_norm_(self.agent.parameters(), 0.5)
            if not bool(norm.isfinite()):  # a loss may be finite where its slope is not
                raise FloatingPointError(f"gradient is not finite: {dict(losses.items())}")
            self.optimizer.step()
            figures = {n: losses[n].mean().item() for n in LOSSES}
        # a row's dreamt reward over the horizon, in the world's own units
        figures["return"] = batch["next", "reward"].sum(1).mean().item() / self.config.scale
        figures["value"] = batch["state_value"].mean().item()
        with torch.no_grad():
            figures["spread"] = self.agent.spread(some["observation"])
        return figures

    def close(self) -> None:
        """Let the collector go."""
        self.collector.shutdown()

    def _minibatches(
        self, moments: TensorDictBase, generator: torch.Generator
    ) -> Iterator[TensorDictBase]:
        for _ in range(self.config.epochs if self.config.method == "ppo" else 1):
            order = torch.randperm(len(moments), generator=generator)
            for rows in order.split(self.config.minibatch):
                yield moments[rows]

    def _distance(self, seen: Tensor, home: ActorCritic) -> Tensor:
        with torch.no_grad():
            there = home.loc(seen)
        return (self.agent.loc(seen) - there).square().mean()
