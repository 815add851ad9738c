"""One tab's dream: steps, rewinds, branches, keeps what was played. Knows nothing of the web."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from worldsim.core import WorldError, WorldModel
from worldsim.envs import EnvState

from .beside import Beside
from .controls import Controls
from .handover import Company, Handover

MOMENTS_BYTES = 160 * 2**20  # of one session; some 500 steps of a small world
MOST_MOMENTS = 1000
MOST_NUM_STEPS = 64


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where an episode stood after a step, and what that step brought.

    Attributes:
        state: all that its future depends on.
        frames: (c, H, W, 3) uint8, the step's.
        action: what led here, in the world's own range; None at the start.
        step: steps since the reset.
        reward, total: of the step; since the reset.
        trust, continue_prob: 0 to 1, None where unknown.
        terminated, truncated: whether the episode ended here.
        reason: why it was truncated, "" if by the time limit or not at all.
        driver: who acted, "keys" or a policy's name.
        real: (c, H, W, 3) uint8, the real environment's frames, None where it is not beside.
        real_total: what it has earned since the reset.
    """

    state: EnvState
    frames: NDArray[np.uint8]
    action: Any = None
    step: int = 0
    reward: float = 0.0
    total: float = 0.0
    trust: float | None = None
    continue_prob: float | None = None
    terminated: bool = False
    truncated: bool = False
    reason: str = ""
    driver: str = "keys"
    real: NDArray[np.uint8] | None = None
    real_total: float = 0.0

    @property
    def over(self) -> bool:
        """Whether only a reset or a rewind may follow."""
        return self.terminated or self.truncated


