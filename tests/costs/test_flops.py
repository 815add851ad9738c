"""Every formula against PyTorch's FLOP counter on the real modules: equal, not only within 1%.

Networks of every preset are counted on the meta device, where nothing is computed; training and
stepping are counted on small real ones.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.worlds import BUTTONS, CAR, tiny_world
from worldsim.core import ActionSpec, WorldError, WorldState
from worldsim.costs.flops import (
    Networks,
    Parts,
    Pass,
    Stage,
    forward_flops,
    product,
    stages,
    training_flops,
)
from worldsim.data.latents import LatentRecording
from worldsim.data.loader import Recording, Windows
from worldsim.models.dit import Block
from worldsim.models.dynamics import Dynamics
from worldsim.models.vae import SpacetimeVAE
from worldsim.presets import SIZES, Sizes
from worldsim.train import vae as vae_training
from worldsim.train.distill import DistillationConfig, train_student
from worldsim.train.dynamics import DynamicsTrainingConfig, train_dynamics
from worldsim.train.loop import FitConfig
from worldsim.train.recipe import Recipe
from worldsim.train.vae import VAETrainingConfig, train_vae

WORLD = tiny_world().config
SMALL = Sizes(vae=WORLD.vae, dit=WORLD.dit, heads=WORLD.heads, context=WORLD.spec.context)
HERE = Networks(SMALL, (24, 32), CAR)


def counter() -> FlopCounterMode:
    return FlopCounterMode(display=False)


def real(networks: Networks) -> tuple[Dynamics, SpacetimeVAE]:
    """The networks themselves, without memory."""
    sizes = networks.sizes
    with torch.device("meta"):
        vae = SpacetimeVAE(sizes.vae)
        return Dynamics(sizes.dit, sizes.heads, sizes.vae.channels, networks.action), vae


def run_denoiser(networks: Networks, dynamics: Dynamics, chunks: int, keys: int):
    """A pass of the DiT on the meta device; keys beyond the chunks come from a cache."""
    dit, grid = networks.sizes.dit, networks.grid
    with torch.device("meta"):
        x = torch.zeros(1, chunks, *grid, networks.sizes.vae.channels)
        action = networks.action.unknown(1, chunks, device="meta")
        past = (1, dit.time_layers, 2, keys - chunks, networks.tokens, dit.kv_heads, dit.head_dim)
        cache = torch.zeros(past) if keys > chunks else None
        mask = torch.ones(1, chunks, keys, dtype=torch.bool)
        return dynamics.dit(
            x, x, torch.zeros(1, chunks), action, time=torch.arange(keys), mask=mask, cache=cache
        )


def counted_parts(counted: FlopCounterMode, depth: int) -> dict[str, int]:
    """Forward FLOPs by the names that the formulas use."""
    flops = {name: sum(ops.values()) for name, ops in counted.get_flop_counts().items()}

    def blocks(part: str) -> int:
        return sum(flops.get(f"VideoDiT.blocks.{i}.{part}", 0) for i in range(depth))

    given = ("condition", "modulation", "last")
    return {
        "patchify": flops["VideoDiT.patchify"],
        "condition": sum(flops[f"VideoDiT.{name}"] for name in given),
        "space": blocks("space"),
        "time": blocks("time"),
        "mlp": blocks("mlp"),
        "unpatchify": flops["VideoDiT.unpatchify"],
    }


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize(("chunks", "cached"), [(20, 0), (2, 5), (1, 6)])
@pytest.mark.parametrize("action", [CAR, BUTTONS], ids=["box", "choice"])
def test_every_part_of_the_denoiser(name: str, chunks: int, cached: int, action: ActionSpec):
    networks = Networks(SIZES[name](), (56, 72), action)
    dynamics, _ = real(networks)
    with counter() as counted:
        out = run_denoiser(networks, dynamics, chunks, chunks + cached)
        forward = counted.get_total_flops()
        parts = counted_parts(counted, networks.sizes.dit.depth)
        (out.x.sum() + out.features.sum()).backward()
    formula = networks.denoiser(chunks, chunks + cached)
    assert {part: cost.forward for part, cost in formula.items()} == parts
    assert forward_flops(formula) == forward
    assert training_flops(formula) == counted.get_total_flops()


@pytest.mark.parametrize("name", SIZES)
def test_every_part_of_a_block_going_back(name: str):
    networks = Networks(SIZES[name](), (56, 64), CAR)
    dit, tokens = networks.sizes.dit, networks.tokens
    formula = networks.denoiser(4)
    with torch.device("meta"):
        block = Block(dit, time=True)
        x = torch.zeros(1, 4, tokens, dit.dim, requires_grad=True)
        turn, mask = (
            torch.zeros(2, tokens, dit.head_dim // 2),
            torch.ones(1, 4, 4, dtype=torch.bool),
        )
        assert block.time is not None
        calls = {
            "space": (lambda: block.space(x, turn), dit.depth),
            "time": (lambda: block.time(x, turn[:, :4], mask, None)[0], dit.time_layers),  # type: ignore[misc]
            "mlp": (lambda: block.mlp(x), dit.depth),
        }
        for part, (call, layers) in calls.items():
            with counter() as counted:
                call().sum().backward()
            assert layers * counted.get_total_flops() == training_flops({part: formula[part]})


@pytest.mark.parametrize("name", SIZES)
def test_heads_and_autoencoder(name: str):
    networks = Networks(SIZES[name](), (48, 64), CAR)
    dynamics, vae = real(networks)
    with torch.device("meta"):
        features = torch.zeros(1, 5, networks.sizes.dit.dim, requires_grad=True)
        frames = torch.zeros(3, 2 * networks.sizes.vae.chunk * 3, 48, 64)
        latents = torch.zeros(3, 2 * networks.sizes.vae.channels, 6, 8, requires_grad=True)
    pairs: list[tuple[nn.Module, torch.Tensor, Parts]] = [
        (vae.encoder, frames, networks.encoder(3)),
        (vae.decoder, latents, networks.decoder(3)),
    ]
    for module, given, formula in pairs:
        with counter() as counted:
            out = module(given)
            assert counted.get_total_flops() == forward_flops(formula)
            out.sum().backward()
        assert counted.get_total_flops() == training_flops(formula)
    with counter() as counted:
        out = dynamics.heads(features)
        (out.reward.sum() + out.continue_logits.sum()).backward()
    assert counted.get_total_flops() == training_flops(networks.heads(5))


@pytest.mark.parametrize("passes", [1, 2, 4])
def test_a_step_of_a_real_world(passes: int):
    world = tiny_world(steps=passes)
    state = world.reset(torch.tensor([[0, 1], [0, 2]]))
    with counter() as stepping:
        following, _ = world.step(state, torch.zeros(2, 3))
    with counter() as showing:
        world.decode(following)
    latent, shown = (2 * forward_flops(HERE.step(passes, pixels=p)) for p in (False, True))
    assert stepping.get_total_flops() == latent
    assert stepping.get_total_flops() + showing.get_total_flops() == shown


def test_without_a_cache_the_whole_context_runs_in_every_pass():
    dynamics, _ = real(HERE)
    with counter() as counted:
        run_denoiser(HERE, dynamics, 4, 4)  # context of 3 and the next
    pass_and_heads = counted.get_total_flops() + forward_flops(HERE.heads(1))
    assert forward_flops(HERE.step(pixels=False, cached=False)) == pass_and_heads


def test_memory_of_an_env_is_that_of_its_state():
    for action in (CAR, BUTTONS):
        state = tiny_world(action).reset(torch.tensor([[0, 1]]))
        tensors = [v for v in vars(state).values() if isinstance(v, torch.Tensor)]
        networks = Networks(SMALL, (24, 32), action)
        assert isinstance(state, WorldState) and len(tensors) == 7
        assert networks.state_bytes == sum(t.nbytes for t in tensors)
        assert networks.kv_bytes == state.cache.nbytes


def test_parameters_and_traffic():
    world, count = tiny_world(), HERE.parameters
    assert count["dit"] == sum(p.numel() for p in world.dynamics.dit.parameters())
    assert count["encoder"] + count["decoder"] == sum(p.numel() for p in world.vae.parameters())
    once = HERE.traffic(1, pixels=False)
    assert once == 2 * (count["dit"] + count["heads"]) + HERE.kv_bytes + HERE.state_bytes
    assert HERE.traffic(1) == once + 2 * count["decoder"]
    assert HERE.traffic(1, 3) == HERE.traffic(1) + 2 * (2 * count["dit"] + HERE.kv_bytes)
    assert HERE.traffic(9) == HERE.traffic(1) + 8 * (HERE.kv_bytes + HERE.state_bytes)


def fit(batch: int) -> FitConfig:
    return FitConfig(steps=2, batch=batch, lr=1e-3)


RECIPE = Recipe(
    vae=VAETrainingConfig(fit=fit(2), clip_chunks=4),
    forced=DynamicsTrainingConfig(fit=fit(3), targets=5, compile=False),
    teacher=DynamicsTrainingConfig(fit=fit(4), targets=5, resample=0.5, damage=0.5, compile=False),
    distill=DistillationConfig(fit=fit(2), targets=6, dreamt=0.5, compile=False),
)


def test_every_stage_of_a_real_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    g = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (20, 2, 24, 32, 3), generator=g).to(torch.uint8)
    others = (torch.rand(20, 3, generator=g), torch.rand(20), torch.ones(20), Windows((20,)))
    latents = LatentRecording(torch.randn(20, 3, 4, 4, generator=g).half(), *others)
    model = Dynamics(SMALL.dit, SMALL.heads, 4, CAR)
    monkeypatch.setattr(vae_training, "measure_latents", lambda *_: None)  # not a training step
    recording = Recording(frames, *others)
    runs = {
        "vae": lambda to: train_vae(recording, SMALL.vae, RECIPE.vae, to),
        "forced": lambda to: train_dynamics(latents, model, 3, RECIPE.forced, to),
        "teacher": lambda to: train_dynamics(latents, model, 3, RECIPE.teacher, to),
        "student": lambda to: train_student(latents, model, 3, RECIPE.distill, to),
    }
    found = {}
    for name, run in runs.items():
        with counter() as counted:
            run(tmp_path / name)
        found[name] = counted.get_total_flops()
    assert found == {stage.name: stage.flops for stage in stages(HERE, RECIPE)}


def test_a_stage_adds_up_whatever_its_passes():
    parts = {"first": product(2, 3, 5, first=True), "later": product(2, 5, 7)}
    assert (forward_flops(parts), training_flops(parts)) == (60 + 140, 120 + 420)
    passes = (Pass(parts), Pass(parts, learns=False), Pass(parts, learns=False, share=0.5))
    assert Stage("second run", 10, 4, passes).flops == 40 * (540 + 200 + 100)


def test_what_does_not_fit_is_refused():
    with pytest.raises(WorldError, match=r"frame: expected .* divisible by 8, got \(60, 64\)"):
        Networks(SMALL, (60, 64), CAR)
    with pytest.raises(WorldError, match="frame: expected"):
        replace(HERE, frame=(0, 8))
    with pytest.raises(WorldError, match="passes: expected at least 1, got 0"):
        HERE.step(0)
