"""Context with the faults of dreams: what is changed, what is told, what is asked for."""

from dataclasses import replace

import pytest
import torch

from tests.worlds import CAR, tiny_dynamics, tiny_world
from worldsim.core import Conditions, WorldError, row_keys
from worldsim.data.latents import LatentRecording
from worldsim.data.windows import Windows
from worldsim.diffusion.draws import Draws
from worldsim.diffusion.timeline import Clip
from worldsim.models.dynamics import DynamicsOutput
from worldsim.train.context import (
    DREAMT_FROM,
    DREAMT_PASSES,
    Batch,
    dream_context,
    drift_augment,
    patch_mix,
    resample_context,
)
from worldsim.train.distill import DistillationConfig
from worldsim.train.dynamics import DynamicsTrainingConfig, draw_batch
from worldsim.train.loop import FitConfig

ROWS, T, WINDOW = 4, 7, 3


def clip(seed: int = 0) -> Clip:
    g = torch.Generator().manual_seed(seed)
    latents = torch.randn(ROWS, T + 1, 7, 8, 4, generator=g)
    actions = torch.rand(ROWS, T + 1, 3, generator=g)
    return Clip(latents, latents[:, :-1], torch.zeros(ROWS, T), Conditions.of(actions))


def draws(rows: int = ROWS) -> Draws:
    return Draws(1, 0, range(rows))


def test_a_share_of_the_clips_gets_context_of_the_networks_own():
    true = clip()
    shown = resample_context(tiny_dynamics(channels=4), true, 0.5, WINDOW, draws())
    assert torch.equal(shown.context[2:], true.context[2:])
    assert torch.equal(shown.context[:, 0], true.context[:, 0])
    changed = (shown.context[:2, 1:] != true.context[:2, 1:]).flatten(2).any(-1)
    assert changed.all()
    assert torch.equal(shown.latents, true.latents)  # the truth that is asked for stays


def test_what_will_be_dreamt_is_of_blind_drivers():
    """The last clips, as those are dreamt; the first come from everybody."""
    lengths = (30, 40, 30)
    episode = torch.arange(3.0).repeat_interleave(torch.tensor(lengths))
    zero = torch.zeros(100)
    latents = episode[:, None, None, None].expand(100, 7, 8, 4)
    data = LatentRecording(latents, torch.zeros(100, 3), zero, zero, Windows(lengths))
    how = DistillationConfig(fit=FitConfig(steps=1, batch=40), targets=6, dreamt=0.5, blind=(1, 2))
    came = draw_batch(data, how, draws(40)).latents[:, 0, 0, 0, 0]
    assert (came[20:] == 1).all() and len(came[:20].unique()) == 3
    everybody = draw_batch(data, replace(how, blind=None), draws(40)).latents[:, 0, 0, 0, 0]
    assert torch.equal(everybody[:20], came[:20]) and len(everybody[20:].unique()) == 3
    with pytest.raises(WorldError, match="blind: expected None"):
        replace(how, dreamt=0.0)
    with pytest.raises(ValueError, match=r"of episodes \(3, 9\) in 3"):
        draw_batch(data, replace(how, blind=(3, 9)), draws(40))


def test_resampled_context_is_what_the_network_says_there():
    """A network that knows the truth gives the truth back, each chunk in its own place."""
    true = clip()

    def oracle(x, noise_level, conditions, neighbour, *, time, mask, cache=None):
        latents = torch.cat([x[:, :T], true.latents[:, 1:]], 1)
        return DynamicsOutput(latents, x.mean((2, 3)), x, conditions.state)

    shown = resample_context(oracle, true, 1.0, WINDOW, draws())
    assert torch.equal(shown.context, true.context)


def test_a_dreamt_context_starts_true_and_is_the_networks_own():
    """A network that answers with its newest chunk plus one dreams 1, 2, ... onto the truth."""
    true = clip()

    def counting(x, noise_level, conditions, neighbour, *, time, mask, cache=None, prefix=None):
        kv = x.new_zeros(len(x), 1, 2, x.shape[1], 1, 1, 1)
        state = conditions.state + 1
        return DynamicsOutput(neighbour + 1, x.mean((2, 3)), kv, state)

    states = torch.zeros(len(true.latents), T + 1, 2)
    known = torch.zeros(states.shape[:2], dtype=torch.bool)
    told = Conditions.of(true.conditions.action, state=states, state_known=known)
    shown = dream_context(counting, replace(true, conditions=told), 0.5, WINDOW, draws())
    assert torch.equal(shown.context[:2], true.context[:2])
    assert torch.equal(shown.context[2:, :DREAMT_FROM], true.context[2:, :DREAMT_FROM])
    last = true.context[2:, DREAMT_FROM - 1]
    for n in range(DREAMT_FROM, T):
        expected = (last + n - DREAMT_FROM + 1).clamp(-6, 6)
        assert torch.allclose(shown.context[2:, n], expected, atol=1e-4)
    # the state dreamt with a chunk is what is known before the next one, in the dreams alone
    said, first = shown.conditions, DREAMT_FROM + 1
    assert said.state_known[2:, first:].all() and not said.state_known[2:, :first].any()
    assert not said.state_known[:2].any()
    assert said.state[2:, first:, 0].tolist() == [list(range(1, T - DREAMT_FROM + 1))] * 2
    assert torch.equal(shown.latents, true.latents)


