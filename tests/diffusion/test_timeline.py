"""The layout of training against what it promises, with a real small network."""

import torch

from tests.worlds import tiny_dynamics
from worldsim.core import Conditions
from worldsim.diffusion.losses import noise_context
from worldsim.diffusion.schedule import draw_levels
from worldsim.diffusion.timeline import Clip, predict, training_mask

T, WINDOW = 5, 3


def test_targets_see_their_past_and_themselves_only():
    mask = training_mask(T, WINDOW)[0]
    for f in range(2 * T):
        seen = mask[f].nonzero()[:, 0].tolist()
        i = f % T  # context c_i, or target z_{i + 1}, whose newest context is c_i
        expected = [j for j in range(T) if i - WINDOW < j <= i]
        assert seen == expected + ([f] if f >= T else [])


def clip_and_noise(seed: int = 0) -> tuple[Clip, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    latents = torch.randn(2, T + 1, 7, 8, 4, generator=g)
    actions = torch.rand(2, T + 1, 3, generator=g)
    clip = Clip(latents, latents[:, :-1].clone(), torch.zeros(2, T), Conditions.of(actions))
    return clip, torch.randn(2, T, 7, 8, 4, generator=g)


@torch.no_grad()
def test_a_target_depends_on_nothing_later_and_on_no_other_target():
    network = tiny_dynamics(channels=4)
    clip, noise = clip_and_noise()
    level = torch.full((2, T), 0.7)
    x, features = predict(network, clip, noise, level, WINDOW)
    clip.context[:, 3:] += 1  # context chunk 3 is seen by targets 4 and 5 (indices 3 and 4)
    clip.conditions.action[:, 4:] += 0.1
    noise[:, 3:] += 1
    changed, changed_features = predict(network, clip, noise, level, WINDOW)
    assert torch.equal(x[:, :3], changed[:, :3])
    assert torch.equal(features[:, :3], changed_features[:, :3])
    assert not torch.allclose(x[:, 3:], changed[:, 3:])


@torch.no_grad()
def test_a_target_depends_on_context_action_and_noise():
    network = tiny_dynamics(channels=4)
    level = torch.full((2, T), 0.7)
    base, _ = predict(network, *clip_and_noise(), level, WINDOW)
    for field in ("context", "action", "noise"):
        clip, noise = clip_and_noise()
        target = {"noise": noise, "context": clip.context, "action": clip.conditions.action}[field]
        target[:, 1] += 0.5
        x, _ = predict(network, clip, noise, level, WINDOW)
        assert not torch.allclose(x[:, 1], base[:, 1]), field


def test_levels_cover_the_range_and_pure_noise():
    level = draw_levels((10_000,), torch.Generator().manual_seed(0))
    assert level.min() > 0 and level.max() == 1
    assert 0.04 < (level == 1).float().mean() < 0.06
    assert 0.4 < level.mean() < 0.6


def test_context_noise_is_told_and_bounded():
    latents = torch.zeros(500, 3, 7, 8, 4)
    noisy, told = noise_context(latents, 0.3, torch.Generator().manual_seed(0))
    assert told.max() <= 0.3 and (told[:, :1] == told).all()
    assert 0.15 < (told[:, 0] == 0).float().mean() < 0.25
    measured = noisy.flatten(1).std(1)
    assert torch.allclose(measured, told[:, 0], atol=0.02)
