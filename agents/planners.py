"""Planning by shooting: try many action sequences in the dream, keep what earned most.

Every planner is a frozen set of numbers with one method, `plan(world, state, previous=...)`, which
hands back a `Plan`; `PlanningPolicy` acts with any of them. Rows are planned for all at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf, isfinite
from typing import Protocol

import torch
from einops import rearrange, repeat
from numpy import ravel
from torch import Tensor

from worldsim.core import ActionSpec, WorldError, WorldModel, WorldState
from worldsim.nn.dtype import default_float32

from .scoring import WORST, Value, plan_returns

Policy = Callable[[WorldState], Tensor]
"""State -> actions `(B, *action)`; what `worldsim.imagine` takes."""


@dataclass(frozen=True)
class Plan:
    """What a planner thinks best.

    Attributes:
        actions: (B, T, *action), in the world's own range.
        value: (B,) the return that was dreamt for them (tree search: the value of its choice).
        elites: (B, E, T, *action) the best others, for the next plan to start from; may be empty.
    """

    actions: Tensor
    value: Tensor
    elites: Tensor

    def later(self) -> Plan:
        """What is left of it a step on; its last actions are meant to go on."""
        return Plan(_shifted(self.actions, 1), self.value, _shifted(self.elites, 2))


class Planner(Protocol):
    """Anything that plans."""

    def plan(
        self,
        world: WorldModel,
        state: WorldState,
        *,
        previous: Plan | None = None,
        generator: torch.Generator | None = None,
    ) -> Plan:
        """Plan for every row of `state`, which stays as it was.

        previous: the plan of one step ago, to start from. generator: of the planner's own draws,
        on the CPU; the default one if None.
        """
        ...


@dataclass
class PlanningPolicy:
    """Acts on the first actions of a plan, then plans again from where it got to.

    Remembers its last plan: begin another episode with `reset()`. The dreams it plans in have
    noise of their own, so it does not foresee what the world will draw.

    Attributes:
        every: actions that are taken from a plan before the next one is made.
        last: the plan; its first actions are the ones taken last.
        taken: how many actions of it were taken.
    """

    world: WorldModel
    planner: Planner
    generator: torch.Generator | None = None
    every: int = 1
    last: Plan | None = field(default=None, init=False)
    taken: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.every < 1:
            raise WorldError(f"every: expected at least 1, got {self.every}")

    def __call__(self, state: WorldState) -> Tensor:
        """Actions `(B, *action)`."""
        previous = self.last
        if previous is not None and len(previous.actions) != len(state):
            previous = None
        if previous is not None and self.taken < self.every:
            self.last = previous.later()
        else:
            key = torch.randint(2**31, state.key.shape, generator=self.generator)
            unforeseen = replace(state, key=key.to(state.key.device))
            options = {"previous": previous, "generator": self.generator}
            self.last, self.taken = self.planner.plan(self.world, unforeseen, **options), 0
        self.taken += 1
        return self.last.actions[:, 0]

    def reset(self) -> None:
        """Begin another episode."""
        self.last = None


RULES: tuple[tuple[str, str, Callable[..., bool]], ...] = (  # beyond them plans are NaN, or none
    ("horizon candidates rounds elites", "a count from 1 up", lambda x: type(x) is int and x > 0),
    ("temperature shrink", "a number above 0", lambda x: 0 < x < inf),
    ("spread", "numbers above 0", lambda x: all(0 < s < inf for s in ravel(x))),
    ("colour distrust", "a number from 0 up", lambda x: 0 <= x < inf),
    ("gamma", "above 0 to 1", lambda x: 0 < x <= 1),
    ("home momentum kept", "0 to 1", lambda x: 0 <= x <= 1),
)


@dataclass(frozen=True, kw_only=True)
class Shooting:
    """What all shooting planners share.

    Attributes:
        horizon: steps a plan looks ahead.
        candidates: plans tried a round.
        rounds: how often the search is narrowed.
        gamma: discount a step.
        distrust: cost of a step the world is sure it gets wrong; unknown trust costs nothing.
        value: what is still to come at the end of a plan.
        start: the action that a first plan holds, in the world's own range, where actions are
            continuous; the middle of the range if None.
        home: how far every plan's beginning is drawn back to `start`, 0 to 1, where actions are
            continuous. A short search finds haste best at every step, until what it did not see.
    """

    horizon: int = 12
    candidates: int = 64
    rounds: int = 3
    gamma: float = 1.0
    distrust: float = 0.0
    value: Value | None = None
    start: tuple[float, ...] | None = None
    home: float = 0.0

    def __post_init__(self) -> None:
        for names, expected, fits in RULES:
            for name in names.split():
                given = getattr(self, name, None)
                if given is not None and not fits(given):
                    raise WorldError(f"{name}: expected {expected}, got {given!r}")
        if not 2 <= (elites := getattr(self, "elites", 2)) <= max(2, self.candidates):
            raise WorldError(f"elites: expected 2 to {self.candidates}, got {elites}")

    def returns(self, world: WorldModel, state: WorldState, plans: Tensor) -> Tensor:
        """`(B, N)` of plans in the world's own range."""
        options = {"gamma": self.gamma, "distrust": self.distrust, "value": self.value}
        return plan_returns(world, state, plans, **options)

    def begin(self, spec: ActionSpec, state: WorldState, previous: Plan | None) -> Tensor:
        """The mean that a plan begins from, `(B, T, *action)` from -1 to 1."""
        mean = torch.zeros(len(state), self.horizon, *spec.shape, device=state.key.device)
        if self.start is not None:
            if len(self.start) != len(spec.low) or not all(map(isfinite, self.start)):
                raise WorldError(f"start: expected {len(spec.low)} numbers, got {self.start}")
            mean = mean + spec.to_normalized(torch.tensor(self.start, device=mean.device))
        if previous is None:
            return mean
        return torch.lerp(_shifted(spec.to_normalized(previous.actions), 1), mean, self.home)


