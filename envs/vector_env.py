"""`gymnasium.make_vec("WorldSim-v0")`: many rows of one world, stepped together on its device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from worldsim.core import WorldError, WorldModel, row_keys
from worldsim.worlds import DEFAULT

from .checks import as_mode, check_mask, check_seeds, is_seed
from .core import (
    EnvCore,
    LightSpec,
    NeedsReset,
    check_choice,
    check_count,
    check_options,
    draw_seed,
    one_caller,
)
from .flags import Flags
from .prompts import Prompts, say
from .rows import NOT_FINITE, Clip, ObservedRows, Outcome, advance, begin, next_keys, see
from .source import SharedWorld
from .state import Rng, VectorEnvState
from .trust import TrustPolicy

Array = Any
"""A torch tensor on the device or a NumPy array, as `output` says."""


@dataclass(frozen=True, kw_only=True)
class LiveRows:
    """Where all rows stand; a step or a reset replaces it whole or not at all.

    Attributes:
        observed: the rows.
        due: rows that the next step must do something for: refuse (DISABLED), begin anew
            (NEXT_STEP), make another next start (SAME_STEP).
        ahead: the start of every row's next episode, where ends are acted on unread; else None.
    """

    observed: ObservedRows
    due: Flags
    ahead: ObservedRows | None = None


class WorldSimVectorEnv(LightSpec, VectorEnv[Array, Array, Array]):
    """N rows of a recorded world that run on by themselves, one batched step for all.

    Row i lives the life of a `WorldSimEnv` that was reset with its seed; see there for actions,
    observations, rewards, starts and arguments. Rows do not know each other: whatever the others
    do, the bytes of a row stay the same on the same machine, at the same number of threads and the
    same N. At another N they stay
    the same under `micro_batch=8` (any number; 1 in both, beside a sole environment) and where the
    world's arithmetic does not depend on the size of the batch; elsewhere they differ in their last
    bits (car-racing on a CPU, 4 rows: latents by 4e-5 after 30 steps, pixels by at most 1 of
    255). On the CPU starts are the same at any N.

    ## Output
    `output="torch"` gives tensors on the device, `output="numpy"` arrays; both are the caller's to
    keep and change. NumPy is the default, as Gymnasium's wrappers expect it.

    ## Seeds
    `reset(seed=5)` gives the rows the seeds 5, 6, ...; `reset(seed=[...])` has one for each row,
    None for the next episode of the row's seed. A reset without seed is that for all rows.

    ## Starting State
    `reset(options={"reset_mask": mask})`, bool `(N,)`, begins new episodes in those rows and leaves
    the others alone. Clips of one's own are those of `WorldSimEnv`, for all rows, or one for each
    with a leading axis of N.

    ## Words
    `text` is one prompt for all rows or one for each; with `draw_text` each episode of each row
    draws one of several. `reset(options={"text": ...})` and `say(text, rows=mask)` likewise; what
    is said holds until the row's episode ends.

    ## Episode End
    `autoreset_mode`, an `AutoresetMode` or its name:

    - `SAME_STEP` (default): the step that ends an episode returns the next one's first observation;
      the last of the old one is in `info["final_obs"]` and its info in `info["final_info"]`, both
      of shape (N, ...) and true in the rows `info["_final_obs"]`.
    - `NEXT_STEP`: it returns the last observation, and the next step returns the first of the new
      episode, with reward 0; that row's action is not used, but must be a valid one.
    - `DISABLED`: a step with an ended row raises `NeedsReset`; reset those rows by mask.

    ## Information
    As in `WorldSimEnv`, an array each with its mask (`info["continue_prob"]`,
    `info["_continue_prob"]`), but that `trust` is always there: NaN where the world
    is not calibrated. `info["reason"]` holds codes, `worldsim.envs.REASONS[code]` their names;
    where flags are not read it is always there.

    ## Waiting for the device
    With `output="torch"` on an accelerator the environment asks the device nothing within a step,
    provided actions are given unchecked (`check_actions=False`: NaN and values out of range are
    then the caller's to avoid; shape and kind are always checked). Which rows ended it learns one
    step later, when that step is done anyway; only steps after an end may wait, as worlds read
    their start clips from the host. So `SAME_STEP` tells `final_obs` in every step there, and keeps
    the start of every row's next episode at hand, which doubles the memory of the states.
    """

    metadata = {"render_modes": ["rgb_array"], "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        num_envs: int = 1,
        world: str | PathLike[str] | WorldModel | SharedWorld = DEFAULT,
        device: str | torch.device = "cpu",
        observation: Literal["frame", "chunk", "latent", "dict"] = "frame",
        actions: Literal["normalized", "native"] = "normalized",
        render_mode: Literal["rgb_array"] | None = None,
        num_steps: int | None = None,
        time_limit: int | None = None,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        output: Literal["torch", "numpy"] = "numpy",
        check_actions: bool = True,
        compile: bool = False,
        dtype: Literal["float32", "bfloat16"] | None = None,
        micro_batch: int | None = None,
        trust: Literal["report", "penalise", "truncate"] = "report",
        trust_threshold: float = 0.5,
        trust_penalty: float = 1.0,
        text: str | Sequence[str] | None = None,
        draw_text: bool = False,
        guidance: float | None = None,
    ) -> None:
        check_choice("render_mode", render_mode, (None, *self.metadata["render_modes"]))
        check_choice("output", output, ("torch", "numpy"))
        check_count("max_episode_steps", max_episode_steps)
        check_count("num_envs", num_envs)
        self.core = EnvCore(
            world, device, observation, actions, num_steps, time_limit, compile, dtype, micro_batch
        )
        self.trust_policy = TrustPolicy.towards(
            self.core.world, trust, trust_threshold, trust_penalty
        )
        self.prompts = Prompts.of(self.core.world, text, guidance, rows=num_envs, draw=draw_text)
        self.num_envs, self.render_mode, self.check_actions = num_envs, render_mode, check_actions
        self.autoreset_mode = as_mode(autoreset_mode)
        self.metadata = {**self.core.metadata(), "autoreset_mode": self.autoreset_mode}
        self.output = output
        self.time_limit = min(self.core.time_limit, max_episode_steps or self.core.time_limit)
        self.single_action_space = self.core.action.space()
        self.single_observation_space = self.core.space()
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._live: LiveRows | None = None

    @property
    def world(self) -> WorldModel:
        """The world that is stepped."""
        return self.core.world

    @property
    def device(self) -> torch.device:
        """Where the world runs."""
        return self.world.device

    # --- Gymnasium's methods ----------------------------------------------------------------------

    @one_caller
    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Array, dict[str, Any]]:
        """Begin episodes; see "Seeds" and "Starting State". On an error all stays as it was."""
        known = ("reset_mask", "frames", "actions", "states", "fps", "text", "guidance")
        options = check_options(options, known)
        rows = check_mask(options.get("reset_mask"), self.num_envs, running=self._live is not None)
        clip = self.core.clip(options, self.num_envs)
        said = self.prompts.asked(self.world, options, self.num_envs)
        seeds = check_seeds(seed, self.num_envs)
        before = self._np_random, self._np_random_seed
        try:
            super().reset(seed=seeds[0] if is_seed(seed) else None)
            self._live = self._begin(rows, seeds, clip, said)
        except BaseException:
            self._np_random, self._np_random_seed = before
            raise
        observed = self._live.observed
        return self._observe(observed), self._info(
            {"steps": observed.state.age}, rows.to(self.device)
        )

    @one_caller
    @torch.no_grad()
    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Dream one step on in every row. On an error all stays as it was."""
        given = self.core.action.check(actions, (self.num_envs,), values=self._checks(actions))
        now, mode = self._running("step"), self.autoreset_mode
        if mode is AutoresetMode.DISABLED and bool(now.due.read().any()):
            over = now.due.read().nonzero()[:, 0].tolist()
            raise NeedsReset(f'rows {over} are over: reset them with options={{"reset_mask": ...}}')
        given = self.core.native(given.to(self.device, non_blocking=True))
        outcome = advance(self.world, self.trust_policy, now.observed.state, given, self.time_limit)
        after = see(self.world, outcome.state, self.core.pixels)
        begun = outcome.terminated | outcome.truncated
        if mode is AutoresetMode.NEXT_STEP:
            begun = now.due.read().to(self.device, non_blocking=True)
            outcome = outcome.idle(begun)
        elif mode is AutoresetMode.DISABLED:
            begun = torch.zeros_like(begun)
        ended = outcome.terminated | outcome.truncated
        plain = self._looks and not bool((begun | ended).any())  # as most steps are
        fresh, ahead = (None, None) if plain else self._next_starts(now, begun)
        info: dict[str, Any] = {}
        if fresh is not None and mode is AutoresetMode.SAME_STEP:
            info = self._final_info(after, outcome, ended)
        observed = after if fresh is None else fresh.where(begun, after)
        self._live = LiveRows(observed=observed, due=Flags(ended), ahead=ahead)
        info |= self._info({"steps": observed.state.age})
        info |= self._step_info(outcome, None if plain else ~begun)
        results = (outcome.reward, outcome.terminated, outcome.truncated)
        return self._observe(observed), *map(self._out, results), info

    @one_caller
    def say(
        self,
        text: str | Sequence[str] | None,
        guidance: float | None = None,
        rows: Array | None = None,
    ) -> None:
        """Tell `rows` (N,) bool, all if None, what to show from the next step on: one prompt for
        all or one for each of N, or None for nothing. Raises `WorldError`."""
        now = self._running("say")
        mask = check_mask(rows, self.num_envs, running=True)
        state = say(self.world, now.observed.state, text, guidance, mask)
        self._live = replace(now, observed=replace(now.observed, state=state))

    @one_caller
    def render(self) -> tuple[NDArray[np.uint8], ...] | None:  # type: ignore[override]
        """Every row's newest frame, (H, W, 3) uint8, yours to keep; None without a render mode."""
        if self.render_mode is None:
            gymnasium.logger.warn('render() needs make_vec(..., render_mode="rgb_array")')
            return None
        observed = self._running("render").observed
        frames = self.world.decode(observed.state) if observed.frames is None else observed.frames
        return tuple(frames[:, -1].cpu().numpy().copy())

    # --- Saving and restoring ---------------------------------------------------------------------

    @one_caller
    def get_state(self) -> VectorEnvState:
        """All that the future depends on, ends that wait for their reset too; see `save_state`."""
        now = self._running("get_state")
        return VectorEnvState(
            world=self.world.spec.name,
            autoreset_mode=self.autoreset_mode.name,
            state=now.observed.state,
            frames=now.observed.frames,
            due=now.due.read().clone(),
            rng=Rng.of(self.np_random, self.np_random_seed),  # type: ignore[arg-type]
        )

    @one_caller
    @torch.no_grad()
    def set_state(self, saved: VectorEnvState) -> None:
        """Go on from `saved`, taken from an environment like this one: the future repeats.

        Raises `WorldError`, with everything as it was, for a state that does not fit.
        """
        if not isinstance(saved, VectorEnvState):
            raise WorldError(f"saved: expected a VectorEnvState, got {type(saved).__name__}")
        saved.check(self.world, self.autoreset_mode.name, self.num_envs)
        state, frames, rng = saved.state.to(self.device), saved.frames, saved.rng.generator()
        if frames is None or not self.core.pixels:
            observed = see(self.world, state, self.core.pixels)
        else:
            observed = ObservedRows(state, frames.to(self.device))
        self._live = LiveRows(observed=observed, due=Flags(saved.due.cpu()), ahead=None)
        self._np_random, self._np_random_seed = rng, saved.rng.seed

    # --- Inside -----------------------------------------------------------------------------------

    @property
    def _looks(self) -> bool:
        """Whether the host may look at flags: NumPy needs it, and on the CPU it is free."""
        return self.output == "numpy" or self.device.type == "cpu"

    def _checks(self, actions: Array) -> bool:
        on_host = not isinstance(actions, Tensor) or actions.device.type == "cpu"
        return self.check_actions or on_host

    def _running(self, call: str) -> LiveRows:
        if self._live is None:
            raise NeedsReset(f"call env.reset() before env.{call}()")
        return self._live

    def _begin(
        self, rows: Tensor, seeds: list[int | None], clip: Clip | None, said: Prompts
    ) -> LiveRows:
        """New episodes in `rows`, the others as they are."""
        past = self._live
        observed = self._fresh(self._keys(rows, seeds), rows, said, clip)
        due, ahead = torch.zeros_like(rows), None
        if past is not None:
            observed = observed.where(rows.to(self.device), past.observed)
            due, ahead = past.due.read(), past.ahead
        same_step = self.autoreset_mode is AutoresetMode.SAME_STEP
        due = due | rows if same_step else due & ~rows
        return LiveRows(observed=observed, due=Flags(due), ahead=ahead)

    def _keys(self, rows: Tensor, seeds: list[int | None]) -> Tensor:
        """The keys `(N, 2)` of the next episodes of `rows`, as `WorldSimEnv` draws them."""
        past = None if self._live is None else next_keys(self._live.observed.state.key.cpu())
        keys = row_keys([0] * self.num_envs) if past is None else past
        for row in rows.nonzero()[:, 0].tolist():
            seed = seeds[row]
            if seed is not None or past is None:
                source = self.np_random if seed is None else np_random(seed)[0]
                keys[row] = torch.tensor([draw_seed(source), 0])
        return keys

    def _next_starts(
        self, now: LiveRows, begun: Tensor
    ) -> tuple[ObservedRows | None, ObservedRows | None]:
        """Starts for the rows that have `begun`, None if none have; and `LiveRows.ahead`."""
        if self.autoreset_mode is AutoresetMode.DISABLED:
            return None, None
        key, unread = now.observed.state.key, not self._looks
        if unread and self.autoreset_mode is AutoresetMode.SAME_STEP:
            ahead, due = now.ahead, now.due.read()
            due = torch.ones_like(due) if ahead is None else due
            if bool(due.any()):
                made = self._fresh(next_keys(key), due, self.prompts)
                ahead = made if ahead is None else made.where(due.to(self.device), ahead)
            return ahead, ahead
        rows = now.due.read() if self.autoreset_mode is AutoresetMode.NEXT_STEP else begun.cpu()
        if not bool(rows.any()):
            return None, None
        return self._fresh(next_keys(key), rows, self.prompts), None

    def _fresh(
        self, key: Tensor, rows: Tensor, said: Prompts, clip: Clip | None = None
    ) -> ObservedRows:
        """Fresh episodes in `rows`, told what they are to be told."""
        observed = begin(self.world, key, rows, self.core.pixels, clip)
        return replace(observed, state=said.begin(observed.state))

    # --- What is handed out -----------------------------------------------------------------------

    def _out(self, x: Tensor) -> Array:
        """As the caller wants it; never memory that is used again here."""
        return x.cpu().numpy() if self.output == "numpy" else x

    def _observe(self, observed: ObservedRows) -> Array | dict[str, Array]:
        seen = observed.observe(self.core.observation)
        if isinstance(seen, dict):
            return {name: self._out(x) for name, x in seen.items()}
        return self._out(seen)

    def _info(self, what: dict[str, Tensor], mask: Tensor | None = None) -> dict[str, Array]:
        """Info on the rows of `mask`, each with its mask; zero elsewhere, as Gymnasium has it."""
        info: dict[str, Array] = {}
        hidden = None if mask is None else ~mask
        for name, x in what.items():
            info[name] = self._out(x.clone() if hidden is None else x.masked_fill(hidden, 0))
            shown = torch.ones_like(x, dtype=torch.bool) if mask is None else mask.clone()
            info[f"_{name}"] = self._out(shown)
        return info

    def _step_info(self, outcome: Outcome, mask: Tensor | None) -> dict[str, Array]:
        """What a step tells of the rows of `mask` beside their reward, and why one was cut."""
        told = {"continue_prob": outcome.continue_prob, "trust": outcome.trust}
        if self.trust_policy.mode == "penalise":
            told["raw_reward"] = outcome.raw_reward
        if mask is None:
            return self._info(told)
        cut = mask & (outcome.reason > 0)
        info = self._info(told, mask & (outcome.reason != NOT_FINITE))
        if self._looks and not bool(cut.any()):
            return info
        return info | self._info({"reason": outcome.reason}, cut)

    def _final_info(self, last: ObservedRows, outcome: Outcome, ended: Tensor) -> dict[str, Array]:
        """The last observation and info of rows that begin anew within the step."""
        final = self._info({"steps": last.state.age}, ended)
        return {
            "final_obs": self._observe(last),
            "_final_obs": self._out(ended.clone()),
            "final_info": final | self._step_info(outcome, ended),
            "_final_info": self._out(ended.clone()),
        }