@pytest.mark.parametrize("context", [2, 3, 6])
def test_a_dreamt_context_is_what_a_world_dreams(monkeypatch: pytest.MonkeyPatch, context: int):
    """Step by step the same chunks, from the same start, actions and (next to no) noise."""
    world = tiny_world(CAR, steps=DREAMT_PASSES, context=context)
    world = world.with_sampling(replace(world.config.sampling, temperature=1e-9))
    g = torch.Generator().manual_seed(0)
    latents, actions = torch.randn(3, 9, 3, 4, 4, generator=g), torch.rand(3, 9, 3, generator=g)
    whole = Clip(latents, latents[:, :-1], torch.zeros(3, 8), Conditions.of(actions))
    monkeypatch.setattr(Draws, "normal", lambda self, shape: torch.zeros(tuple(shape)))
    shown = dream_context(world.dynamics, whole, 1.0, context, draws(3)).context
    seen = slice(max(0, DREAMT_FROM - context), DREAMT_FROM)
    state = world.from_latents(latents[:, seen], actions[:, seen], row_keys(range(3)))
    for t in range(DREAMT_FROM, 8):
        state, _ = world.step(state, actions[:, t])
        assert torch.allclose(state.latent, shown[:, t], atol=1e-5)
    assert (shown[:, DREAMT_FROM:] - latents[:, DREAMT_FROM:8]).abs().mean() > 0.1


@pytest.mark.parametrize("kind", [DynamicsTrainingConfig, DistillationConfig])
def test_clips_that_leave_nothing_to_dream_are_refused(kind: type):
    with pytest.raises(WorldError, match="targets: expected more than 4 .* got 4"):
        kind(fit=FitConfig(steps=1), dreamt=0.1, targets=4)


def test_actions_reach_the_dreamt_chunk_they_lead_into():
    true, network = clip(), tiny_dynamics(channels=4).eval()
    first = dream_context(network, true, 1.0, WINDOW, draws()).context
    for at in range(1, T):  # what led into the first chunk is never looked at
        action = true.conditions.action.clone()
        action[:, at] = 1 - action[:, at]
        other = replace(true, conditions=Conditions.of(action))
        changed = dream_context(network, other, 1.0, WINDOW, draws()).context != first
        changed = changed.flatten(2).any(-1).any(0)
        assert changed.nonzero().flatten().tolist() == list(range(max(at, DREAMT_FROM), T))


def test_no_share_changes_nothing():
    true = clip()
    assert dream_context(tiny_dynamics(channels=4), true, 0.0, WINDOW, draws()) is true
    assert resample_context(tiny_dynamics(channels=4), true, 0.0, WINDOW, draws()) is true


def test_dreamlike_context_has_all_faults_and_asks_for_the_truth():
    batch = Batch(
        clip().latents, clip().conditions, torch.zeros(ROWS, T + 1), torch.ones(ROWS, T + 1),
        others=clip(1).context,
    )  # fmt: skip
    network = tiny_dynamics(channels=4)
    none = DynamicsTrainingConfig(fit=FitConfig(steps=1), context_noise=0.0)
    shown = drift_augment(network, batch, none, (2, 2), WINDOW, draws())
    assert torch.equal(shown.context, batch.latents[:, :-1])
    assert not shown.context_level.any()
    changed = []
    for faults in ({"resample": 1.0}, {"dreamt": 1.0}, {"damage": 1.0}, {"context_noise": 0.3}):
        shown = drift_augment(network, batch, replace(none, **faults), (2, 2), WINDOW, draws())
        assert torch.equal(shown.latents, batch.latents)
        changed.append(shown.context - batch.latents[:, :-1])
    assert all(c.any() for c in changed)
    assert shown.context_level.any()  # the noise is told, the other faults are not


def test_damage_puts_whole_patches_of_another_clip_into_some_context():
    true = clip()
    shown = patch_mix(true, clip(1).context, 1.0, (2, 2), draws())
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
    many = Clip(zeros, zeros[:, :1], torch.zeros(600, 1), Conditions.of(torch.zeros(600, 2, 1)))
    shown = patch_mix(many, zeros[:, 1:], 0.4, (1, 1), draws(600))
    hit = (shown.context != many.context).flatten(1).any(1).float().mean()
    assert 0.3 < hit < 0.4  # some of the chosen have no piece to show