@dataclass(frozen=True, kw_only=True)
class CEM(Shooting):
    """iCEM: the cross-entropy method, improved (Pinneri et al. 2020, 2008.06389).

    Continuous actions. Candidates wander smoothly (noise of colour `colour`: power 1/f**colour), a
    share of the elites goes on into the next round and, shifted, into the next plan, which starts
    from the last one's mean; the mean itself is tried in the last round.

    Attributes:
        elites: plans a round that the next one narrows on.
        spread: standard deviation in the first round, of actions from -1 to 1; of all, or of each.
        colour: 0 for white noise; about 2 where actions should change slowly.
        kept: share of the elites that goes on.
        momentum: of mean and spread from round to round.
        shrink: each round tries 1 / shrink of the last one's candidates, at least 2 * elites.
    """

    elites: int = 8
    spread: float | tuple[float, ...] = 0.5
    colour: float = 2.0
    kept: float = 0.3
    momentum: float = 0.1
    shrink: float = 1.25

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
        """See `Planner.plan`."""
        spec = _continuous(world)
        mean = self.begin(spec, state, previous)
        kept = mean[:, None][:, :0]
        if previous is not None:
            kept = _shifted(spec.to_normalized(previous.elites), 2)
            kept = kept[:, : round(self.kept * self.elites)]
        spread = torch.zeros_like(mean) + self._spread(spec).to(mean.device)
        best, value = mean, mean.new_full((len(state),), -torch.inf)
        elite = kept
        for turn in range(self.rounds):
            count = max(2 * self.elites, int(self.candidates / self.shrink**turn))
            noise = coloured_noise((len(state), count, *mean.shape[1:]), self.colour, generator)
            tried = mean[:, None] + spread[:, None] * noise.to(mean.device)
            last = [mean[:, None]] if turn == self.rounds - 1 else []
            tried = torch.cat([tried.clamp(-1, 1), kept, *last], 1)
            scores = self.returns(world, state, spec.from_normalized(tried))
            elite = elites_of(tried, scores, self.elites)
            better = scores.amax(1) > value  # ever, over all rounds
            best = torch.where(better[:, None, None], elite[:, 0], best)
            value = torch.maximum(scores.amax(1), value)
            mean = torch.lerp(elite.mean(1), mean, self.momentum)
            spread = torch.lerp(elite.std(1), spread, self.momentum)
            kept = elite[:, : round(self.kept * self.elites)]
        return Plan(spec.from_normalized(best), value, spec.from_normalized(elite))

    def _spread(self, spec: ActionSpec) -> Tensor:
        if isinstance(self.spread, tuple) and len(self.spread) != len(spec.low):
            raise WorldError(f"spread: expected 1 or {len(spec.low)} numbers, got {self.spread}")
        return torch.tensor(self.spread)


@dataclass(frozen=True, kw_only=True)
class MPPI(Shooting):
    """Model-predictive path integral control (Williams et al. 2017, 1707.02342, Alg. 2).

    Continuous actions; the plan is the mean of the candidates, weighted by exp(return /
    temperature). Starts from the last plan, shifted.

    Attributes:
        spread: standard deviation of the candidates, of actions from -1 to 1.
        temperature: in units of the return; lower is greedier.
        colour: of the noise, as in `CEM`.
    """

    spread: float = 0.5
    temperature: float = 0.1
    colour: float = 0.0

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
        """See `Planner.plan`; `value` is the weighted mean of the candidates' returns."""
        spec = _continuous(world)
        mean = self.begin(spec, state, previous)
        value = mean.new_zeros(len(state))
        for _ in range(self.rounds):
            shape = (len(state), self.candidates, *mean.shape[1:])
            noise = coloured_noise(shape, self.colour, generator).to(mean.device)
            tried = (mean[:, None] + self.spread * noise).clamp(-1, 1)
            scores = self.returns(world, state, spec.from_normalized(tried))
            behind = scores - scores.amax(1, keepdim=True)  # before it is divided: WORST is vast
            weight = (behind / self.temperature).softmax(1)
            mean = torch.einsum("bn,bnta->bta", weight, tried)
            value = (weight * scores).sum(1)
        actions = spec.from_normalized(mean)
        return Plan(actions, value, actions[:, None][:, :0])


