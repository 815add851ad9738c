"""How one environment is recorded for a world: how it is seen, who acts, which seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from worldsim.collect.api import process_count
from worldsim.collect.environment import Env
from worldsim.collect.policies import CollectPolicy, as_policies, choose
from worldsim.collect.recorder import record
from worldsim.collect.source import Source, named_source
from worldsim.collect.workers import Job, collect_jobs
from worldsim.core import EnvironmentSpec
from worldsim.data.dataset import Episode
from worldsim.data.native import NativeDataset

RESERVED_SEED = 10_000  # seeds from here up are in no recipe: they belong to nobody's training


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A measured recording.

    Attributes:
        environment: how it is seen.
        seeds: of the environment, in each split.
        policies: who acts, in their shares.
        apart: policies that have seeds of their own, and no part in the others.
        quicken: makes an environment show the same in less time.
        notable: entries of the state vector whose share above a bound a summary tells.
    """

    environment: EnvironmentSpec
    seeds: Mapping[str, range]
    policies: tuple[CollectPolicy, ...]
    apart: tuple[tuple[range, CollectPolicy], ...] = ()
    quicken: Callable[[Env], Env] | None = None
    notable: Mapping[str, float] = field(default_factory=dict)

    @property
    def source(self) -> Source:
        """The environment, as often as it is needed; CollectError where it is not installed."""
        source = named_source(self.environment)
        if self.quicken is None:
            return source
        return replace(source, make=partial(_quickened, source.make, self.quicken))

    @property
    def everybody(self) -> tuple[CollectPolicy, ...]:
        """All policies."""
        return (*self.policies, *(policy for _, policy in self.apart))

    def seen(self, **changes: Any) -> Recipe:
        """The same with other fields of its `EnvironmentSpec`."""
        return replace(self, environment=replace(self.environment, **changes))

    def record(self, seed: int, policy: CollectPolicy | None = None) -> Episode:
        """The episode of `seed`, unwritten, by its own policy or another."""
        return record(self.source, policy or self.policy(seed), seed=seed, name=episode_name(seed))

    def policy(self, seed: int) -> CollectPolicy:
        """Who acts in the episode of `seed`."""
        own = (policy for seeds, policy in self.apart if seed in seeds)
        return next(own, None) or choose(self.policies, seed)

    def jobs(self, episodes: int | None = None) -> list[Job]:
        """All episodes, named by their seeds; `episodes` of the training split if it is given."""
        first = self.seeds.get("train", range(0))
        seeds = dict(self.seeds)
        if episodes is not None:
            seeds["train"] = range(first.start, first.start + episodes)
        return [
            Job(split=split, name=episode_name(seed), seed=seed, policy=self.policy(seed).name)
            for split, span in seeds.items()
            for seed in span
        ]

    def collect(
        self,
        out: Path,
        *,
        policy: Any = None,
        episodes: int | None = None,
        workers: int | None = None,
        jobs: Sequence[Job] | None = None,
    ) -> NativeDataset:
        """Record what is not yet in the folder `out`; arguments as of `worldsim.collect`.

        policy: who acts in all episodes instead of the recipe's own.
        jobs: the episodes, instead of the recipe's.
        """
        order, source = self.jobs(episodes) if jobs is None else list(jobs), self.source
        policies = self.everybody
        if policy is not None:
            policies = as_policies(policy, 0.0)
            order = [Job(split=j.split, name=j.name, seed=j.seed, policy=policies[0].name)
                     for j in order]  # fmt: skip
        return collect_jobs(
            source, Path(out), order, policies, process_count(source, len(order), workers)
        )


def _quickened(make: Callable[[], Env], quicken: Callable[[Env], Env]) -> Env:
    return quicken(make())


def episode_name(seed: int) -> str:
    """The name of a recipe's episode."""
    return f"episode_{seed:06d}"
