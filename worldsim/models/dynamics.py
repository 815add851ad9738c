"""The latent dynamics model: the video DiT and its heads, trained and stepped as one network."""

from __future__ import annotations

from torch import nn

from worldsim.core import ActionSpec

from .dit import DiTConfig, VideoDiT
from .heads import Heads, HeadsConfig


class Dynamics(nn.Module):
    """Holds `dit` (latents, actions -> next latents) and `heads` (features -> reward, end)."""

    def __init__(
        self, dit: DiTConfig, heads: HeadsConfig, channels: int, action: ActionSpec
    ) -> None:
        super().__init__()
        self.dit = VideoDiT(dit, channels, action)
        self.heads = Heads(heads, dit.dim)
