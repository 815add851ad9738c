"""The contract on a real small diffusion world, and what is its own."""

from dataclasses import replace

import pytest
import torch

from tests.contracts import WorldContract, assert_close, assert_same
from tests.worlds import BUTTONS, SPEED, tiny_world, with_doubts
from worldsim.core import Conditions, WorldError, WorldModel, WorldState, row_keys
from worldsim.diffusion.rng import normal_rows
from worldsim.diffusion.timeline import Clip, predict
from worldsim.world.diffusion import LATENT_BOUND, DiffusionWorld, Sampling
from worldsim.world.fanned import FannedState


class TestOneStep(WorldContract):
    tolerance = 1e-4
    many_steps = 100

    def make_world(self) -> WorldModel:
        return tiny_world()


class TestAllItCanHave(WorldContract):
    """Two passes, choices, a state vector, trust."""

    tolerance = 1e-4
    many_steps = 50

    def make_world(self) -> WorldModel:
        return with_doubts(tiny_world(BUTTONS, steps=2, state=SPEED))


def actions(world: DiffusionWorld, rows: int, count: int) -> torch.Tensor:
    space = world.spec.action.space(seed=3)
    drawn = [torch.as_tensor(space.sample()) for _ in range(rows * count)]
    return torch.stack(drawn).reshape(rows, count, *world.spec.action.shape)


@torch.no_grad()
@pytest.mark.parametrize("steps", [1, 2])
def test_a_cached_step_equals_the_uncached_one(steps: int):
    """The ring must say what running the whole history through the training layout says."""
    world = tiny_world(steps=steps)
    window, shape = world.spec.context, world.spec.latent_shape
    state = world.reset(row_keys([5, 6]))
    history, acts = [state.latents], [state.actions]
    for action in actions(world, 2, 8).unbind(1):
        following, _ = world.step(state, action)
        latents = torch.cat(history, 1)
        clip = Clip(
            torch.cat([latents, latents[:, :1]], 1), latents, torch.zeros(latents.shape[:2]),
            Conditions.of(torch.cat([*acts, action[:, None]], 1)),
        )  # fmt: skip

        def newest(x: torch.Tensor, level: float, clip: Clip = clip) -> torch.Tensor:
            noisy = torch.zeros_like(clip.context)
            noisy[:, -1] = x
            levels = torch.full(noisy.shape[:2], level)
            return predict(world.dynamics, clip, noisy, levels, window)[0][:, -1]

        x = newest(normal_rows(state.key, state.age, 0, shape), 1.0)
        if steps == 2:
            x = newest(0.5 * x + 0.5 * normal_rows(state.key, state.age, 1, shape), 0.5)
        assert torch.allclose(following.latent, x.clamp(-LATENT_BOUND, LATENT_BOUND), atol=1e-4)
        history.append(following.latents[:, -1:])
        acts.append(action[:, None])
        state = following


def test_a_short_context_is_not_padded_with_chunks_that_count():
    """One real chunk: whatever stands in the empty places of the state changes nothing."""
    world = tiny_world()
    frames = torch.randint(0, 256, (1, 2, 24, 32, 3), dtype=torch.uint8)
    state = world.encode(frames, actions(world, 1, 1))
    assert state.filled.item() == 1
    garbage = replace(state, cache=state.cache + 3.0)
    action = actions(world, 1, 1)[:, 0]
    a, b = world.step(state, action)[0], world.step(garbage, action)[0]
    assert torch.equal(a.latent, b.latent)
    longer = replace(garbage, filled=garbage.filled + 1)
    assert not torch.equal(world.step(longer, action)[0].latent, a.latent)


def test_unknown_actions_are_a_condition_of_their_own():
    world = tiny_world()
    frames = torch.randint(0, 256, (1, 6, 24, 32, 3), dtype=torch.uint8)
    known = world.encode(frames, torch.zeros(1, 3, 3), row_keys([0]))
    unknown = world.encode(frames, None, row_keys([0]))
    action = torch.zeros(1, 3)
    a, b = world.step(known, action)[0].latent, world.step(unknown, action)[0].latent
    assert b.isfinite().all() and not torch.allclose(a, b)


def test_the_decoder_sees_one_chunk_back_and_no_more():
    world = tiny_world()
    state = world.reset(row_keys([1]))
    video = world.decode_video(state.latents)
    assert torch.equal(world.decode(state), video[:, -world.spec.chunk :])


