"""A world as a TorchRL environment, for collectors, planners and losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from math import prod
from os import PathLike
from typing import Any, Literal

import numpy as np
import torch
from gymnasium.spaces import Dict, Space
from gymnasium.utils.seeding import np_random
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Bounded, Categorical, Composite, MultiCategorical, TensorSpec, Unbounded
from torchrl.envs import EnvBase

from worldsim.core import ActionSpec, WorldError, WorldModel, WorldState
from worldsim.worlds import DEFAULT

from .core import SEEDS, EnvCore, draw_seed, one_caller
from .prompts import Prompts, say
from .rows import ObservedRows, advance, begin, see
from .source import SharedWorld
from .state import TorchRLState
from .trust import TrustPolicy

STATE = "world"  # Dreamer's losses give "state" another meaning
COUNTS = ("filled", "age")  # one number a row: TorchRL wants an axis for it


class WorldSimTorchRL(EnvBase):
    """Rows of a recorded world whose whole state travels in the tensordict.

    The environment keeps nothing but the name of the next episode, so any batch may be stepped from
    any state: `env.reset(td, set_state=True)` and
    `env.rollout(n, policy, tensordict=td, set_state=True)` go on from `td`, and with the same
    actions repeat the future bit for bit. (At equal batch size: see `WorldSimVectorEnv`.)

    With `batch_size=()` a tensordict of any batch size may be stepped, as TorchRL's planners need
    it (`CEMPlanner`, `MPPIPlanner`: continuous actions); `env.reset(TensorDict({}, [64]))` begins
    64 rows. With another `batch_size` tensordicts have exactly that.

    ## Entries
    - `"observation"` (latent, float32) or `"pixels"` (frame or chunk, uint8); with
      `observation="dict"` `"frame"` and `"state"`, see `WorldSimEnv`. `observation` is `"latent"`
      by default: planning never needs pixels.
    - `"world"`: the world's state, a nested tensordict of `worldsim.WorldState`.
    - `"action"`: float32 from -1 to 1, or a `Categorical` or `MultiCategorical` of int64, which
      count from 0; `actions="native"` takes boxes in the world's own range. Actions go to the
      world as they come: `env.action_spec.project` clips.
    - `"reward"`, `"terminated"` (going on has less than even odds), `"truncated"` (time limit, or
      a NaN or an infinity in the dream: the row then shows what it showed before, with reward 0).
    - `"trust"`, the probability that the dream still tracks reality, in a world that is calibrated;
      1 after a reset. What `trust="penalise"` and `"truncate"` do: see `WorldSimEnv`; the reward
      before a penalty is then `"raw_reward"`.

    ## Words
    `text` is a prompt, or several of which each row that begins draws one;
    `env.reset(TensorDict({"text": "at night"}, [64]))` gives one for now, or one a row as a
    `NonTensorStack`. Its tokens travel in `td["world", "text"]`; `env.say(td, "it begins to rain")`
    changes them from the next step on.

    ## Seeds
    `env.set_seed(5)` names all that is drawn: every row begun after it has a key of its own, and
    noise hangs on that key and the row's age. The n-th row begun lives what the n-th episode of
    `WorldSimEnv` lives after `reset(seed=5)`. A plan made from a state therefore meets the very
    noise that the world will draw; to plan without such foresight give the planner's copy another
    key (`td["world", "key"]`).

    ## Ends
    Collectors and rollouts begin ended rows anew. `resets=False` dreams on instead, for planners
    and imagined rollouts: they ignore what follows an end, and looking for one waits for the device
    at every step.

    ## Size of a row
    TorchRL keeps every state twice a step. The keys and values of the context are most of it
    (car-racing: 246 of 268 kB), yet they travel too: made anew from the window of latents they are
    others, as older chunks reach into them through the layers, and the next latent moves by 0.1 (of
    unit variance); and it would take longer than the step itself (11 ms against 7 for one row, 124
    against 54 for 16, on one CPU core). Where a rollout is only to be scored, keep what you score:
    `env.rollout(..., callback=...)`, or `worldsim.imagine`, which keeps the last state alone.
    """

    batch_locked = False  # type: ignore[assignment]  # as an argument EnvBase would overwrite it
    _supports_set_state = True

    def __init__(
        self,
        world: str | PathLike[str] | WorldModel | SharedWorld = DEFAULT,
        batch_size: int | Sequence[int] = (),
        device: str | torch.device = "cpu",
        observation: Literal["frame", "chunk", "latent", "dict"] = "latent",
        actions: Literal["normalized", "native"] = "normalized",
        num_steps: int | None = None,
        time_limit: int | None = None,
        resets: bool = True,
        compile: bool = False,
        dtype: Literal["float32", "bfloat16"] | None = None,
        micro_batch: int | None = None,
        trust: Literal["report", "penalise", "truncate"] = "report",
        trust_threshold: float = 0.5,
        trust_penalty: float = 1.0,
        text: str | Sequence[str] | None = None,
        guidance: float | None = None,
    ) -> None:
        core = EnvCore(
            world, device, observation, actions, num_steps, time_limit, compile, dtype, micro_batch
        )
        self.trust_policy = TrustPolicy.towards(core.world, trust, trust_threshold, trust_penalty)
        self.prompts = Prompts.of(core.world, text, guidance, rows=None, draw=True)
        super().__init__(device=core.world.device, batch_size=_size(batch_size))
        self.core, self.resets = core, resets
        shape = self.batch_size
        model = core.world.reset(torch.zeros(1, 2, dtype=torch.int64, device=core.world.device))
        held = {k: _unbounded(x, shape) for k, x in self._pack(model, (1,)).items()}
        self.trust_specs = self._trust_specs()
        seen = self._seen_specs() | {STATE: Composite(held, shape=shape)}
        self.observation_spec = Composite(seen | self.trust_specs, shape=shape)
        # All that evolves is an observation too: what is in the state alone is never carried on.
        self.state_spec = Composite({STATE: Composite(held, shape=shape).clone()}, shape=shape)
        self.action_spec = _action_spec(core.action, shape).to(self.device)
        single = torch.Size((*shape, 1))
        self.reward_spec = Unbounded(single, dtype=torch.float32)
        flag = Categorical(2, shape=single, dtype=torch.bool)
        ends = ("done", "terminated", "truncated")
        self.done_spec = Composite({name: flag.clone() for name in ends}, shape=shape)
        self._set_seed(None)

    # --- TorchRL's methods ------------------------------------------------------------------------

    def _set_seed(self, seed: int | None) -> None:
        drawn = None if seed is None else draw_seed(np_random(seed % SEEDS)[0])
        self._named, self._begun = drawn, 0

    @property
    def _seed(self) -> int:
        """What names all that is drawn. Unseeded it is drawn from the machine's entropy when it is
        first asked for: workers that are forked before do not live one life."""
        if self._named is None:
            self._named = draw_seed(np_random(None)[0])
        return self._named

    @one_caller
    def _reset(
        self, tensordict: TensorDictBase | None = None, set_state: bool = False, **_: Any
    ) -> TensorDict:
        batch = self.batch_size if tensordict is None else tensordict.batch_size
        rows = torch.ones(prod(batch), dtype=torch.bool)
        asked = None if tensordict is None else tensordict.get("_reset", None)
        if asked is not None and bool(asked.any()):
            rows = asked.reshape(-1).cpu()
        elif set_state and tensordict is not None:  # rows that are to begin anew have no use for it
            state = self._unpack(self._check_state(tensordict))
            return self._outputs(see(self.core.world, state, self.core.pixels), batch)
        number = self._begun + rows.cumsum(0) - 1
        key = torch.stack([torch.full_like(number, self._seed), number], 1)
        observed = begin(self.core.world, key, rows, self.core.pixels)
        told: Any = None if tensordict is None else tensordict.get("text", None)
        told = told.tolist() if hasattr(told, "tolist") else told
        said = self.prompts.asked(self.core.world, {"text": told}, len(rows))
        observed = replace(observed, state=said.begin(observed.state))
        self._begun += int(rows.sum())
        return self._outputs(observed, batch)

    @one_caller
    @torch.no_grad()
    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        batch, world = tensordict.batch_size, self.core.world
        action = tensordict.get("action")
        action = self._native(action.reshape(prod(batch), *action.shape[len(batch) :]))
        state = self._unpack(tensordict.get(STATE))
        outcome = advance(world, self.trust_policy, state, action, self.core.time_limit)
        terminated, truncated = outcome.terminated, outcome.truncated
        entries = {"reward": outcome.reward, "terminated": terminated, "truncated": truncated,
                   "done": terminated | truncated}  # fmt: skip
        if "trust" in self.trust_specs:
            entries["trust"] = outcome.trust.nan_to_num(0)
        if "raw_reward" in self.trust_specs:
            entries["raw_reward"] = outcome.raw_reward
        entries = {name: x.reshape(*batch, 1) for name, x in entries.items()}
        return self._outputs(see(world, outcome.state, self.core.pixels), batch, entries)

    @torch.no_grad()
    def say(
        self, tensordict: TensorDictBase, text: str | Sequence[str] | None,
        guidance: float | None = None,
    ) -> TensorDictBase:  # fmt: skip
        """The tensordict with other prompts from the next step on; nothing said if `text` is None.

        text: one for all rows, or one for each. Raises `WorldError` for what is no prompt.
        """
        state = self._unpack(self._check_state(tensordict))
        state = say(self.core.world, state, text, guidance)
        held = self._pack(state, tensordict.batch_size)
        return tensordict.copy().set(STATE, held)

    def _native(self, action: Tensor) -> Tensor:
        """Actions in the world's own range; TorchRL's choices count from 0 whatever was asked."""
        own = self.core.world.spec.action
        return own.from_normalized(action) if own.is_discrete else self.core.native(action)

    def any_done(self, tensordict: TensorDictBase) -> bool:
        """Whether a row is to begin anew; never where `resets` is False."""
        return self.resets and super().any_done(tensordict)

    # --- Saving and restoring ---------------------------------------------------------------------

    def get_state(self, tensordict: TensorDictBase) -> TorchRLState:
        """All that the future of `tensordict` and of rows yet to begin depends on."""
        return TorchRLState(
            world=self.core.world.spec.name,
            batch=tuple(tensordict.batch_size),
            state=self._unpack(self._check_state(tensordict)),
            seed=self._seed,
            begun=self._begun,
        )

    @torch.no_grad()
    def set_state(self, saved: TorchRLState) -> TensorDictBase:
        """The tensordict to go on from; raises `WorldError`, with everything as it was."""
        if not isinstance(saved, TorchRLState):
            raise WorldError(f"saved: expected a TorchRLState, got {type(saved).__name__}")
        world = self.core.world
        saved.check(world)
        held = self._pack(saved.state.to(world.device), saved.batch)
        asked = TensorDict({STATE: held}, saved.batch, device=self.device)
        restored = self.reset(asked, set_state=True)
        self._named, self._begun = saved.seed, saved.begun
        return restored

    # --- States as tensordicts --------------------------------------------------------------------

    def _pack(self, state: WorldState, batch: Sequence[int]) -> TensorDict:
        """`(B, ...)` as a tensordict of that batch size."""
        held, flat = {}, len(batch) == 1
        for field in fields(state):
            x = getattr(state, field.name)
            tail = (1,) if field.name in COUNTS else x.shape[1:]
            whole = flat and field.name not in COUNTS  # a reshape to the same shape costs, too
            held[field.name] = x if whole else x.reshape(*batch, *tail)
        return self._unchecked(held, batch)

    def _unpack(self, held: TensorDictBase) -> WorldState:
        rows, lead = held.batch_size.numel(), held.batch_dims
        parts = {}
        for field in fields(WorldState):
            x = held.get(field.name)
            tail = () if field.name in COUNTS else x.shape[lead:]
            whole = lead == 1 and field.name not in COUNTS
            parts[field.name] = x if whole else x.reshape(rows, *tail)
        return WorldState(**parts)

    def _outputs(
        self, observed: ObservedRows, batch: Sequence[int], entries: dict[str, Tensor] | None = None
    ) -> TensorDict:
        """What rows show; `entries` is what a step said of them, real frames are what they are."""
        seen = observed.observe(self.core.observation)
        named = seen if isinstance(seen, dict) else {self._seen_key: seen}
        held: dict[str, Any] = {k: x.reshape(*batch, *x.shape[1:]) for k, x in named.items()}
        held[STATE] = self._pack(observed.state, batch)
        if entries is None:
            real = {"trust": 1.0, "raw_reward": 0.0}
            how = {"dtype": torch.float32, "device": self.device}
            entries = {k: torch.full((*batch, 1), real[k], **how) for k in self.trust_specs}
        return self._unchecked(held | entries, batch)

    def _unchecked(self, held: dict[str, Any], batch: Sequence[int]) -> TensorDict:
        """A tensordict without the checks of its constructor, some 25 us of a step; TorchRL's own
        environments do so, too. All shapes in here are made here."""
        device = self.core.world.device
        return TensorDict._new_unsafe(held, batch_size=torch.Size(batch), device=device)

    def _check_state(self, tensordict: TensorDictBase) -> TensorDictBase:
        """The world's state within `tensordict`, or `WorldError`."""
        held, lead = tensordict.get(STATE, None), tensordict.batch_dims
        for name, spec in self.observation_spec[STATE].items():
            got = None if held is None else held.get(name, None)
            shape = tuple(spec.shape[self.batch_dims :])
            told = None if got is None else (got.dtype, tuple(got.shape[lead:]))
            if told != (spec.dtype, shape):
                raise WorldError(f"{STATE}, {name}: expected {spec.dtype} {shape}, got {told}")
        assert held is not None
        return held

    def _trust_specs(self) -> dict[str, TensorSpec]:
        single = torch.Size((*self.batch_size, 1))
        specs: dict[str, TensorSpec] = {}
        if self.core.world.calibrated:
            specs["trust"] = Bounded(0, 1, single, dtype=torch.float32)
        if self.trust_policy.mode == "penalise":
            specs["raw_reward"] = Unbounded(single, dtype=torch.float32)
        return specs

    @property
    def _seen_key(self) -> str:
        return "pixels" if self.core.pixels else "observation"

    def _seen_specs(self) -> dict[str, TensorSpec]:
        space = self.core.space()
        parts = dict(space.items()) if isinstance(space, Dict) else {self._seen_key: space}
        return {name: self._seen_spec(part) for name, part in parts.items()}

    def _seen_spec(self, space: Space[Any]) -> TensorSpec:
        assert space.shape is not None
        shape = torch.Size((*self.batch_size, *space.shape))
        if space.dtype == np.uint8:
            return Bounded(0, 255, shape, dtype=torch.uint8)
        return Unbounded(shape, dtype=torch.float32)


def _size(batch_size: int | Sequence[int]) -> torch.Size:
    return torch.Size((batch_size,) if isinstance(batch_size, int) else batch_size)


def _unbounded(x: Tensor, batch: Sequence[int]) -> TensorSpec:
    return Unbounded(torch.Size((*batch, *x.shape[1:])), dtype=x.dtype, device=x.device)


def _action_spec(action: ActionSpec, batch: Sequence[int]) -> TensorSpec:
    """An agent's actions; choices count from 0."""
    shape = torch.Size((*batch, *action.shape))
    if action.kind == "continuous":
        low, high = (torch.tensor(x, dtype=torch.float32) for x in (action.low, action.high))
        return Bounded(low.expand(shape), high.expand(shape), shape=shape, dtype=torch.float32)
    if action.shape:
        return MultiCategorical(action.choices, shape=shape, dtype=torch.int64)
    return Categorical(action.choices[0], shape=shape, dtype=torch.int64)
