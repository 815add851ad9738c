"""Who acts in dreams that become a data set: a state goes in, actions come out, nothing is kept.

A policy that remembered what it drew would tie an episode to the batch it was dreamt in.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor

from worldsim.actions import ActionSpec
from worldsim.agents.actor_critic import DreamPolicy
from worldsim.agents.training import load_agent
from worldsim.core import WorldError, WorldModel, WorldState
from worldsim.data.indexed import file_hash
from worldsim.diffusion.rng import uniform_rows

Policy = Callable[[WorldState], Tensor | None]
HOLD = 8  # steps that a random action holds for, at most
HOLD_DRAW, ACTION_DRAW = 2**21, 2**21 + 1  # streams of a row's key that no world draws from


def policy_of(name: str, world: WorldModel) -> Policy:
    """The policy of that name in `world`.

    name: "random"; "none", under which the world runs by itself; the path of an agent that
        `worldsim agent` saved, without suffix; or "module:function" of a function that takes the
        world and returns a policy: states (B rows) to actions (B, *action) in the world's range.
    Raises WorldError where there is none.
    """
    if name == "none" or world.spec.action.kind == "none":
        return lambda state: None
    if name == "random":
        return lambda state: random_actions(world.spec.action, state)
    if _agent(name).exists():
        return DreamPolicy(world, load_agent(Path(name), world.spec))
    module, _, function = name.partition(":")
    try:
        return getattr(import_module(module), function)(world)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise WorldError(
            "policy: expected random, none, the path of a saved agent or module:function, "
            f"got {name!r}: {error}"
        ) from error


def fingerprint(name: str) -> str:
    """SHA-256 of a saved agent's weights, "" for what is known by its name alone."""
    return file_hash(_agent(name)) if _agent(name).exists() else ""


def _agent(name: str) -> Path:
    return Path(f"{name}.safetensors")


def random_actions(spec: ActionSpec, state: WorldState) -> Tensor:
    """Random actions (B, *action), each held for a while: fresh ones at every step cancel out.

    How long they hold, 1 to 8 steps, is drawn for each episode, log-uniformly. Of a box every
    second time they are its ends and middles, which uniform draws never reach.
    """
    nothing = torch.zeros_like(state.age)
    held = HOLD ** uniform_rows(state.key, nothing, HOLD_DRAW, 1)[:, 0]
    count = max(1, len(spec.choices) if spec.is_discrete else len(spec.low))
    turn = state.age // held.long()
    share = uniform_rows(state.key, turn, ACTION_DRAW, count + 1)
    coin, share = share[:, :1], share[:, 1:]
    if spec.is_discrete:
        choices = torch.tensor(spec.choices, device=share.device)
        whole = spec.least + (share * choices).long()  # share is below 1
        return whole if spec.shape else whole[:, 0]
    share = torch.where(coin < 0.5, share, (share * 3).floor() / 2)
    low, high = (torch.tensor(x, device=share.device) for x in (spec.low, spec.high))
    return low + share * (high - low)
