"""What holds on a GPU as on a CPU. WORLDSIM_TEST_DEVICE=cpu tries the tests themselves."""

import os
from dataclasses import fields

import pytest
import torch

import worldsim
from tests.worlds import tiny_world
from worldsim.core import WorldState, row_keys
from worldsim.envs import WorldSimVectorEnv
from worldsim.world.diffusion import DiffusionWorld

DEVICE = os.environ.get("WORLDSIM_TEST_DEVICE", "cuda" if torch.cuda.is_available() else "")
pytestmark = pytest.mark.skipif(not DEVICE, reason="no CUDA device")


@pytest.fixture
def world() -> DiffusionWorld:
    return tiny_world().to(DEVICE)


def walk(world: DiffusionWorld, state: WorldState, steps: int = 5) -> WorldState:
    action = world.spec.action.blank(len(state), device=world.device) + 0.1
    for _ in range(steps):
        state, _ = world.step(state, action)
    return state


def start(world: DiffusionWorld, rows: int = 4) -> WorldState:
    return world.reset(row_keys(range(rows)).to(world.device))


def test_a_dream_is_that_of_the_cpu_but_for_rounding(world: DiffusionWorld) -> None:
    there, here = walk(world, start(world)), walk(host := tiny_world(), start(host))
    assert torch.equal(there.key.cpu(), here.key)
    assert torch.allclose(there.latents.cpu(), here.latents, atol=2e-3)
    frames = world.decode(there).cpu().int() - host.decode(here).int()
    assert frames.abs().max() <= 2


def test_the_same_steps_give_the_same_bits(world: DiffusionWorld) -> None:
    one, two = walk(world, start(world)), walk(world, start(world))
    assert all(torch.equal(getattr(one, f.name), getattr(two, f.name)) for f in fields(one))


def test_a_saved_moment_goes_on_bit_for_bit(world: DiffusionWorld) -> None:
    half = walk(world, start(world), 3)
    saved = half.to("cpu").to(DEVICE)
    assert torch.equal(walk(world, half).latents, walk(world, saved).latents)


def test_a_row_does_not_know_its_batch(world: DiffusionWorld) -> None:
    fixed = worldsim.FixedBatch(world, 8)
    many = fixed.reset(row_keys(range(8)).to(DEVICE))
    action = world.spec.action.blank(8, device=DEVICE) + 0.1
    after, _ = fixed.step(many, action)
    few, _ = fixed.step(many[:3], action[:3])
    assert torch.equal(after.latents[:3], few.latents)


@pytest.mark.skipif(DEVICE != "cuda", reason="a CPU has nothing to wait for")
def test_a_step_never_waits_for_the_device(world: DiffusionWorld) -> None:
    envs = WorldSimVectorEnv(4, world=world, device=DEVICE, output="torch", check_actions=False)
    envs.reset(seed=0)
    action = torch.zeros(envs.action_space.shape or (), device=DEVICE)
    envs.step(action)
    torch.cuda.set_sync_debug_mode("error")
    try:
        envs.step(action)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_compiled_world_steps_as_the_plain_one(world: DiffusionWorld) -> None:
    if DEVICE != "cuda":
        pytest.skip("tests/world/test_compiled.py compiles on CPUs")
    fast = worldsim.compiled(world, batch=4, dtype="float32")
    assert torch.allclose(
        walk(fast, start(fast)).latents, walk(world, start(world)).latents, atol=2e-3
    )
