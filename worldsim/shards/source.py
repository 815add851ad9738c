"""What shards are made from: whatever gives the episode of a number, the same each time.

Dreams and recordings are such sources. So is anything else that can name its content by a hash and
make episode n without episode n - 1: an edit of recordings, for one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium.utils.seeding import np_random
from numpy.typing import NDArray
from torch import Tensor

from worldsim.data.dataset import Dataset, DatasetSpec, Episode
from worldsim.data.native import file_name
from worldsim.envs.core import draw_seed
from worldsim.envs.rows import ObservedRows, advance, begin, see
from worldsim.envs.trust import TrustPolicy
from worldsim.world.fixed_batch import FixedBatch

from .policies import Policy


class Source(Protocol):
    """Episodes by number."""

    @property
    def spec(self) -> DatasetSpec:
        """What holds for every episode."""
        ...

    def episodes(self, numbers: Sequence[int]) -> Iterator[Episode]:
        """The episodes of these numbers, in order; each is a function of its number alone."""
        ...


@dataclass(frozen=True)
class Recordings:
    """The episodes of a data set, in its order."""

    data: Dataset

    @property
    def spec(self) -> DatasetSpec:
        """That of the data set."""
        return self.data.spec

    def episodes(self, numbers: Sequence[int]) -> Iterator[Episode]:
        """See `Source`."""
        for number in numbers:
            episode = self.data.episode(number)
            yield replace(episode, name=file_name(episode.name))


@dataclass(frozen=True)
class Dreams:
    """Episodes that are dreamt: number n lives what the n-th episode of `WorldSimEnv` lives after
    `reset(seed=seed)`, under the actions of `policy`.

    An episode begins with the chunk that a reset shows, under the action of its start clip and with
    a reward of 0. It ends where going on has less than even odds, in what is not finite, where
    `trust_policy` cuts it, or at `time_limit` steps.

    Attributes:
        world: in groups of a fixed size, so that a row does not feel its neighbours.
        policy: state -> actions; see `worldsim.shards.policies`.
        seed: of all episodes.
        time_limit: steps.
        trust_policy: what is done about trust.
        name: of the policy, for the episodes.
    """

    world: FixedBatch
    policy: Policy
    seed: int
    time_limit: int
    trust_policy: TrustPolicy = TrustPolicy()
    name: str = ""

    @property
    def spec(self) -> DatasetSpec:
        """What the world shows and takes."""
        spec = self.world.spec
        return DatasetSpec(
            name=f"{spec.name}-dreams", frame_shape=spec.frame_shape, fps=spec.fps,
            chunk=spec.chunk, action=spec.action, has_rewards=True,
            state=() if spec.state is None else spec.state.names,
        )  # fmt: skip

    @torch.no_grad()
    def episodes(self, numbers: Sequence[int]) -> Iterator[Episode]:
        """See `Source`. As many are dreamt together as the world takes; one that ends makes room
        for the next."""
        batch, done, turn = _Batch(self, numbers), {}, 0
        while turn < len(numbers):
            if numbers[turn] in done:
                yield done.pop(numbers[turn])
                turn += 1
            else:
                done |= batch.step()


@dataclass
class _Open:
    """An episode that is being dreamt; lists with an entry a chunk."""

    number: int
    frames: list[NDArray[np.uint8]]
    actions: list[Tensor]
    known: bool
    states: list[Tensor]
    rewards: list[float] = field(default_factory=lambda: [0.0])


class _Batch:
    """A row of the batch for each episode that is being dreamt; others stand still."""

    def __init__(self, dreams: Dreams, numbers: Sequence[int]) -> None:
        self.dreams, self.left = dreams, list(reversed(numbers))
        self.named = draw_seed(np_random(dreams.seed)[0])
        self.open: list[_Open | None] = [None] * dreams.world.rows
        self.observed: ObservedRows | None = None

    def step(self) -> dict[int, Episode]:
        """Begin episodes where rows are free, step all once; the episodes that ended in it."""
        self._fill()
        assert self.observed is not None
        world, state = self.dreams.world, self.observed.state
        actions = self.dreams.policy(state)
        outcome = advance(world, self.dreams.trust_policy, state, actions, self.dreams.time_limit)
        self.observed = see(world, outcome.state, pixels=True)
        frames, rewards = self._frames(), outcome.raw_reward.tolist()
        over, cut = outcome.terminated.tolist(), outcome.truncated.tolist()
        taken, states = None if actions is None else actions.cpu(), self._states()
        ended = {}
        for row, one in enumerate(self.open):
            if one is None:
                continue
            one.frames.append(frames[row])
            one.rewards.append(rewards[row])
            if taken is not None:
                one.actions.append(taken[row])
            if states is not None:
                one.states.append(states[row])
            if over[row] or cut[row]:
                ended[one.number] = self._episode(one, over[row], cut[row])
                self.open[row] = None
        return ended

    def _fill(self) -> None:
        free = [row for row, one in enumerate(self.open) if one is None]
        taken = free[: len(self.left)]
        if not taken:
            return
        key = torch.full((len(self.open), 2), self.named)
        mask = torch.zeros(len(self.open), dtype=torch.bool)
        numbers = [self.left.pop() for _ in taken]
        for row, number in zip(taken, numbers, strict=True):
            key[row, 1], mask[row] = number, True
        world = self.dreams.world
        begun = begin(world, key.to(world.device), mask, pixels=True)
        old = self.observed
        self.observed = begun if old is None else begun.where(mask.to(world.device), old)
        frames, state = self._frames(), self.observed.state
        actions, known = state.actions[:, -1].cpu(), state.known[:, -1].tolist()
        states = self._states()
        for row, number in zip(taken, numbers, strict=True):
            said = [states[row]] if states is not None else []
            self.open[row] = _Open(number, [frames[row]], [actions[row]], known[row], said)

    def _frames(self) -> NDArray[np.uint8]:
        assert self.observed is not None and self.observed.frames is not None
        return self.observed.frames.cpu().numpy().copy()

    def _states(self) -> Tensor | None:
        """What is known of the state vector at the newest chunk's end, (B, D)."""
        assert self.observed is not None
        state = self.observed.state
        return state.states[:, -1].cpu() if self.dreams.world.spec.state is not None else None

    def _episode(self, one: _Open, over: bool, cut: bool) -> Episode:
        spec = self.dreams.world.spec
        actions: dict[str, Any] = {}
        if len(one.actions) == len(one.frames):
            known = None if one.known else np.arange(len(one.frames)) > 0
            actions = {"actions": torch.stack(one.actions).numpy(), "known": known}
        return Episode(
            name=f"dream-{one.number:09d}", frames=np.concatenate(one.frames), chunk=spec.chunk,
            fps=spec.fps, rewards=np.asarray(one.rewards, np.float32), terminated=over,
            truncated=cut, policy=self.dreams.name, seed=self.dreams.seed,
            state=torch.stack(one.states).numpy() if one.states else None, **actions,
        )  # fmt: skip
