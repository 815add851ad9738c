"""The latent dynamics model: conditioning, the video DiT and its heads, trained as one network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from worldsim.core import Conditions

from .conditioning import Conditioning, ConditioningConfig
from .dit import DiTConfig, VideoDiT
from .heads import Heads, HeadsConfig


class DynamicsOutput(NamedTuple):
    """What a pass returns: `DiTOutput`, and the state vector.

    Attributes:
        state: (B, F, D) at each chunk's end; empty (B, 0) without.
    """

    x: Tensor
    features: Tensor
    kv: Tensor
    state: Tensor


class Dynamics(nn.Module):
    """`conditioning` (conditions -> vectors), `dit` (latents -> latents) and `heads`
    (features -> reward, end, state). Called, it is a pass of the first two, and the state.
    """

    def __init__(
        self,
        dit: DiTConfig,
        heads: HeadsConfig,
        channels: int,
        conditioning: ConditioningConfig,
    ) -> None:
        super().__init__()
        if dit.cross_attention != bool(conditioning.text_tokens):
            raise ValueError(
                "cross_attention: expected what reads text_tokens, and nothing without any, got "
                f"{dit.cross_attention} and text_tokens {conditioning.text_tokens}"
            )
        self.conditioning = Conditioning(conditioning, dit.dim)
        self.dit = VideoDiT(dit, channels)
        self.heads = Heads(heads, dit.dim, conditioning.state)

    def forward(
        self,
        x: Tensor,
        noise_level: Tensor,
        conditions: Conditions,
        neighbour: Tensor,
        *,
        time: Tensor | Sequence[int],
        mask: Tensor,
        cache: Tensor | None = None,
        prefix: Tensor | None = None,
    ) -> DynamicsOutput:
        """A pass over F chunks (B, F, h, w, C) under their conditions; see `VideoDiT.forward`."""
        vector, tokens, reads = self.conditioning(conditions)
        prompt = None if tokens is None or reads is None else (tokens, reads)
        out = self.dit(
            x, noise_level, vector, neighbour,
            time=time, mask=mask, cache=cache, prefix=prefix, prompt=prompt,
        )  # fmt: skip
        state = conditions.state
        if self.heads.state is not None:
            state = self.heads.state(out.features, state, conditions.state_known)
        return DynamicsOutput(out.x, out.features, out.kv, state)