class Session:
    """A dream that one player steps; moments are kept exactly and within a bound of bytes.

    Attributes:
        moments: of this episode, oldest first; the oldest are dropped beyond the bound.
        at: index of the present among them. Stepping drops what comes after it.
        seed: of this episode.
    """

    def __init__(
        self,
        world: WorldModel,
        *,
        seed: int = 0,
        limit: int = MOMENTS_BYTES,
        company: Company = Company(),  # noqa: B008
    ) -> None:
        self.world, self.limit, self.company = world, limit, company
        self.handover = Handover(company.policies)
        self.beside: Beside | None = None
        self.env: Any = _environment(world, None)
        self.controls = _controls(self.env)
        self.seed = seed
        self.moments: list[Moment] = []
        self.at = 0
        self.reset(seed)

    @property
    def now(self) -> Moment:
        """The present moment."""
        return self.moments[self.at]

    def reset(self, seed: int, pixels: str = "", real: bool = False) -> Moment:
        """Begin an episode at a stored start, or at a picture or clip of the player's.

        pixels: base64 of (n, H, W, 3) uint8, one frame or whole chunks, up to the world's context.
        real: begin at what the real environment shows, and let it go on beside the dream.
        """
        options = {"frames": self._clip(pixels)} if pixels else None
        if real and options is None:
            told, context = self.world.spec.state is not None, self.world.spec.context
            options = self._real().begin(seed, self.controls.noop, context, told=told)
        frames, _ = self.env.reset(seed=seed, options=options)
        self.seed, self.at = seed, 0
        beside = self.beside.frames if real and self.beside and not pixels else None
        if self.beside and beside is None:
            self.beside.step = None
        self.moments = [Moment(state=self.env.get_state(), frames=frames, real=beside)]
        return self.now

    def step(
        self,
        keys: tuple[str, ...] = (),
        values: tuple[float, ...] | None = None,
        driver: Literal["keys", "policy"] = "keys",
    ) -> Moment:
        """Dream one step on; nothing happens after the episode's end.

        keys: held, newest last. values: the action itself, in place of keys. driver: "policy" lets
        the chosen policy act.
        """
        before = self.now
        if before.over:
            return before
        name = "keys"
        if driver == "policy":
            action, name = self.advice, self.handover.name
            if not name:
                raise WorldError("driver: expected a chosen policy, got none; choose one first")
        elif values is None:
            action = self.controls.from_keys(keys)
        else:
            action = self.controls.from_values(values)
        moment = self._stepped(before, action, name)
        self.moments[self.at + 1 :] = [moment]
        if len(self.moments) > self._most(moment):
            del self.moments[0]
        self.at = len(self.moments) - 1
        return moment

    def _stepped(self, before: Moment, action: Any, driver: str) -> Moment:
        self.env.set_state(before.state)
        frames, reward, terminated, truncated, info = self.env.step(action)
        real = None if self.beside is None else self.beside.go_on(before.step + 1, action)
        return Moment(
            state=self.env.get_state(),
            frames=frames,
            action=action,
            step=before.step + 1,
            reward=reward,
            total=before.total + reward,
            trust=_known(info.get("trust")),
            continue_prob=_known(info.get("continue_prob")),
            terminated=terminated,
            truncated=truncated,
            reason=info.get("reason", ""),
            driver=driver,
            real=real,
            real_total=self.beside.total if self.beside else 0.0,
        )

    @property
    def advice(self) -> Any:
        """What the chosen policy would do now; None without one and after the end."""
        return self.handover.advice(self.moments, self.at)

    def choose(self, policy: str) -> Moment:
        """Choose the policy that advises and may be handed over to, "" for none."""
        self.handover.choose(policy)
        return self.now

    @property
    def takes_text(self) -> bool:
        """Whether the world was trained with captions, so that it can be told what to show."""
        return self.now.state.episode.state.text.shape[1] > 0

    def say(self, text: str) -> Moment:
        """Tell the world what to show from the next step on, "" for nothing.

        What is said is part of the moment's state, so it is rewound with it. Raises WorldError.
        """
        self.env.set_state(self.now.state)
        self.env.say(text or None)
        self.moments[self.at] = replace(self.now, state=self.env.get_state())
        return self.now

    def rewind(self, step: int) -> Moment:
        """Make the moment after `step` steps the present; the nearest that is kept."""
        first = self.moments[0].step
        self.at = min(max(step - first, 0), len(self.moments) - 1)
        return self.now

    def sample(self, num_steps: int | None) -> Moment:
        """Draw further steps in `num_steps` denoising steps, None for the world's own."""
        if num_steps is not None and not 1 <= num_steps <= MOST_NUM_STEPS:
            raise WorldError(f"num_steps: expected 1 to {MOST_NUM_STEPS}, got {num_steps}")
        self.env = _environment(self.world, num_steps)
        self.env.set_state(self.now.state)
        return self.now

    def played(self) -> list[Moment]:
        """The episode up to the present: what a film or a recording holds."""
        return self.moments[: self.at + 1]

    def _real(self) -> Beside:
        if self.company.real is None:
            raise WorldError("real: this world names no real environment that can be made here")
        self.beside = self.beside or Beside(self.company.real())
        return self.beside

    def _clip(self, pixels: str) -> NDArray[np.uint8]:
        shape = self.world.spec.frame_shape
        try:
            data = base64.b64decode(pixels, validate=True)
        except (binascii.Error, ValueError) as error:
            raise WorldError("pixels: expected base64") from error
        if not data or len(data) % np.prod(shape):
            expected = f"whole frames of {np.prod(shape)} bytes {shape}"
            raise WorldError(f"pixels: expected {expected}, got {len(data)} bytes")
        return np.frombuffer(data, np.uint8).reshape(-1, *shape)

    def _most(self, moment: Moment) -> int:
        state = moment.state.episode.state
        tensors = [getattr(state, field.name) for field in fields(state)]
        size = sum(x.nbytes for x in tensors if isinstance(x, Tensor)) + moment.frames.nbytes
        return max(2, min(MOST_MOMENTS, self.limit // size))


def _environment(world: WorldModel, num_steps: int | None) -> Any:
    kwargs: dict[str, Any] = {} if num_steps is None else {"num_steps": num_steps}
    return gymnasium.make(
        "WorldSim-v0", world=world, observation="chunk", actions="native", **kwargs
    ).unwrapped


def _controls(env: Any) -> Controls:
    try:
        mapping = env.get_keys_to_action()
    except WorldError:  # too many choices or axes for keys: the page shows sliders
        mapping = {}
    return Controls(mapping, env.noop, env.world.spec.action)


def _known(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and value == value else None
