"""Small untrained worlds for tests: the real networks, with weights that make every part count."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from worldsim.core import ActionSpec, WorldSpec
from worldsim.models.conditioning import ConditioningConfig
from worldsim.models.dit import DiTConfig
from worldsim.models.dynamics import Dynamics
from worldsim.models.heads import HeadsConfig
from worldsim.models.text import TextConfig
from worldsim.models.vae import SpacetimeVAE, VAEConfig
from worldsim.states import StateSpec
from worldsim.world.diffusion import DiffusionWorld, Sampling, Starts, WorldConfig
from worldsim.world.uncertainty import Trust

CAR = ActionSpec(kind="continuous", low=(-1.0, 0.0, 0.0), high=(1.0, 1.0, 1.0))
SPEED = StateSpec(names=("speed", "turn"), mean=(5.0, 0.0), std=(3.0, 0.5), change=(0.4, 0.2))
BUTTONS = ActionSpec(kind="discrete", n=5)
WORDS = TextConfig(kind="words", length=6, depth=1, heads=2, buckets=64)
DIT = DiTConfig(dim=32, depth=4, heads=2, kv_heads=1, mlp=2)


def scramble(module: nn.Module, seed: int = 0) -> None:
    """Random weights everywhere: an untrained network's zero gates would hide mistakes."""
    g = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        spread = 0.05 if p.ndim == 1 else (1.5 / p[0].numel()) ** 0.5 / 2
        with torch.no_grad():
            p.add_(spread * torch.randn(p.shape, generator=g))


def tiny_dynamics(
    channels: int = 4, action: ActionSpec = CAR, dit: DiTConfig = DIT, **more: Any
) -> Dynamics:
    torch.manual_seed(0)
    if dit.cross_attention:
        more["text_tokens"] = 2
    if more.get("text"):
        more["encoder"] = WORDS
    conditioning = ConditioningConfig(action=action, **more)
    model = Dynamics(dit, HeadsConfig(hidden=32), channels, conditioning)
    scramble(model)
    return model


def tiny_world(
    action: ActionSpec = CAR,
    *,
    steps: int = 1,
    context: int = 3,
    size: tuple[int, int] = (24, 32),
    state: StateSpec | None = None,
    text: bool = False,
) -> DiffusionWorld:
    torch.manual_seed(0)
    vae = SpacetimeVAE(VAEConfig(channels=4, widths=(16, 16), blocks=(1, 1)))
    height, width = size
    spec = WorldSpec(
        name="tiny",
        frame_shape=(height, width, 3),
        chunk=2,
        context=context,
        latent_shape=(height // 8, width // 8, 4),
        action=action,
        fps=50.0,
        time_limit=20,
        state=state,
    )
    g = torch.Generator().manual_seed(1)
    clips = torch.randint(0, 256, (3, 2 * context, height, width, 3), generator=g)
    actions = torch.stack(
        [torch.as_tensor(action.space(seed=i).sample()) for i in range(3 * context)]
    ).reshape(3, context, *action.shape)
    dit, more = (replace(DIT, cross_attention=True), {"text": 8}) if text else (DIT, {})
    dynamics = tiny_dynamics(4, action, dit, state=state, **more)
    config = WorldConfig(
        spec=spec, vae=vae.config, dit=dit, heads=dynamics.heads.config,
        conditioning=dynamics.conditioning.config, sampling=Sampling(num_steps=steps),
    )  # fmt: skip
    known = torch.ones(3, context, dtype=torch.bool)
    states = None if state is None else torch.randn(3, context, len(state), generator=g)
    starts = Starts(clips.to(torch.uint8), actions, known, states)
    return DiffusionWorld(config, vae, dynamics, starts)


def make_tiny(device: torch.device | str = "cpu") -> DiffusionWorld:
    """`tiny_world` by name, for other processes: "tests.worlds:make_tiny"."""
    return tiny_world().to(device)


def with_doubts(world: DiffusionWorld, seed: int = 0, bank: int = 64) -> DiffusionWorld:
    """The world with a judge of random weights, so that every sign counts."""
    trust, g = Trust(world.spec, bank), torch.Generator().manual_seed(seed)
    for name, buffer in trust.named_buffers():
        buffer.copy_(0.3 * torch.randn(buffer.shape, generator=g))
        if name in ("scale", "high", "low"):
            buffer.fill_({"scale": 1.0, "high": 1e3, "low": -1e3}[name])
    trust.sampling.copy_(world.config.sampling.numbers)
    return world.with_trust(trust)
