"""`WorldSim-v0`: one dreamed world as a Gymnasium environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from worldsim.core import WorldError, WorldModel
from worldsim.worlds import DEFAULT

from .core import (
    EnvCore,
    LightSpec,
    NeedsReset,
    check_choice,
    check_options,
    draw_seed,
    one_caller,
)
from .keyboard import keys_to_action, neutral_action
from .prompts import Prompts, say
from .rows import NOT_FINITE, REASONS, Clip, Outcome, advance
from .source import SharedWorld
from .state import EnvState, Episode, Rng
from .trust import TrustPolicy, step_info


class WorldSimEnv(LightSpec, gymnasium.Env[Any, Any]):
    """A recorded world that runs on by itself: every step is dreamed by a video model.

    ## Action Space
    A `Discrete`, `MultiDiscrete` or `MultiBinary` that counts from 0, or a `Box` of float32 with
    every entry from -1 to 1, as learners like it; a world of video without actions has
    `Discrete(1)`. The world's own range is `env.unwrapped.world.spec.action`, and
    `actions="native"` uses it. (Of car-racing's steer, gas and brake the last two are 0 to 1
    there: here -1 is "no gas". A real environment takes the same actions through
    `gymnasium.wrappers.RescaleAction(env, -1, 1)`.) An action holds for one step, which spans
    `chunk` video frames (the action repeat). Actions of another shape, not finite or out of range
    are refused with `WorldError`; clip them first. An environment belongs to one thread at a time:
    a call while another thread is inside is refused, too.

    ## Observation Space
    - `observation="frame"`: the newest frame, `Box(0, 255, (H, W, 3), uint8)`.
    - `observation="chunk"`: the step's frames, oldest first,
      `Box(0, 255, (chunk, H, W, 3), uint8)`.
    - `observation="latent"`: the step's latent, a float32 `Box`. Nothing is decoded, so this is
      the fastest. Its bounds are those of float32: nothing is promised beyond finite numbers.
    - `observation="dict"`, in a world that knows a state vector beside its frames
      (`world.spec.state`): `{"frame": ..., "state": ...}`, the newest frame and a float32 `Box`
      `(D,)` in the state's own units. Zeros where a start clip tells none.

    ## Rewards
    The reward the world expects for the step, summed over its frames.

    ## Starting State
    A start of the world's own, drawn by `seed`. The same seed gives the same bytes on the same
    machine, device, versions and number of threads; each further `reset()` is the next episode of
    that seed. Or your own clip: `reset(options={"frames": frames, "actions": actions})` with
    `frames` `(n, H, W, 3)` uint8, where n is 1 (a picture that stands still) or a multiple of
    `chunk` up to `context * chunk`, oldest first; and, if known, `actions`
    `(n / chunk, *action)`, of which each led into its chunk; and `states` `(n / chunk, D)` at each
    chunk's end, in a world that knows them. `fps`, frames a second of the clip, is
    compared with the world's if given.

    ## Episode End
    Terminated when the world gives going on less than even odds; truncated after `time_limit`
    steps. Steps before a reset or after the end raise `gymnasium.error.ResetNeeded`.

    A dream in which a NaN or an infinity arises is truncated, too: `info["reason"]` is then
    "not finite", the reward 0, and the observation that of the step before.

    ## Trust
    `info["trust"]` is the probability that the dream still tracks reality, "unknown" where nobody
    calibrated the world (docs/explanation/trust.md). Below `trust_threshold` an environment made
    with `trust="penalise"` takes up to `trust_penalty` off the reward, in proportion to what is
    missing, and keeps the world's own in `info["raw_reward"]`; one made with `trust="truncate"`
    truncates the episode, with `info["reason"]` "untrusted".

    ## Information
    `info["steps"]`: steps since the reset. After a step also `info["continue_prob"]`, the
    probability that the episode goes on, and `info["trust"]`.

    ## Words
    A world that was trained with captions may be told what to show: `text`, a prompt, or several of
    which each episode draws one; `reset(options={"text": ...})`, for this episode; and
    `env.say("it begins to rain")` at any step, which holds from the next one on. `guidance`, from 1
    up, is how much more strongly than in the recording a prompt is followed.

    ## Arguments
    - `world`: a bundled world's name, a world folder, `"module:function"` (called as
      `function(device=torch.device)`; it and its modules must be importable) or an object that
      implements `worldsim.WorldModel`. Names, folders and functions are loaded once a process and
      survive `pickle` and `EnvSpec.to_json()`; an object is pickled whole.
    - `device`: where the world runs; an object stays where it is.
    - `observation`: see above.
    - `actions`: `"normalized"` or `"native"`, see above; also the range of `options["actions"]`.
    - `render_mode`: `"rgb_array"` or None.
    - `num_steps`: denoising steps a chunk, 1 to 128, None for the world's own.
    - `time_limit`: steps an episode, None for the world's own.
    - `compile`: step by programs compiled for this machine, once (see `worldsim.compiled`).
    - `dtype`: what these compute in, None for what the device multiplies fast.
    - `micro_batch`: rows the world computes together, whatever the number of environments; with
      the same number here, in `make_vec` and in TorchRL, a row is the same to the bit in all of
      them (see `worldsim.world.fixed_batch`). None takes the batch as it comes.
    - `trust`: `"report"`, `"penalise"` or `"truncate"`, with `trust_threshold` and `trust_penalty`.

    `play(env)` of `gymnasium.utils.play` drives it by keyboard (`worldsim.envs.keyboard`): A and D,
    S and W for the axes of a box (A, D, W and S for steer, gas and brake), digits for choices.
    """

    metadata = {"render_modes": ["rgb_array"]}  # a copy with `render_fps` in every instance

    def __init__(
        self,
        world: str | PathLike[str] | WorldModel | SharedWorld = DEFAULT,
        device: str | torch.device = "cpu",
        observation: Literal["frame", "chunk", "latent", "dict"] = "frame",
        actions: Literal["normalized", "native"] = "normalized",
        render_mode: Literal["rgb_array"] | None = None,
        num_steps: int | None = None,
        time_limit: int | None = None,
        compile: bool = False,
        dtype: Literal["float32", "bfloat16"] | None = None,
        micro_batch: int | None = None,
        trust: Literal["report", "penalise", "truncate"] = "report",
        trust_threshold: float = 0.5,
        trust_penalty: float = 1.0,
        text: str | Sequence[str] | None = None,
        guidance: float | None = None,
    ) -> None:
        check_choice("render_mode", render_mode, (None, *self.metadata["render_modes"]))
        self.core = EnvCore(
            world, device, observation, actions, num_steps, time_limit, compile, dtype, micro_batch
        )
        self.trust_policy = TrustPolicy.towards(
            self.core.world, trust, trust_threshold, trust_penalty
        )
        self.prompts = Prompts.of(self.core.world, text, guidance, rows=None, draw=True)
        self.render_mode = render_mode
        self.action_space = self.core.action.space()
        self.observation_space = self.core.space()
        self.metadata = self.core.metadata()
        self._seeded: np.random.Generator | None = None  # the np_random that `seed` was drawn from
        self._episode: Episode | None = None
        self._frames: NDArray[np.uint8] | None = None  # the newest chunk, where decoded already

    @property
    def world(self) -> WorldModel:
        """The world that is stepped."""
        return self.core.world

    # --- Gymnasium's methods ----------------------------------------------------------------------

    @one_caller
    @torch.no_grad()
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; see "Starting State". On an error everything stays as it was."""
        known = ("frames", "actions", "states", "fps", "text", "guidance")
        options = check_options(options, known)
        clip = self.core.clip(options)
        said = self.prompts.asked(self.world, options, None)
        before = self._np_random, self._np_random_seed, self._seeded
        super().reset(seed=seed)
        try:
            observation = self._show(self._begin(clip, said))
        except BaseException:
            self._np_random, self._np_random_seed, self._seeded = before
            raise
        return observation, {"steps": 0}

    @one_caller
    @torch.no_grad()
    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Dream one step on. On an error everything stays as it was."""
        values = self.core.native(self.core.action.check(action))
        episode = self._running("step")
        if episode.over:
            raise NeedsReset("the episode is over: call env.reset() before the next env.step()")
        values = values[None].to(self.world.device)
        limit = self.core.time_limit
        outcome = advance(self.world, self.trust_policy, episode.state, values, limit)
        reward, *prediction, terminated, truncated, code = _on_host(outcome)
        after = Episode(
            state=outcome.state, seed=episode.seed, number=episode.number, steps=episode.steps + 1,
            over=bool(terminated or truncated),
        )  # fmt: skip
        info: dict[str, Any] = {"steps": after.steps}
        if reason := REASONS[int(code)]:
            info["reason"] = reason
        if code != NOT_FINITE:
            info |= step_info(self.trust_policy, *prediction)
        return self._show(after), reward, bool(terminated), bool(truncated), info

    @one_caller
    def say(self, text: str | None, guidance: float | None = None) -> None:
        """Tell the world what to show from the next step on; nothing if None.

        Raises `WorldError` for what is no prompt, and in a world that takes none.
        """
        episode = self._running("say")
        self._episode = replace(episode, state=say(self.world, episode.state, text, guidance))

    @one_caller
    @torch.no_grad()
    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """The newest frame, (H, W, 3) uint8, yours to keep; None without a render mode."""
        if self.render_mode is None:
            gymnasium.logger.warn('render() needs gymnasium.make(..., render_mode="rgb_array")')
            return None
        if self._frames is None:
            self._frames = self._decode(self._running("render"))
        return self._frames[-1].copy()

    # --- Saving and restoring ---------------------------------------------------------------------

    @one_caller
    def get_state(self) -> EnvState:
        """All that the future depends on; `set_state` makes it repeat bit for bit.

        `worldsim.save_state(path, env.get_state(), env.world)` puts it on a disk, and
        `worldsim.load_state(path, EnvState, env.world)` reads it, in another process say.
        """
        return EnvState(
            world=self.world.spec.name,
            episode=self._running("get_state"),
            rng=Rng.of(self.np_random, self.np_random_seed),
        )

    @one_caller
    @torch.no_grad()
    def set_state(self, saved: EnvState) -> None:
        """Go on from `saved`, taken from this or another environment of the same world.

        Raises `WorldError`, with everything as it was, for a state that does not fit.
        """
        if not isinstance(saved, EnvState):
            raise WorldError(f"saved: expected an EnvState, got {type(saved).__name__}")
        saved.check(self.world, None if self._episode is None else self._episode.state)
        rng = saved.rng.generator()
        state = saved.episode.state.to(self.world.device)
        self._episode, self._frames = replace(saved.episode, state=state), None
        self._np_random, self._np_random_seed, self._seeded = rng, saved.rng.seed, rng

    # --- Keyboard ---------------------------------------------------------------------------------

    @property
    def noop(self) -> Any:
        """The action of idle hands."""
        return self.core.from_native(neutral_action(self.world.spec.action))

    def get_keys_to_action(self) -> dict[str, Any]:
        """Keys held down together -> action, for `gymnasium.utils.play`."""
        keys = keys_to_action(self.world.spec.action)
        return {held: self.core.from_native(action) for held, action in keys.items()}

    # --- Inside -----------------------------------------------------------------------------------

    def _running(self, call: str) -> Episode:
        if self._episode is None:
            raise NeedsReset(f"call env.reset() before env.{call}()")
        return self._episode

    def _begin(self, clip: Clip | None, said: Prompts) -> Episode:
        """The next episode of the current seed."""
        last = self._episode
        if last is None or self.np_random is not self._seeded:
            self._seeded = self.np_random
            seed, number = draw_seed(self.np_random), 0
        else:
            seed, number = last.seed, last.number + 1
        key = torch.tensor([[seed, number]], dtype=torch.int64, device=self.world.device)
        if clip is None:
            state = self.world.reset(key)
        else:
            frames, actions, states = clip
            state = self.world.encode(frames, actions, key, states=states)
        return Episode(state=said.begin(state), seed=seed, number=number, steps=0, over=False)

    def _show(self, episode: Episode) -> Any:
        """Go on from `episode`, and observe it. Nothing changes if decoding fails."""
        if not self.core.pixels:
            self._episode, self._frames = episode, None
            return episode.state.latent[0].to("cpu", torch.float32, copy=True).numpy()
        frames = self._decode(episode)
        self._episode, self._frames = episode, frames
        if self.core.observation == "dict":
            vector = episode.state.states[0, -1].to("cpu", copy=True).numpy()
            return {"frame": frames[-1].copy(), "state": vector}
        return (frames if self.core.observation == "chunk" else frames[-1]).copy()

    def _decode(self, episode: Episode) -> NDArray[np.uint8]:
        return self.world.decode(episode.state)[0].cpu().numpy()


def _on_host(outcome: Outcome) -> list[float]:
    """What one row comes to, its state apart, in one transfer."""
    parts = (outcome.reward, outcome.raw_reward, outcome.continue_prob, outcome.trust,
             outcome.terminated, outcome.truncated, outcome.reason)  # fmt: skip
    return torch.cat([part.to(torch.float32) for part in parts]).tolist()
