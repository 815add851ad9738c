"""DiffusionWorld: the spacetime VAE, the denoiser and the heads as a world that can be stepped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor

from worldsim.core import (
    Conditions,
    Prediction,
    WorldError,
    WorldSpec,
    WorldState,
    as_keys,
    row_keys,
)
from worldsim.diffusion.rng import hash_rows
from worldsim.diffusion.timeline import ChunkDenoiser, fill_cache
from worldsim.models.dynamics import Dynamics
from worldsim.models.latent_actions import LatentActionModel
from worldsim.models.text import tokens_of
from worldsim.models.vae import SpacetimeVAE, to_bytes, to_float
from worldsim.nn.stable import sigmoid
from worldsim.states import no_states

from .config import LATENT_BOUND, Sampling, WorldConfig
from .fanned import FannedState
from .uncertainty import Trust

START_DRAW = 2**20
"""Number of the draw that chooses a start clip, far from those of denoising."""


@dataclass(frozen=True)
class Starts:
    """Real clips that dreams start from.

    Attributes:
        frames: (N, K * c, H, W, 3) uint8.
        actions: (N, K, *action).
        known: (N, K) bool, which of the actions are known.
        states: (N, K, D), NaN where unknown; None in a world without.
    """

    frames: Tensor
    actions: Tensor
    known: Tensor
    states: Tensor | None = None


class DiffusionWorld:
    """A learned world behind the `WorldModel` protocol.

    Holds no state of its own: `reset` and `encode` make a `WorldState`, `step` maps one to the
    next. Rows never depend on each other; the cost of a step does not depend on its age.
    """

    def __init__(
        self,
        config: WorldConfig,
        vae: SpacetimeVAE,
        dynamics: Dynamics,
        starts: Starts,
        card: dict[str, Any] | None = None,
        trust: Trust | None = None,
        latent_actions: LatentActionModel | None = None,
    ) -> None:
        self.config, self.starts, self.card = config, starts, card
        self.trust = None if trust is None else trust.eval().requires_grad_(False)
        self.calibrated = trust is not None and trust.fits(config.sampling.numbers)
        self.latent_actions = latent_actions and latent_actions.eval().requires_grad_(False)
        self.vae = vae.eval().requires_grad_(False)
        self.dynamics = dynamics.eval().requires_grad_(False)

    @property
    def spec(self) -> WorldSpec:
        """What a user must know to step this world."""
        return self.config.spec

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.vae.mean.device

    def to(self, device: torch.device | str) -> Self:
        """Move the weights; returns itself."""
        self.vae.to(device)
        self.dynamics.to(device)
        for part in filter(None, (self.trust, self.latent_actions)):
            part.to(device)
        return self

    def with_sampling(self, sampling: Sampling) -> DiffusionWorld:
        """The same weights drawn from in another way."""
        config, own = replace(self.config, sampling=sampling), (self.vae, self.dynamics)
        more = self.card, self.trust, self.latent_actions
        return DiffusionWorld(config, *own, self.starts, *more)

    def with_trust(self, trust: Trust | None) -> DiffusionWorld:
        """The same world with another calibration."""
        parts = self.config, self.vae, self.dynamics, self.starts, self.card
        return DiffusionWorld(*parts, trust=trust, latent_actions=self.latent_actions)

    def with_num_steps(self, num_steps: int) -> DiffusionWorld:
        """The same world with another number of denoising steps."""
        return self.with_sampling(replace(self.config.sampling, num_steps=num_steps))

    def reset(self, key: Tensor) -> WorldState:
        """A start clip for every key (B, 2), encoded."""
        key, starts = as_keys(key, self.device), self.starts
        clip = hash_rows(key, torch.zeros_like(key[:, 0]), START_DRAW) % len(starts.frames)
        clip = clip.to(starts.frames.device)
        states = None if starts.states is None else starts.states[clip]
        return self.encode(
            starts.frames[clip], starts.actions[clip], key, known=starts.known[clip], states=states
        )

    @torch.no_grad()
    def encode(
        self,
        frames: Tensor,
        actions: Tensor | None = None,
        key: Tensor | None = None,
        *,
        known: Tensor | None = None,
        states: Tensor | None = None,
        world: Tensor | None = None,
    ) -> WorldState:
        """The state after a clip of k chunks, 1 <= k <= context.

        frames: (B, k * c, H, W, 3) uint8. actions: (B, k, *action), None where all are unknown.
        known: (B, k) bool, which actions are known; all if None. key: (B, 2) int64; by default rows
        get the seeds 0..B-1. states, world: see `from_latents`. Raises `WorldError`.
        """
        self.spec.check_clip(frames, actions, (len(frames),), known)
        video = to_float(frames.to(self.device))
        latents = torch.cat([self.vae.encode(v) for v in video.split(64)])
        return self.from_latents(latents, actions, key, known=known, states=states, world=world)

    @torch.no_grad()
    def from_latents(
        self,
        latents: Tensor,
        actions: Tensor | None = None,
        key: Tensor | None = None,
        *,
        known: Tensor | None = None,
        states: Tensor | None = None,
        world: Tensor | None = None,
    ) -> WorldState:
        """The state after a clip that is encoded already: `encode` without its encoder.

        latents: (B, k, h, w, C) of any float type, 1 <= k <= context. actions, known, key: as in
        `encode`. states: (B, k, D) at each chunk's end, NaN where not known; nothing is known of
        them if None. world: (B,) int64, which of `conditioning.worlds`; not known if None.
        """
        rows, count = latents.shape[:2]
        held, mask = self.spec.hold_actions(actions, known, (rows, count), self.device)
        latents = latents.to(self.device).float().clamp(-LATENT_BOUND, LATENT_BOUND)
        blank = latents.new_zeros(rows, self.spec.context - count, *latents.shape[2:])
        key = row_keys(range(rows)) if key is None else key
        state = WorldState.of(
            latents=torch.cat([blank, latents], 1),
            actions=held,
            known=mask,
            filled=torch.full((rows,), count, device=self.device),
            age=torch.zeros(rows, dtype=torch.int64, device=self.device),
            key=key.to(self.device),
            **self._sticky(rows, world),
            **self._states(states, (rows, count)),
        )
        if self.trust is not None:
            uncertainty = self.trust.start(state.latents, state.filled)
            state = replace(state, uncertainty=uncertainty)
        cache = fill_cache(self.dynamics, state.latents, state.context, state.filled)
        return replace(state, cache=cache)

    def _sticky(self, rows: int, world: Tensor | None) -> dict[str, Tensor]:
        """Inferred actions of the context, prompt and world, where the world has them: unknown."""
        config, new = self.config.conditioning, partial(torch.zeros, device=self.device)
        if world is not None and not config.worlds:
            raise WorldError("world: expected None, as this world is one; leave it out")
        parts: dict[str, Tensor] = {}
        if config.latent_action:
            shape = (rows, self.spec.context)
            width = config.latent_action
            parts["latent_actions"] = new(*shape, width, dtype=torch.float32)
            parts["latent_known"] = new(shape, dtype=torch.bool)
        if config.text:
            assert config.encoder is not None
            parts["text"] = new(rows, config.encoder.length, dtype=torch.int64)
            parts["text_known"] = new(rows, 1, dtype=torch.bool)
            parts["guidance"] = new(rows, 1, dtype=torch.float32) + 1
        if config.worlds:
            index = torch.zeros(rows) if world is None else world
            parts["world"] = index.to(self.device, torch.int64)[:, None]
            parts["world_known"] = torch.full_like(parts["world"], world is not None).bool()
        return parts

    def _states(self, states: Tensor | None, lead: tuple[int, int]) -> dict[str, Tensor]:
        """State vectors of the context, where the world has any."""
        if self.spec.state is None:
            no_states(states, self.spec.name)
            return {}
        held, known = self.spec.state.hold(states, lead, self.spec.context, self.device)
        return {"states": held, "states_known": known}

    def prompt(self, text: str | Sequence[str]) -> Tensor:
        """Tokens of a prompt (1, L), or of several (B, L), for `WorldState.prompted`.

        Raises `WorldError` for what is no prompt, and in a world that takes none.
        """
        if self.config.conditioning.encoder is None:
            raise WorldError(f"text: expected None, as {self.spec.name} was trained without words")
        texts = [text] if isinstance(text, str) else list(text)
        return tokens_of(texts, self.config.conditioning.encoder).to(self.device)

    @torch.no_grad()
    def step(
        self,
        state: WorldState,
        action: Tensor | None = None,
        *,
        latent_action: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[WorldState, Prediction]:
        """The next state under `action` (B, *action), and what the heads say.

        None is an action that is not known. latent_action: (B, L), one inferred from video.
        Noise is keyed on each row's (seed, episode, step); a `generator` draws fresh keys for this
        step instead, so that copies of a row go different ways. Raises `WorldError` for an action
        of another shape; ranges are checked where users come in, not here, in the inner loop.
        """
        given = self._next(state, action, latent_action)
        key = state.key
        if generator is not None:
            key = torch.randint(2**31, key.shape, generator=generator, device=generator.device)
            key = key.to(state.key.device)
        return self.advance(state, given, key)

    def _next(
        self, state: WorldState, action: Tensor | None, latent_action: Tensor | None = None
    ) -> Conditions:
        """What is said of the chunk to come."""
        self.spec.check_state(state)
        rows, width = len(state), self.config.conditioning.latent_action
        shapes = {
            "action": (action, self.spec.action.shape),
            "latent_action": (latent_action, (width,)),
        }
        for name, (value, shape) in shapes.items():
            if value is not None and tuple(value.shape) != (rows, *shape):
                expected, got = (rows, *shape), tuple(value.shape)
                raise WorldError(f"{name}: expected shape {expected}, got {got}")
        newest = state.context.chunks(slice(-1, None))

        def given(value: Tensor | None, like: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
            if value is None:
                return torch.zeros_like(like), torch.zeros_like(mask)
            return value[:, None].to(like), torch.ones_like(mask)

        said = given(action, newest.action, newest.action_known)
        inferred = given(latent_action, newest.latent_action, newest.latent_action_known)
        return Conditions(
            *said, *inferred, state.text, state.text_known, state.guidance, state.world,
            state.world_known, state.states[:, -1:], state.states_known[:, -1:],
        )  # fmt: skip

    def advance(
        self, state: WorldState, given: Conditions, key: Tensor
    ) -> tuple[WorldState, Prediction]:
        """`step` from checked conditions of the next chunk and the keys (B, 2) of its noise."""
        fanned = isinstance(state, FannedState)
        said = state.context.then(given)  # of the K + 1 chunks
        denoise = self._denoiser(state, said, state.prefix if fanned else None)
        latent = self.config.sampling.sample(denoise, key, state.age)
        latent = latent.clamp(-LATENT_BOUND, LATENT_BOUND)
        cache, prefix = denoise.following
        held = said.chunks(slice(1, None))
        parts = {f.name: getattr(state, f.name) for f in fields(WorldState)}
        parts |= {
            "latents": torch.cat([state.latents[:, 1:], latent[:, None]], 1),
            "actions": held.action,
            "known": held.action_known,
            "latent_actions": held.latent_action,
            "latent_known": held.latent_action_known,
            "states": torch.cat([state.states[:, 1:], denoise.state[:, None]], 1)
            if state.states.shape[1]
            else state.states,
            "states_known": torch.cat(
                [state.states_known[:, 1:], torch.ones_like(state.states_known[:, :1])], 1
            ),
            "filled": (state.filled + 1).clamp(max=self.spec.context),
            "age": state.age + 1,
            "cache": cache,
        }
        following, prediction = self._judge(state, WorldState(**parts), denoise)
        if prefix is not None:
            following = FannedState(**vars(following), prefix=prefix)
        return following, prediction

    def _denoiser(
        self, state: WorldState, said: Conditions, prefix: Tensor | None = None
    ) -> ChunkDenoiser:
        return ChunkDenoiser(
            self.dynamics,
            newest=state.latents[:, -1],
            previous=state.latents[:, -2],
            conditions=said.chunks(slice(-2, None)),
            cache=state.cache,
            filled=state.filled,
            window=self.spec.context,
            prefix=prefix,
        )

    @torch.no_grad()
    def fan_out(self, state: WorldState, times: int) -> FannedState:
        """Each row `times` times, as `state.repeat(times)`, sharing the past instead of copying it.

        Runs the newest chunk's pass once a row instead of once a candidate, so the first step of a
        plan costs half as much, and holds the context's keys and values once a row. What follows
        equals `repeat`'s up to rounding. Raises `WorldError` for `times` below 1.
        """
        if times < 1:
            raise WorldError(f"times: expected at least 1, got {times}")
        if isinstance(state, FannedState):
            state = state.plain()
        said = state.context.then(self._next(state, None))
        prefix = self._denoiser(state, said).join()
        rows = replace(state, cache=prefix[:, :, :, :0]).repeat(times)
        return FannedState(**vars(rows), prefix=prefix)

    def _judge(
        self, state: WorldState, following: WorldState, denoise: ChunkDenoiser
    ) -> tuple[WorldState, Prediction]:
        """What the heads say of the step, and how far it can be trusted; NaN where unknown."""
        assert denoise.features is not None
        out = self.dynamics.heads(denoise.features)
        reward = self.dynamics.heads.expected_reward(out.reward)
        trust = torch.full_like(reward, float("nan"))
        if self.trust is not None:
            action = following.actions[:, -1], following.known[:, -1]
            signs = self.trust.signs(state, action, denoise.answers, out)
            uncertainty = self.trust.grow(state.uncertainty, signs, state.age)
            following = replace(following, uncertainty=uncertainty)
            if self.calibrated:
                trust = self.trust(following)
        return following, Prediction(reward, sigmoid(out.continue_logits), trust)

    @torch.no_grad()
    def decode(self, state: WorldState) -> Tensor:
        """The newest chunk's frames, (B, c, H, W, 3) uint8."""
        self.spec.check_state(state)
        return self.decode_latents(state.latents[:, -1], state.latents[:, -2], state.filled)

    def decode_latents(self, latent: Tensor, previous: Tensor, filled: Tensor) -> Tensor:
        """`decode` of a latent and the one before it, each (B, h, w, C)."""
        raw, past = (x * self.vae.std + self.vae.mean for x in (latent, previous))
        # the decoder's memory of "no chunk before" is zeros, not a mean
        return to_bytes(self.vae.decode_next(raw, (filled > 1)[:, None, None, None] * past))

    def infer_actions(self, frames: Tensor) -> Tensor:
        """Latent actions (B, k, L) of clips (B, k * c, H, W, 3) uint8; see `Inferred`.

        The first chunk's are zeros: what led into it was not seen. How sure each is tells
        `world.latent_actions.infer`. Raises WorldError where the world infers none, and for clips
        of another kind or of one chunk.
        """
        if self.latent_actions is None:
            raise WorldError(
                f"latent_actions: expected a world that infers actions, got {self.spec.name}; "
                'train it with conditions=("latent_action",)'
            )
        if tuple(frames.shape[2:]) != self.spec.frame_shape:
            expected = ("B", "n", *self.spec.frame_shape)
            raise WorldError(f"frames: expected shape {expected}, got {tuple(frames.shape)}")
        return self.latent_actions.infer(frames).latent

    def generate(self, given: Sequence[tuple[Any, ...]], *, frames: int, **options: Any) -> Tensor:
        """Video (frames, H, W, 3) uint8 around given clips; see `worldsim.generate`."""
        from .generate import generate  # here: it is made of worlds

        return generate(self, given, frames=frames, **options)

    @torch.no_grad()
    def decode_video(self, latents: Tensor) -> Tensor:
        """Frames (B, n * c, H, W, 3) uint8 of consecutive latents (B, n, h, w, C)."""
        video = torch.cat([self.vae.decode(z) for z in latents.split(16)])
        return to_bytes(video)
