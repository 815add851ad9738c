"""Settings of a diffusion world: how a step is drawn, and what the whole is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from worldsim.core import EnvironmentSpec, WorldError, WorldSpec
from worldsim.diffusion.rng import normal_rows
from worldsim.diffusion.samplers import consistency, euler, heun
from worldsim.diffusion.schedule import corrupt, linear_levels
from worldsim.fields import ABSENT
from worldsim.models.conditioning import ConditioningConfig
from worldsim.models.dit import DiTConfig
from worldsim.models.heads import HeadsConfig
from worldsim.models.latent_actions import LatentActionConfig
from worldsim.models.vae import DOWN, VAEConfig


class ShapedDenoise(Protocol):
    """`denoise(x, level)` of chunks of a shape (h, w, C)."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    def __call__(self, x: Tensor, level: Tensor, /) -> Tensor: ...  # noqa: D102


LATENT_BOUND = 6.0
"""Latents have unit variance; one further out than this is a sampler's mistake and is clipped."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a step draws the next chunk.

    Attributes:
        method: "consistency" for a distilled student, "euler" or "heun" for a teacher.
        num_steps: denoising passes (Heun: nearly two a step).
        temperature: size of the noise that is drawn, above 0 to 1. Below 1 dreams keep to what is
            likely: closer to the truth on average, and less varied (as in Glow, 1807.03039).
    """

    method: Literal["consistency", "euler", "heun"] = "consistency"
    num_steps: int = 1
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.method not in ("consistency", "euler", "heun"):
            raise WorldError(f"method: expected consistency, euler or heun, got {self.method!r}")
        if not 1 <= self.num_steps <= 1000:
            raise WorldError(f"num_steps: expected 1 to 1000, got {self.num_steps}")
        if not 0 < self.temperature <= 1:
            raise WorldError(f"temperature: expected above 0 to 1, got {self.temperature}")

    @property
    def numbers(self) -> Tensor:
        """Method, num_steps and temperature, (3,): what a calibration holds for."""
        method = ("consistency", "euler", "heun").index(self.method)
        return torch.tensor([method, self.num_steps, self.temperature])

    def sample(
        self,
        denoise: ShapedDenoise,
        key: Tensor,
        age: Tensor,
        soft: tuple[Tensor, float] | None = None,
    ) -> Tensor:
        """A chunk, (B, h, w, C), from each row's own randomness.

        key: (B, 2) and age: (B,) int64. soft: a chunk (B, h, w, C) that it resembles and how
        strongly, above 0 to below 1: noise levels are at most 1 - strength.
        """
        shape = denoise.shape

        def fresh(draw: int) -> Tensor:
            noise = normal_rows(key, age, draw, shape)
            return noise if self.temperature == 1 else noise * self.temperature

        levels, begin = linear_levels(self.num_steps), fresh(0)
        if soft is not None:
            like, strength = soft
            levels = tuple(dict.fromkeys(min(t, 1 - strength) for t in levels))
            begin = corrupt(like, begin, torch.full_like(age, levels[0], dtype=torch.float32))
        if self.method == "consistency":
            return consistency(denoise, begin, levels[:-1], fresh)
        solver = euler if self.method == "euler" else heun
        return solver(denoise, begin, levels)


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """All settings of a diffusion world: what it is, and the sizes of its parts.

    Attributes:
        spec: what a user must know.
        vae, dit, heads, conditioning: its networks.
        sampling: how the next chunk is drawn.
        latent_actions: the model that infers actions from video, where it knows such.
        environment: how the real environment that it was learned from is made, if there is one.
        sizes: (height, width) of the frames that it was trained on, its own first; () for its own.
    """

    spec: WorldSpec
    vae: VAEConfig
    dit: DiTConfig
    heads: HeadsConfig
    conditioning: ConditioningConfig
    sampling: Sampling
    environment: EnvironmentSpec | None = None
    latent_actions: LatentActionConfig | None = field(default=None, metadata=ABSENT)
    sizes: tuple[tuple[int, int], ...] = field(default=(), metadata=ABSENT)

    def __post_init__(self) -> None:
        spec, (height, width, _) = self.spec, self.spec.frame_shape
        latent = (height // DOWN, width // DOWN, self.vae.channels)
        checks = {
            "frame_shape": (spec.frame_shape, height % DOWN == width % DOWN == 0),
            "chunk": (spec.chunk, spec.chunk == self.vae.chunk >= 1),
            "latent_shape": (spec.latent_shape, spec.latent_shape == latent),
            "context": (spec.context, spec.context >= 2),
            "action": (spec.action, spec.action == self.conditioning.action),
            "state": (spec.state, spec.state == self.conditioning.state),
            "time_limit": (spec.time_limit, spec.time_limit >= 1),
            "fps": (spec.fps, spec.fps > 0),
            "latent_actions": (self.latent_actions, self._infers()),
            "sizes": (self.sizes, self._sized()),
        }
        for name, (value, fits) in checks.items():
            if not fits:
                raise WorldError(
                    f"{name}: {value} does not fit the other settings: sides divide by {DOWN}, "
                    f"latents are {latent}, chunk is the VAE's {self.vae.chunk}, context at least "
                    "2, action and state are those of the conditioning, latent actions as wide, "
                    "sizes begin with the frame's"
                )

    def _infers(self) -> bool:
        """Whether the model that infers actions, if any, fits the rest."""
        model, said = self.latent_actions, self.conditioning.latent_action
        return model is None or (model.chunk, model.dim) == (self.spec.chunk, said)

    def _sized(self) -> bool:
        """Whether the sizes that it was trained on, if any, are sizes, its own before others."""
        fits = all(side >= DOWN and side % DOWN == 0 for size in self.sizes for side in size)
        return fits and (not self.sizes or self.sizes[0] == self.spec.frame_shape[:2])