@dataclass(frozen=True, kw_only=True)
class CategoricalCEM(Shooting):
    """The cross-entropy method for choices: odds of every choice of each entry at every step.

    For discrete, multi-discrete and multi-binary actions; entries are drawn independently.

    Attributes:
        elites: plans a round that the next one narrows on.
        momentum: of the odds from round to round, so that no choice dies out at once.
    """

    elites: int = 8
    momentum: float = 0.2

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
        """See `Planner.plan`."""
        spec = world.spec.action
        if not spec.is_discrete:
            raise WorldError("CategoricalCEM: expected discrete actions; use CEM or MPPI")
        odds = repeat(_uniform(spec), "e n -> b t e n", b=len(state), t=self.horizon)
        odds = odds.to(state.key.device)
        kept = torch.zeros(
            len(state), 0, self.horizon, odds.shape[2], dtype=torch.int64, device=odds.device
        )
        if previous is not None:
            plans = torch.cat([previous.actions[:, None], previous.elites], 1)
            kept = _shifted(_entries(spec, plans), 2)
            odds = torch.lerp(_shares(kept, odds.shape[-1]), odds, 0.5)
        value = torch.zeros(len(state), device=odds.device)
        for _ in range(self.rounds):
            tried = torch.cat([draw_choices(odds, self.candidates, generator), kept], 1)
            scores = self.returns(world, state, _as_actions(spec, tried))
            kept, value = elites_of(tried, scores, self.elites), scores.amax(1)
            odds = torch.lerp(_shares(kept, odds.shape[-1]), odds, self.momentum)
        plans = _as_actions(spec, kept)
        return Plan(plans[:, 0], value, plans[:, 1:])


def draw_choices(odds: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Choices `(B, count, T, E)` by their odds `(B, T, E, n)`."""
    rows = rearrange(odds, "b t e n -> (b t e) n").cpu()
    drawn = torch.multinomial(rows, count, True, generator=generator)
    _, time, entries, _ = odds.shape
    return rearrange(drawn, "(b t e) k -> b k t e", t=time, e=entries).to(odds.device)


def _uniform(spec: ActionSpec) -> Tensor:
    """Equal odds `(E, n)` of each entry's choices; 0 where an entry has fewer than n."""
    counts = torch.tensor(spec.choices)[:, None]
    return (torch.arange(int(counts.max())) < counts) / counts


def _shares(choices: Tensor, count: int) -> Tensor:
    """Choices `(B, N, T, E)` -> how often each was taken, `(B, T, E, n)`."""
    return torch.nn.functional.one_hot(choices, count).float().mean(1)


def _entries(spec: ActionSpec, actions: Tensor) -> Tensor:
    """Actions `(..., *action)` as choices from 0, `(..., E)`."""
    choices = spec.to_normalized(actions)
    return choices if spec.shape else choices[..., None]


def _as_actions(spec: ActionSpec, choices: Tensor) -> Tensor:
    """`_entries` backwards."""
    return spec.from_normalized(choices if spec.shape else choices[..., 0])


def elites_of(plans: Tensor, scores: Tensor, count: int) -> Tensor:
    """The best `count` of plans `(B, N, ...)` by `scores` `(B, N)`, best first.

    Plans whose dream was not finite are no elites: the best stands in for them.
    """
    best = scores.topk(count, 1)
    return take(plans, torch.where(best.values > WORST, best.indices, best.indices[:, :1]))


def take(plans: Tensor, which: Tensor) -> Tensor:
    """Plans `(B, N, ...)` chosen by `which` `(B, E)`: `(B, E, ...)`."""
    rows = torch.arange(len(plans), device=plans.device)[:, None]
    return plans[rows, which]


def coloured_noise(
    shape: tuple[int, ...], colour: float, generator: torch.Generator | None = None
) -> Tensor:
    """Noise `(..., T, A)` of power 1/f**colour along T and unit variance (Timmer & Koenig 1995)."""
    white = torch.randn(shape, generator=generator)
    steps = shape[-2]
    if colour == 0 or steps < 2:
        return white
    size = torch.fft.rfftfreq(steps).clamp(min=1 / steps) ** (-colour / 2)
    # an even length's last frequency and every length's zeroth are counted once, the rest twice
    twice = torch.full_like(size, 2.0)
    twice[0], twice[-1] = 1.0, 1.0 if steps % 2 == 0 else 2.0
    size = size / ((twice * size**2).sum() / steps).sqrt()
    wave = torch.fft.rfft(white, dim=-2) * size[:, None]
    return torch.fft.irfft(wave, n=steps, dim=-2)


def _shifted(plans: Tensor, time: int) -> Tensor:
    """One step on: the first action is done, the last one is meant to go on."""
    later = plans.narrow(time, 1, plans.shape[time] - 1)
    return torch.cat([later, plans.narrow(time, plans.shape[time] - 1, 1)], time)


def _continuous(world: WorldModel) -> ActionSpec:
    if world.spec.action.kind != "continuous":
        raise WorldError("planner: expected continuous actions; use CategoricalCEM or TreeSearch")
    return world.spec.action
