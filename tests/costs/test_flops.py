"""FLOPs counted on the meta device against real steps, real gradients and products by hand."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.worlds import BUTTONS, CAR, tiny_world
from worldsim.core import WorldError
from worldsim.costs import flops
from worldsim.costs.flops import Networks, Stage, autoencoding, denoising, stages
from worldsim.presets import SIZES, Sizes
from worldsim.train.distill import DistillationConfig
from worldsim.train.dynamics import DynamicsTrainingConfig
from worldsim.train.loop import FitConfig
from worldsim.train.recipe import Recipe

WORLD = tiny_world().config
SMALL = Sizes(vae=WORLD.vae, dit=WORLD.dit, heads=WORLD.heads, context=WORLD.spec.context)
HERE = Networks(SMALL, (24, 32), CAR)


def test_parts_of_a_step_are_the_products_of_the_paper():
    """Axial attention and an MLP over 16 tokens of width 256, of two chunks in the first pass."""
    networks = Networks(SIZES["small"](), (56, 64), CAR)
    parts, dit, tokens = networks.step(), networks.sizes.dit, 4 * 4
    rows, width, depth = 2 * tokens, dit.dim, dit.depth
    assert networks.tokens == tokens
    assert parts["mlp"] == depth * 2 * rows * width * 2 * dit.mlp * width
    assert parts["space"] == depth * 2 * rows * width * (4 * width + 2 * tokens)
    keys = networks.sizes.context + 1
    time = 2 * width + 2 * dit.kv_heads * dit.head_dim + 2 * keys
    assert parts["time"] == dit.time_layers * 2 * rows * width * time
    assert set(parts) >= {"patchify", "condition", "unpatchify", "heads", "decoder"}
    assert "other" not in parts


@pytest.mark.parametrize("num_steps", [1, 3])
def test_a_step_costs_what_a_real_one_does(num_steps: int):
    world = tiny_world(steps=num_steps)
    state = world.reset(torch.tensor([[0, 1], [0, 2]]))
    with FlopCounterMode(display=False) as stepping:
        following, _ = world.step(state, torch.zeros(2, 3))
    with FlopCounterMode(display=False) as showing:
        world.decode(following)
    latent, shown = (2 * sum(HERE.step(num_steps, pixels=p).values()) for p in (False, True))
    assert stepping.get_total_flops() == latent > 0
    assert stepping.get_total_flops() + showing.get_total_flops() == shown


def test_without_a_cache_the_whole_context_runs_in_every_pass():
    one, cached = HERE.step(pixels=False, cached=False), HERE.step(pixels=False)
    window = SMALL.context + 1
    assert one["mlp"] == cached["mlp"] * window // 2  # the first pass runs two chunks
    assert HERE.step(3, cached=False)["space"] == 3 * one["space"]


def test_memory_of_an_env_is_that_of_its_state():
    for action in (CAR, BUTTONS):
        state = tiny_world(action).reset(torch.tensor([[0, 1]]))
        sizes: list[int] = []
        state.map(lambda x, sizes=sizes: (sizes.append(x.nbytes), x)[1])
        networks = Networks(SMALL, (24, 32), action)
        assert networks.state_bytes == sum(sizes) and networks.kv_bytes == state.cache.nbytes


def test_parameters_and_traffic():
    world, count = tiny_world(), HERE.parameters
    networks = (world.dynamics.dit, world.dynamics.conditioning)
    assert count["dit"] == sum(p.numel() for part in networks for p in part.parameters())
    assert count["encoder"] + count["decoder"] == sum(p.numel() for p in world.vae.parameters())
    once = HERE.traffic(1, pixels=False)
    assert once == 2 * (count["dit"] + count["heads"]) + HERE.kv_bytes + HERE.state_bytes
    assert HERE.traffic(1) == once + 2 * count["decoder"]
    assert HERE.traffic(1, 3) == HERE.traffic(1) + 2 * (2 * count["dit"] + HERE.kv_bytes)
    assert HERE.traffic(9) == HERE.traffic(1) + 8 * (HERE.kv_bytes + HERE.state_bytes)


def test_gradients_cost_twice_their_pass_but_for_what_touches_data():
    forward, whole = denoising(HERE, 5, learns=False), denoising(HERE, 5)
    dynamics = HERE.world.dynamics
    heads = 3 * 5 * 2 * sum(p.numel() for p in dynamics.heads.parameters() if p.ndim == 2)
    assert 0.95 < (whole - heads) / (3 * forward) < 1
    rebuilt = autoencoding(HERE, 3)
    vae = tiny_world().vae.requires_grad_(True)
    with FlopCounterMode(display=False) as counted:
        vae.decode_raw(vae.posterior(torch.zeros(1, 6, 24, 32, 3)).mean).sum().backward()
    assert rebuilt == counted.get_total_flops()


def test_a_recipe_adds_up_its_passes():
    fit = FitConfig(steps=2, batch=3, lr=1e-3)
    teacher = DynamicsTrainingConfig(fit=fit, targets=5, resample=0.5, compile=False)
    student = DistillationConfig(fit=fit, targets=6, resample=0.0, dreamt=0.5, compile=False)
    found = {s.name: s for s in stages(HERE, replace(Recipe(), teacher=teacher, distill=student))}
    assert list(found) == ["vae", "forced", "teacher", "student"]
    wanted = denoising(HERE, 5) + 0.5 * denoising(HERE, 5, learns=False)
    assert found["teacher"] == Stage("teacher", 2, 3, wanted)
    dreamt = HERE.step(2, pixels=False)
    begin = sum(HERE.encoding.values()) - HERE.encoding["encoder"]
    dream = begin + 2 * (sum(dreamt.values()) - dreamt["heads"])
    wanted = denoising(HERE, 6) + denoising(HERE, 6, learns=False) + 0.5 * dream
    assert found["student"].flops == 6 * wanted


def test_what_a_network_does_outside_its_modules_is_counted_too():
    with flops.counting() as found:
        torch.nn.Linear(3, 5)(torch.zeros(2, 3))
        torch.zeros(2, 3) @ torch.zeros(3, 7)
    assert found.total == 2 * 2 * 3 * (5 + 7) and found.parts == {"other": found.total}


def test_what_does_not_fit_is_refused():
    with pytest.raises(WorldError, match=r"frame: expected .* divisible by 8, got \(60, 64\)"):
        Networks(SMALL, (60, 64), CAR)
    with pytest.raises(WorldError, match="frame: expected"):
        replace(HERE, frame=(0, 8))
    with pytest.raises(WorldError, match="passes: expected at least 1, got 0"):
        HERE.step(0)
