from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.contracts import assert_same, copied, same
from worldsim.core import WorldError, WorldState, row_keys
from worldsim.world.point import PointWorld
from worldsim.world.rollout import dream_frames, imagine, replay

WORLD = PointWorld(noise=0.2, arena=1.0)


def state(batch: int = 3) -> WorldState:
    return WORLD.reset(row_keys(range(batch)))


def actions(batch: int = 3, steps: int = 6) -> Tensor:
    return 2 * torch.rand(batch, steps, 2, generator=torch.Generator().manual_seed(0)) - 1


def towards_the_middle(state: WorldState) -> Tensor:
    return -state.latent[:, :2].clamp(-1, 1)


def test_a_rollout_is_what_stepping_says() -> None:
    now, steps = state(), []
    dream = imagine(WORLD, now, towards_the_middle, 5)
    for t in range(5):
        action = towards_the_middle(now)
        now, said = WORLD.step(now, action)
        steps.append(now.latent)
        assert same(dream.actions[:, t], action) and same(dream.rewards[:, t], said.reward)
        assert same(dream.continue_prob[:, t], said.continue_prob) and same(
            dream.trust[:, t], said.trust
        )
    assert same(dream.latents, torch.stack(steps, 1)) and dream.frames is None
    assert_same(dream.state, now)


def test_replaying_a_dream_repeats_it() -> None:
    first = state()
    before = copied(first)
    dream = imagine(WORLD, first, towards_the_middle, 5)
    again = replay(WORLD, first, dream.actions)
    for name in ("latents", "actions", "rewards", "continue_prob", "trust"):
        assert same(getattr(dream, name), getattr(again, name)), name
    assert_same(dream.state, again.state)
    assert_same(before, first)


def test_a_dream_may_be_cut_anywhere() -> None:
    whole = replay(WORLD, state(), actions())
    first = replay(WORLD, state(), actions()[:, :2])
    second = replay(WORLD, first.state, actions()[:, 2:])
    assert same(whole.latents, torch.cat([first.latents, second.latents], 1))
    assert_same(whole.state, second.state)


@pytest.mark.parametrize(("every", "kept"), [(1, [0, 1, 2, 3, 4, 5]), (2, [1, 3, 5]), (4, [3])])
def test_frames_of_every_nth_step(every: int, kept: list[int]) -> None:
    frames = dream_frames(WORLD, state(), actions(), decode_every=every)
    now, decoded = state(), []
    for action in actions().unbind(1):
        now, _ = WORLD.step(now, action)
        decoded.append(WORLD.decode(now))
    assert frames.shape == (3, 2 * len(kept), 40, 40, 3) and frames.dtype == torch.uint8
    assert same(frames, torch.cat([decoded[t] for t in kept], 1))


def test_a_generator_takes_the_place_of_the_keys() -> None:
    dreams = [
        replay(WORLD, state(), actions(), generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert same(dreams[0].latents, dreams[1].latents)
    assert not same(dreams[0].latents, dreams[2].latents)


def test_gradients_reach_the_actions() -> None:
    plan = actions().requires_grad_()
    replay(replace(WORLD, noise=0.0), state(), plan).rewards.sum().backward()
    assert plan.grad is not None and (plan.grad != 0).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: imagine(WORLD, state(), towards_the_middle, 0), "horizon: expected at least 1"),
        (lambda: replay(WORLD, state(), actions()[:, :0]), "horizon: expected at least 1"),
        (lambda: replay(WORLD, state(), actions(2)), r"actions: expected shape \(3, 'T', 2\)"),
        (lambda: replay(WORLD, state(), actions()[..., 0]), "actions: expected shape"),
        (lambda: replay(WORLD, state(), actions(), text=actions()[:, 0]), "text: expected shape"),
        (lambda: replay(WORLD, state(), actions(), decode_every=-1), "decode_every: expected 0"),
        (lambda: dream_frames(WORLD, state(), actions(), decode_every=7), "expected 1 to 6"),
        (lambda: imagine(WORLD, state(), lambda s: s.latent, 1), "action: expected shape"),
    ],
)
def test_bad_input_is_refused(call, message: str) -> None:
    with pytest.raises(WorldError, match=message):
        call()
