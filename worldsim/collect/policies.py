"""Who acts while a world is recorded: policies of the user, random ones, and their mix.

A world knows only what it was shown. So a policy that is good at its task is mixed with episodes in
which random actions interrupt it, and episodes of random actions alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldsim.core import ActionSpec

from .environment import RecordedEnv, named
from .errors import CollectError

Policy = Callable[[Any], Any]
MakePolicy = Callable[[RecordedEnv, np.random.Generator], Policy]
GOLDEN = 0.6180339887498949
MOST_NOISE = 0.5
HOLD = 8.0  # decisions that a random action holds for on average, at most
INTERRUPTED = (0.1, 0.6)  # share of an interrupted episode that is random


@dataclass(frozen=True, kw_only=True)
class CollectPolicy:
    """A named way to act.

    Attributes:
        name: written into each episode.
        make: makes the policy of one episode: ``make(env, rng)`` returns ``obs -> action``. `env`
            is the `RecordedEnv`: `env.unwrapped` is the simulator, `env.frames` the newest chunk.
        share: its part of the episodes, relative to the other shares, > 0.
    """

    name: str
    make: MakePolicy
    share: float = 1.0

    def __post_init__(self) -> None:
        if not self.share > 0:
            raise CollectError(f"share: expected a number > 0 for {self.name!r}, got {self.share}")


def choose(policies: Sequence[CollectPolicy], index: int) -> CollectPolicy:
    """The policy of episode `index`. Multiples of the golden ratio spread evenly over the shares,
    so any run of consecutive numbers holds them nearly exactly."""
    if not policies:
        raise CollectError("policy: expected at least one, got none")
    shares = np.cumsum([policy.share for policy in policies])
    point = (index + 0.5) * GOLDEN % 1.0
    return policies[int(np.searchsorted(shares / shares[-1], point, side="right"))]


def as_policies(policy: Any, noise: float) -> tuple[CollectPolicy, ...]:
    """What `worldsim.collect` takes as `policy`, as a mix; see there.

    Raises CollectError for anything else, and a `noise` that is no share up to 0.5.
    """
    from .adapters import from_sb3, from_tensordict, is_sb3, is_tensordict

    if not 0 <= noise <= MOST_NOISE:
        raise CollectError(f"noise: expected a share from 0 to {MOST_NOISE}, got {noise}")
    if isinstance(policy, CollectPolicy):
        return (policy,)
    if isinstance(policy, Sequence) and not isinstance(policy, str):
        if policy and all(isinstance(one, CollectPolicy) for one in policy):
            return tuple(policy)
    elif policy is None:
        return (CollectPolicy(name="random", make=random_policy),)
    elif isinstance(policy, str):
        return mixed(policy, partial(_of_function, named(policy, "policy")), noise)
    elif is_sb3(policy):
        return mixed(type(policy).__name__, partial(from_sb3, policy), noise)
    elif is_tensordict(policy):
        return mixed(type(policy).__name__, partial(from_tensordict, policy), noise)
    elif callable(policy):
        name = getattr(policy, "__name__", type(policy).__name__)
        return mixed(name, partial(_of_function, policy), noise)
    raise CollectError(
        "policy: expected a function obs -> action, 'module:function', a stable-baselines3 or "
        f"TorchRL policy, or CollectPolicy objects, got {type(policy).__name__}"
    )


def _of_function(function: Policy, env: object, rng: object) -> Policy:
    return function


def mixed(name: str, make: MakePolicy, noise: float) -> tuple[CollectPolicy, ...]:
    """A policy undisturbed, interrupted by random actions, and random actions alone; the latter two
    in a share `noise` of the episodes each."""
    clean, share = CollectPolicy(name=name, make=make, share=max(1 - 2 * noise, 1e-9)), noise
    if not noise:
        return (clean,)
    return (
        clean,
        CollectPolicy(name=f"{name}+random", make=partial(interrupted, make), share=share),
        CollectPolicy(name="random", make=random_policy, share=share),
    )


def random_policy(env: RecordedEnv, rng: np.random.Generator) -> Policy:
    """Random actions, each held for a while: fresh ones at every step cancel each other out, and
    the world hardly moves. How long they hold on average differs from episode to episode."""
    spec, mean = env.native, float(2 ** rng.uniform(0, np.log2(HOLD)))
    held, left = draw_action(spec, rng), 0

    def policy(obs: Any) -> NDArray[Any]:
        nonlocal held, left
        if left == 0:
            held, left = draw_action(spec, rng), int(rng.geometric(1 / mean))
        left -= 1
        return held

    return policy


def draw_action(spec: ActionSpec, rng: np.random.Generator) -> NDArray[Any]:
    """A random action (*action): of a box every second time its ends and middles, which uniform
    draws never reach."""
    if spec.is_discrete:
        whole = spec.least + rng.integers(spec.choices)
        return whole if spec.shape else whole[0]
    low, high = np.array(spec.low, np.float32), np.array(spec.high, np.float32)
    if rng.random() < 0.5:
        share = rng.random(len(low))
    else:
        share = rng.integers(3, size=len(low)) / 2
    return (low + share * (high - low)).astype(np.float32)


def interrupted(make: MakePolicy, env: RecordedEnv, rng: np.random.Generator) -> Policy:
    """A policy that random actions interrupt for a while, now and then: 10 to 60% of an episode."""
    policy, noise = make(env, rng), random_policy(env, rng)
    share, length = rng.uniform(*INTERRUPTED), rng.uniform(1, HOLD)
    begin = share / (share + length * (1 - share))
    left = 0

    def act(obs: Any) -> Any:
        nonlocal left
        action = policy(obs)  # always asked: it may remember what it saw
        if left == 0 and rng.random() < begin:
            left = int(rng.geometric(1 / length))
        if left == 0:
            return action
        left -= 1
        return noise(obs)

    return act
