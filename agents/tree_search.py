"""Tree search over forked dreams, all rows at once; scores from TorchRL."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.modules.mcts import PUCTScore

from worldsim.core import WorldError, WorldModel, WorldState
from worldsim.nn.dtype import default_float32

from .planners import Plan, Policy
from .scoring import Value, trusted_reward

UNTRIED = 1e-6  # visits of an untried action: TorchRL's score divides by them


@dataclass
class Tree:
    """Nodes of B trees, (B, S, n) by node and action; node 0 is the root, each run adds one.

    Attributes:
        states: node s of row b is row s * B + b; those of nodes yet to come are blank.
        child: (B, S, n) the node behind an action, -1 if untried.
        visits, total: (B, S, n) runs through an action and the sum of their returns.
        prior: (B, S, n) odds of the actions.
        reward, continue_prob: (B, S) what the step into a node earned, and the odds of going on.
        barred: (B, S, n) actions whose dream was not finite: never taken again, and never counted.
    """

    states: WorldState
    child: Tensor
    visits: Tensor
    total: Tensor
    prior: Tensor
    reward: Tensor
    continue_prob: Tensor
    barred: Tensor


@dataclass(frozen=True, kw_only=True)
class TreeSearch:
    """Batched PUCT (AlphaZero; Silver et al. 2017) for discrete actions.

    Each simulation forks one state a row, and all rows step in one batched call. Values are scaled
    to 0 to 1 by the least and largest seen in the tree (MuZero, 1911.08265, Eq. 5).

    Attributes:
        simulations: steps of the world a plan costs each row.
        c: how much the prior counts.
        gamma: discount a step.
        distrust: as in `Shooting`.
        value: what is still to come at a leaf; 0 if None.
        prior: state -> odds `(B, n)`; uniform if None.
    """

    simulations: int = 64
    c: float = 1.25
    gamma: float = 1.0
    distrust: float = 0.0
    value: Value | None = None
    prior: Policy | None = None

    @default_float32()
    @torch.no_grad()
    def plan(
        self,
        world: WorldModel,
        state: WorldState,
        *,
        previous: Plan | None = None,
        generator: torch.Generator | None = None,
    ) -> Plan:
        """See `Planner.plan`; a plan is one action long, the most visited one.

        Neither `previous` nor `generator` is used: a tree starts anew and draws nothing.
        """
        spec = world.spec.action
        if not spec.is_discrete or spec.shape or self.simulations < 1:
            raise WorldError(
                "TreeSearch: expected one discrete action a step and at least 1 simulation, got "
                f"{spec.kind} and {self.simulations}; use CategoricalCEM for several choices"
            )
        tree = self._plant(world, state)
        for node in range(1, self.simulations + 1):
            path = self._descend(tree)
            leaf = self._grow(world, tree, node, *path[-1][:2])
            self._back_up(tree, path, leaf)
        visits = tree.visits[:, 0]
        action = visits.argmax(-1)
        value = (tree.total[:, 0] / visits.clamp(min=1)).gather(1, action[:, None])[:, 0]
        actions = spec.from_normalized(action)[:, None]
        return Plan(actions, value, actions[:, None][:, :0])

    def _plant(self, world: WorldModel, state: WorldState) -> Tree:
        size = (len(state), self.simulations + 1, world.spec.action.choices[0])
        zeros = torch.zeros(size, device=state.key.device)
        tree = Tree(
            states=_room_for(state, size[1]),
            child=torch.full(size, -1, device=zeros.device),
            visits=zeros,
            total=zeros.clone(),
            prior=zeros + 1 / size[-1],
            reward=zeros[..., 0].clone(),
            continue_prob=zeros[..., 0] + 1,
            barred=torch.zeros_like(zeros, dtype=torch.bool),
        )
        if self.prior is not None:
            tree.prior[:, 0] = self.prior(state).nan_to_num(0, 0, 0)
        return tree

    def _descend(self, tree: Tree) -> list[tuple[Tensor, Tensor, Tensor]]:
        """From the root to an untried action: (node, action, on the way) `(B,)` at each depth."""
        rows = torch.arange(len(tree.child), device=tree.child.device)
        node, going = torch.zeros_like(rows), torch.ones_like(rows, dtype=torch.bool)
        path, action = [], torch.zeros_like(rows)
        while bool(going.any()):
            best = self._scores(tree, rows, node).argmax(-1)
            action = torch.where(going, best, action)
            path.append((node, action, going))
            child = tree.child[rows, node, action]
            going = going & (child >= 0)
            node = torch.where(going, child, node)
        return path

    def _scores(self, tree: Tree, rows: Tensor, node: Tensor) -> Tensor:
        tried = tree.visits > 0
        mean = tree.total / tree.visits.clamp(min=1)
        least = mean.where(tried, torch.inf).amin((1, 2))[:, None]
        most = mean.where(tried, -torch.inf).amax((1, 2))[:, None]
        span = (most - least).clamp(min=1e-6)
        visits = tree.visits[rows, node]
        scaled = ((mean[rows, node] - least) / span).where(visits > 0, 0.0)
        counted = visits.clamp(min=UNTRIED)
        asked = TensorDict(
            {
                "win_count": scaled * counted,
                "visits": counted,
                "total_visits": visits.sum(-1) + 1,
                "prior_prob": tree.prior[rows, node],
            },
            batch_size=visits.shape[:1],
        )
        return PUCTScore(c=self.c)(asked)["score"].masked_fill(tree.barred[rows, node], -torch.inf)

    def _grow(
        self, world: WorldModel, tree: Tree, node: int, parent: Tensor, action: Tensor
    ) -> Tensor:
        """One new node a row; the value `(B,)` of what is behind it."""
        rows = torch.arange(len(parent), device=parent.device)
        taken = world.spec.action.from_normalized(action)
        state, prediction = world.step(tree.states[parent * len(rows) + rows], taken)
        reward, going = trusted_reward(prediction, self.distrust), prediction.continue_prob
        value = torch.zeros_like(reward) if self.value is None else self.value(state)
        sound = (reward + going + value).isfinite()
        _put(tree.states, state, node * len(rows))
        tree.child[rows, parent, action] = node
        tree.barred[rows, parent, action] |= ~sound
        tree.reward[:, node] = reward.masked_fill(~sound, 0)
        tree.continue_prob[:, node] = going.masked_fill(~sound, 0)
        if self.prior is not None:
            tree.prior[:, node] = self.prior(state).nan_to_num(0, 0, 0)
        return value.masked_fill(~sound, 0)

    def _back_up(
        self, tree: Tree, path: list[tuple[Tensor, Tensor, Tensor]], value: Tensor
    ) -> None:
        rows = torch.arange(len(value), device=value.device)
        spoilt = [tree.barred[rows, node, action] & going for node, action, going in path]
        counts = ~torch.stack(spoilt).any(0)
        for node, action, going in reversed(path):
            child = tree.child[rows, node, action]
            earned = tree.reward[rows, child] + self.gamma * tree.continue_prob[rows, child] * value
            value = torch.where(going, earned, value)
            tree.visits[rows, node, action] += going & counts
            tree.total[rows, node, action] += torch.where(going & counts, value, 0.0)


def _room_for(state: WorldState, nodes: int) -> WorldState:
    """Room for `nodes` states a row, of which the first is `state`."""
    room = state.map(lambda x: x.new_zeros(nodes * len(x), *x.shape[1:]))
    _put(room, state, 0)
    return room


def _put(room: WorldState, state: WorldState, at: int) -> None:
    for field in fields(state):
        part = getattr(state, field.name)
        getattr(room, field.name)[at : at + len(part)] = part
