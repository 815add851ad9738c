"""An agent sees and learns the same in bfloat16, where a processor is fast at it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from worldsim.agents.actor_critic import ActorCritic, AgentConfig, torso
from worldsim.core import ActionSpec, WorldSpec

SPEC = WorldSpec(
    name="film", frame_shape=(32, 32, 3), fps=20.0, chunk=2, context=4, time_limit=50,
    latent_shape=(4, 4, 8),
    action=ActionSpec(kind="continuous", low=(-1.0, 0.0), high=(1.0, 1.0)),
)  # fmt: skip


def narrow(on: bool) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=on)


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_pixels_are_seen_alike_in_bfloat16(chunk: int) -> None:
    torch.manual_seed(0)
    first = next(torso(replace(SPEC, chunk=chunk), AgentConfig(sees="pixels")).children())
    seen = torch.randn(8, 6 * chunk, 32, 32)
    exact, ours = (found(first, seen, bf16=on) for on in (False, True))
    assert torch.cosine_similarity(exact.flatten(), ours.flatten(), 0) > 0.999


@torch.no_grad()
def found(layer: nn.Module, seen: Tensor, *, bf16: bool) -> Tensor:
    with narrow(bf16):
        return layer(seen).float()


def test_a_pedal_on_the_floor_can_be_let_go_in_bfloat16() -> None:
    torch.manual_seed(0)
    agent = ActorCritic(SPEC, AgentConfig(sees="pixels"))
    last = agent.actor[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.bias.fill_(-4.5)
    with narrow(True):
        agent.loc(torch.zeros(4, 12, 32, 32)).sum().backward()
    assert isinstance(last.bias.grad, Tensor) and last.bias.grad.abs().max() > 0
