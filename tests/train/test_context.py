"""What the teacher's second run shows it as context."""

import torch

from tests.worlds import tiny_dynamics
from worldsim.diffusion.denoiser import Clip
from worldsim.models.dit import DiTOutput
from worldsim.train.context import damage_context, dream_context, resample_context

ROWS, T, WINDOW = 4, 5, 3


def clip(seed: int = 0) -> Clip:
    g = torch.Generator().manual_seed(seed)
    latents = torch.randn(ROWS, T + 1, 7, 8, 4, generator=g)
    actions = torch.rand(ROWS, T + 1, 3, generator=g)
    return Clip(latents, latents[:, :-1], torch.zeros(ROWS, T), actions)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_a_share_of_the_clips_gets_context_of_the_networks_own():
    true = clip()
    shown = resample_context(tiny_dynamics(channels=4).dit, true, 0.5, WINDOW, generator())
    assert torch.equal(shown.context[2:], true.context[2:])
    assert torch.equal(shown.context[:, 0], true.context[:, 0])
    changed = (shown.context[:2, 1:] != true.context[:2, 1:]).flatten(2).any(-1)
    assert changed.all()
    assert torch.equal(shown.latents, true.latents)  # the truth that is asked for stays


def test_resampled_context_is_what_the_network_says_there():
    """A network that knows the truth gives the truth back, each chunk in its own place."""
    true = clip()

    def oracle(x, before, level, action, *, time, mask, cache=None):
        return DiTOutput(torch.cat([x[:, :T], true.latents[:, 1:]], 1), x.mean((2, 3)), x)

    shown = resample_context(oracle, true, 1.0, WINDOW, generator())
    assert torch.equal(shown.context, true.context)


def test_no_share_changes_nothing():
    true = clip()
    assert resample_context(tiny_dynamics(channels=4).dit, true, 0.0, WINDOW, generator()) is true


@torch.no_grad()
def test_dreamt_context_follows_from_the_dream_not_from_the_truth():
    network = tiny_dynamics(channels=4).dit
    true, other = clip(), clip()
    other.latents[:, 3:] += 5.0  # the truth after the two real chunks must not matter
    a = dream_context(network, true, 2, WINDOW, generator())
    b = dream_context(network, Clip(other.latents, true.context, true.context_level, true.actions),
                      2, WINDOW, generator())  # fmt: skip
    assert torch.equal(a.context[:, :2], true.context[:, :2])
    assert torch.equal(a.context, b.context)
    assert not torch.allclose(a.context[:, 2:], true.context[:, 2:])


def test_damage_puts_whole_patches_of_another_clip_into_some_context():
    true = clip()
    shown = damage_context(true, 1.0, (2, 2), generator())
    change = (shown.context - true.context).abs().amax(-1)  # (rows, T, 7, 8)
    assert 0 < (change > 0).float().mean() < 1 / 3
    for row in change > 0:
        onset = row.flatten(1).any(1).float().argmax()
        assert (row[onset:] == row[onset]).all()  # the same patches from there on
    patches = (change > 0)[:, :, :6].unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2)
    assert (patches.all(-1) == patches.any(-1)).all()
    assert torch.equal(shown.latents, true.latents)


def test_damage_hits_its_share_of_the_clips():
    g = torch.Generator().manual_seed(0)
    zeros = torch.randn(600, 2, 4, 4, 1, generator=g)
    many = Clip(zeros, zeros[:, :1], torch.zeros(600, 1), torch.zeros(600, 2, 1))
    shown = damage_context(many, 0.4, (1, 1), g)
    hit = (shown.context != many.context).flatten(1).any(1).float().mean()
    assert 0.3 < hit < 0.4  # some of the chosen have no piece to show
