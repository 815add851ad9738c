"""DiffusionWorld: the spacetime VAE, the denoiser and the heads as a world that can be stepped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor

from worldsim.core import Prediction, WorldError, WorldSpec, WorldState, row_keys
from worldsim.diffusion.rng import hash_rows, normal_rows
from worldsim.diffusion.samplers import consistency, euler, heun
from worldsim.diffusion.schedule import linear_levels
from worldsim.diffusion.timeline import ChunkDenoiser, fill_cache
from worldsim.models.dit import DiTConfig
from worldsim.models.dynamics import Dynamics
from worldsim.models.heads import HeadsConfig
from worldsim.models.vae import DOWN, SpacetimeVAE, VAEConfig, to_bytes, to_float

from .fanned import FannedState
from .uncertainty import Trust

LATENT_BOUND = 6.0
"""Latents have unit variance; one further out than this is a sampler's mistake and is clipped."""

START_DRAW = 2**20
"""Number of the draw that chooses a start clip, far from those of denoising."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a step draws the next chunk.

    Attributes:
        method: "consistency" for a distilled student, "euler" or "heun" for a teacher.
        steps: denoising passes (Heun: nearly two a step).
        temperature: size of the noise that is drawn, above 0 to 1. Below 1 dreams keep to what is
            likely: closer to the truth on average, and less varied (as in Glow, 1807.03039).
    """

    method: Literal["consistency", "euler", "heun"] = "consistency"
    steps: int = 1
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.method not in ("consistency", "euler", "heun"):
            raise WorldError(f"method: expected consistency, euler or heun, got {self.method!r}")
        if not 1 <= self.steps <= 1000:
            raise WorldError(f"steps: expected 1 to 1000, got {self.steps}")
        if not 0 < self.temperature <= 1:
            raise WorldError(f"temperature: expected above 0 to 1, got {self.temperature}")

    @property
    def numbers(self) -> Tensor:
        """Method, steps and temperature, (3,): what a calibration holds for."""
        method = ("consistency", "euler", "heun").index(self.method)
        return torch.tensor([method, self.steps, self.temperature])

    def sample(self, denoise: ChunkDenoiser, key: Tensor, age: Tensor) -> Tensor:
        """The next chunk, (B, h, w, C), from each row's own randomness."""
        shape = tuple(denoise.newest.shape[1:])

        def fresh(draw: int) -> Tensor:
            noise = normal_rows(key, age, draw, shape)
            return noise if self.temperature == 1 else noise * self.temperature

        levels = linear_levels(self.steps)
        if self.method == "consistency":
            return consistency(denoise, fresh(0), levels[:-1], fresh)
        solver = euler if self.method == "euler" else heun
        return solver(denoise, fresh(0), levels)


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """All settings of a diffusion world: what it is, and the sizes of its parts."""

    spec: WorldSpec
    vae: VAEConfig
    dit: DiTConfig
    heads: HeadsConfig
    sampling: Sampling

    def __post_init__(self) -> None:
        spec, (height, width, _) = self.spec, self.spec.frame_shape
        latent = (height // DOWN, width // DOWN, self.vae.channels)
        checks = {
            "frame_shape": (spec.frame_shape, height % DOWN == width % DOWN == 0),
            "chunk": (spec.chunk, spec.chunk == self.vae.chunk >= 1),
            "latent_shape": (spec.latent_shape, spec.latent_shape == latent),
            "context": (spec.context, spec.context >= 2),
            "time_limit": (spec.time_limit, spec.time_limit >= 1),
            "fps": (spec.fps, spec.fps > 0),
        }
        for name, (value, fits) in checks.items():
            if not fits:
                raise WorldError(
                    f"{name}: {value} does not fit the other settings: sides divide by {DOWN}, "
                    f"latents are {latent}, chunk is the VAE's {self.vae.chunk}, context at least 2"
                )


@dataclass(frozen=True)
class Starts:
    """Real clips that dreams start from.

    Attributes:
        frames: (N, K * c, H, W, 3) uint8.
        actions: (N, K, *action).
    """

    frames: Tensor
    actions: Tensor


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
    ) -> None:
        self.config, self.starts, self.card = config, starts, card
        self.trust = None if trust is None else trust.eval().requires_grad_(False)
        self.calibrated = trust is not None and trust.fits(config.sampling.numbers)
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
        if self.trust is not None:
            self.trust.to(device)
        return self

    def with_sampling(self, sampling: Sampling) -> DiffusionWorld:
        """The same weights drawn from in another way."""
        config = replace(self.config, sampling=sampling)
        return DiffusionWorld(config, self.vae, self.dynamics, self.starts, self.card, self.trust)

    def with_trust(self, trust: Trust | None) -> DiffusionWorld:
        """The same world with another calibration."""
        parts = self.config, self.vae, self.dynamics, self.starts, self.card
        return DiffusionWorld(*parts, trust=trust)

    def with_num_steps(self, steps: int) -> DiffusionWorld:
        """The same world with another number of denoising steps."""
        return self.with_sampling(replace(self.config.sampling, steps=steps))

    def reset(self, key: Tensor) -> WorldState:
        """A start clip for every key (B, 2), encoded."""
        key = key.to(self.device)
        clip = hash_rows(key, torch.zeros_like(key[:, 0]), START_DRAW) % len(self.starts.frames)
        clip = clip.to(self.starts.frames.device)
        return self.encode(self.starts.frames[clip], self.starts.actions[clip], key)

    @torch.no_grad()
    def encode(self, frames: Tensor, actions: Tensor, key: Tensor | None = None) -> WorldState:
        """The state after a clip of k chunks, 1 <= k <= context.

        frames: (B, k * c, H, W, 3) uint8. actions: (B, k, *action); NaN or -1 where unknown.
        key: (B, 2) int64; by default rows get the seeds 0..B-1. Raises `WorldError`.
        """
        self.spec.check_clip(frames, actions, (len(frames),))
        video = to_float(frames.to(self.device))
        latents = torch.cat([self.vae.encode(v) for v in video.split(64)])
        key = row_keys(range(len(actions))) if key is None else key
        return self.from_latents(latents, actions, key)

    @torch.no_grad()
    def from_latents(self, latents: Tensor, actions: Tensor, key: Tensor) -> WorldState:
        """The state after a clip that is encoded already: `encode` without its encoder.

        latents: (B, k, h, w, C) of any float type, 1 <= k <= context. actions: (B, k, *action).
        key: (B, 2) int64.
        """
        latents, actions = latents.to(self.device).float(), actions.to(self.device)
        rows, count = actions.shape[:2]
        missing = self.spec.context - count
        blank = latents.new_zeros(rows, missing, *latents.shape[2:])
        unknown = self.spec.action.unknown(rows, missing, device=self.device)
        state = WorldState(
            latents=torch.cat([blank, latents.clamp(-LATENT_BOUND, LATENT_BOUND)], 1),
            actions=torch.cat([unknown, actions.to(unknown.dtype)], 1),
            filled=torch.full((rows,), count, device=self.device),
            age=torch.zeros(rows, dtype=torch.int64, device=self.device),
            key=key.to(self.device),
            cache=torch.empty(rows, 0, device=self.device),
            doubt=torch.empty(rows, 0, device=self.device),
        )
        if self.trust is not None:
            state = replace(state, doubt=self.trust.start(state.latents, state.filled))
        cache = fill_cache(self.dynamics.dit, state.latents, state.actions, state.filled)
        return replace(state, cache=cache)

    @torch.no_grad()
    def step(
        self, state: WorldState, action: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[WorldState, Prediction]:
        """The next state under `action` (B, *action), and what the heads say.

        Noise is keyed on each row's (seed, episode, step); a `generator` draws fresh keys for this
        step instead, so that copies of a row go different ways. Raises `WorldError` for an action
        of another shape; ranges are checked where users come in, not here, in the inner loop.
        """
        expected = (len(state), *self.spec.action.shape)
        if tuple(action.shape) != expected:
            raise WorldError(f"action: expected shape {expected}, got {tuple(action.shape)}")
        key = state.key
        if generator is not None:
            key = torch.randint(2**31, key.shape, generator=generator, device=generator.device)
            key = key.to(state.key.device)
        return self.advance(state, action.to(state.actions.dtype), key)

    def advance(
        self, state: WorldState, action: Tensor, key: Tensor
    ) -> tuple[WorldState, Prediction]:
        """`step` from checked actions and the keys (B, 2) of its noise: tensors in, tensors out."""
        fanned = isinstance(state, FannedState)
        denoise = self._denoiser(state, action, state.prefix if fanned else None)
        latent = self.config.sampling.sample(denoise, key, state.age)
        latent = latent.clamp(-LATENT_BOUND, LATENT_BOUND)
        cache, prefix = denoise.following
        following = WorldState(
            latents=torch.cat([state.latents[:, 1:], latent[:, None]], 1),
            actions=torch.cat([state.actions[:, 1:], action[:, None]], 1),
            filled=(state.filled + 1).clamp(max=self.spec.context),
            age=state.age + 1,
            key=state.key,
            cache=cache,
            doubt=state.doubt,
        )
        following, said = self._judge(state, following, denoise)
        if prefix is not None:
            following = FannedState(**vars(following), prefix=prefix)
        return following, said

    def _denoiser(
        self, state: WorldState, action: Tensor, prefix: Tensor | None = None
    ) -> ChunkDenoiser:
        return ChunkDenoiser(
            self.dynamics.dit,
            newest=state.latents[:, -1],
            previous=state.latents[:, -2],
            actions=torch.stack([state.actions[:, -1], action], 1),
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
        unknown = self.spec.action.unknown(len(state), device=self.device)
        prefix = self._denoiser(state, unknown).join()
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
            signs = self.trust.signs(state, following.actions[:, -1], denoise.answers, out)
            doubt = self.trust.grow(state.doubt, signs, state.age)
            following = replace(following, doubt=doubt)
            if self.calibrated:
                trust = self.trust(following)
        return following, Prediction(reward, out.continue_logits.sigmoid(), trust)

    @torch.no_grad()
    def decode(self, state: WorldState) -> Tensor:
        """The newest chunk's frames, (B, c, H, W, 3) uint8."""
        return self.decode_latents(state.latents[:, -1], state.latents[:, -2], state.filled)

    def decode_latents(self, latent: Tensor, before: Tensor, filled: Tensor) -> Tensor:
        """`decode` of a latent and the one before it, each (B, h, w, C)."""
        raw, past = (x * self.vae.std + self.vae.mean for x in (latent, before))
        # the decoder's memory of "no chunk before" is zeros, not a mean
        return to_bytes(self.vae.decode_next(raw, (filled > 1)[:, None, None, None] * past))

    @torch.no_grad()
    def decode_video(self, latents: Tensor) -> Tensor:
        """Frames (B, n * c, H, W, 3) uint8 of consecutive latents (B, n, h, w, C)."""
        video = torch.cat([self.vae.decode(z) for z in latents.split(16)])
        return to_bytes(video)