@pytest.mark.parametrize(
    "bad", [{"method": "magic"}, {"num_steps": 0}, {"temperature": 0.0}, {"temperature": 1.1}]
)
def test_sampling_refuses_nonsense(bad: dict):
    with pytest.raises(WorldError, match=next(iter(bad))):
        Sampling(**bad)


def test_steps_and_methods_change_the_dream_but_not_the_world():
    world = tiny_world()
    state = world.reset(row_keys([1]))
    action = torch.zeros(1, 3)
    ways = [
        Sampling(),
        Sampling(num_steps=2),
        Sampling(method="euler", num_steps=4),
        Sampling(method="heun"),
        Sampling(temperature=0.5),
    ]
    latents = [world.with_sampling(s).step(state, action)[0].latent for s in ways]
    for i, a in enumerate(latents):
        assert not any(torch.equal(a, b) for b in latents[:i])
    assert world.config.sampling == Sampling()


def test_keys_choose_the_start_clip():
    world = tiny_world()
    starts = {float(world.reset(row_keys([seed])).latents.sum()) for seed in range(20)}
    assert len(starts) == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [("chunk", 3), ("latent_shape", (3, 4, 8)), ("context", 1), ("time_limit", 0), ("fps", 0.0)],
)
def test_settings_that_contradict_each_other_are_refused(field: str, value: object):
    config = tiny_world().config
    with pytest.raises(WorldError, match=field):
        replace(config, spec=replace(config.spec, **{field: value}))


def test_a_first_chunk_is_decoded_as_the_start_of_a_video():
    """Whatever lies in the empty place before it."""
    world = tiny_world()
    world.vae.mean.fill_(0.3)  # an empty place is no mean latent
    frames = torch.randint(0, 256, (1, 2, 24, 32, 3), dtype=torch.uint8)
    state = world.encode(frames, actions(world, 1, 1))
    assert torch.equal(world.decode(state), world.decode_video(state.latents[:, -1:]))
    counts = []
    for _ in range(3):
        counts.append(state.filled.item())
        state, _ = world.step(state, torch.zeros(1, 3))
    assert counts == [1, 2, 3] and state.filled.item() == world.spec.context
    full = replace(state, latents=state.latents + 1, filled=state.filled + 1)
    assert torch.equal(world.decode(full), world.decode_video(full.latents[:, -2:])[:, -2:])


def test_cont_is_the_probability_of_going_on():
    world = tiny_world()
    with torch.no_grad():
        world.dynamics.heads.cont.weight.zero_()
        world.dynamics.heads.cont.bias.fill_(3.0)
    _, said = world.step(world.reset(row_keys([1])), torch.zeros(1, 3))
    assert said.continue_prob.item() == pytest.approx(torch.tensor(3.0).sigmoid().item())


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("filled", [1, 3])
def test_a_fanned_state_dreams_as_its_copies_do(steps: int, filled: int):
    """Past the steps in which anything is shared, and from a context that is not full too."""
    world, times = tiny_world(steps=steps), 4
    frames = torch.randint(0, 256, (2, 2 * filled, 24, 32, 3), dtype=torch.uint8)
    state = world.encode(frames, actions(world, 2, filled), row_keys([7, 8]))
    before = state.map(torch.clone)
    fanned, copied = world.fan_out(state, times), state.repeat(times)
    assert len(fanned) == len(copied) == 8 and len(fanned.prefix) == 2
    assert_same(before, state)
    for t, action in enumerate(actions(world, 8, 5).unbind(1)):
        shared = fanned.prefix.shape[3] if isinstance(fanned, FannedState) else 0
        assert shared == max(0, world.spec.context - t) and type(fanned[:1]) is WorldState
        fanned, said = world.step(fanned, action)
        copied, told = world.step(copied, action)
        assert_close(said, told, 1e-4)
        rows = fanned.plain() if isinstance(fanned, FannedState) else fanned
        assert rows.cache.shape == copied.cache.shape
        assert_close(rows, copied, 1e-4)
    assert type(fanned) is WorldState


def test_a_fanned_state_holds_its_past_once():
    world = tiny_world()
    state = world.reset(row_keys([1]))
    fanned = world.fan_out(state, 50)
    chunk = state.cache.nbytes // (world.spec.context - 1)
    assert fanned.cache.nbytes == 0 and fanned.prefix.nbytes == world.spec.context * chunk
    after, _ = world.step(fanned, actions(world, 50, 1)[:, 0])
    assert isinstance(after, FannedState) and after.cache.nbytes == 0
    assert_same(world.fan_out(fanned[:1], 2)[:1], fanned[:1])
    with pytest.raises(WorldError, match="times"):
        world.fan_out(state, 0)
