"""What is given stays, what is drawn looks at both sides, and nothing else passes unsaid."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import worldsim
from tests.worlds import BUTTONS, tiny_world
from worldsim.core import Conditions, WorldError, row_keys
from worldsim.diffusion.timeline import Order, fill_cache
from worldsim.world.config import LATENT_BOUND
from worldsim.world.fill import ChunkBetween, Side, Timeline, fill
from worldsim.world.point import PointWorld

SIZE = (24, 32)


def media(count: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *SIZE, 3), generator=g).to(torch.uint8)


@pytest.fixture(scope="module")
def world():
    return tiny_world(steps=2, context=3)


def test_a_clip_goes_on_as_the_world_steps(world) -> None:
    """The same as `encode` and `step` from the same noise, without the step's cache."""
    clip, g = media(6), torch.Generator().manual_seed(3)
    actions = torch.rand(8, 3, generator=g)
    quiet = world.with_sampling(replace(world.config.sampling, temperature=1e-9))
    video = worldsim.generate(quiet, [(clip, 0)], frames=16, actions=actions)
    state, parts = quiet.encode(clip[None], actions[None, :3], row_keys([0])), [clip]
    for t in range(3, 8):
        state, _ = quiet.step(state, actions[None, t])
        parts.append(quiet.decode(state)[0])
    difference = (video.int() - torch.cat(parts).int()).abs()
    assert video.shape == (16, *SIZE, 3) and video.dtype == torch.uint8
    assert difference.max() <= 1
    assert torch.equal(quiet.generate([(clip, 0)], frames=16, actions=actions), video)


@pytest.mark.parametrize(
    ("starts", "frames"), [((0,), 9), ((8,), 12), ((2, 14), 16), ((0, 30), 32)]
)
def test_known_frames_come_back_unchanged(world, starts: tuple[int, ...], frames: int) -> None:
    given = [(media(2, seed=s), s) for s in starts]
    video = world.generate(given, frames=frames)
    assert video.shape == (frames, *SIZE, 3)
    for clip, start in given:
        assert torch.equal(video[start : start + 2], clip)
    assert torch.equal(world.generate(given, frames=frames), video)
    assert not torch.equal(world.generate(given, frames=frames, seed=1), video)


def test_what_lies_between_depends_on_both_ends(world) -> None:
    first, last, other = media(2), media(2, 1), media(2, 2)
    base = world.generate([(first, 0), (last, 8)], frames=10)
    end = world.generate([(first, 0), (other, 8)], frames=10)
    begin = world.generate([(other, 0), (last, 8)], frames=10)
    for changed in (end, begin):
        assert (base != changed)[2:8].flatten(1).any(1).all()
    far = world.generate([(first, 0), (last, 28)], frames=30)
    forth = world.generate([(first, 0)], frames=30)
    apart = (far.int() - forth.int()).abs().flatten(1).amax(1)
    assert apart[:12].max() <= 1 and apart[20:28].min() > 1  # an end out of reach is not seen


def test_an_action_is_the_one_that_led_into_the_chunk(world) -> None:
    actions = torch.zeros(6, 3)
    given = [(media(2), 0), (media(2, 1), 10)]
    base = world.generate(given, frames=12, actions=actions)
    changed = world.generate(given, frames=12, actions=actions.index_fill(0, torch.tensor(3), 0.5))
    same = (base == changed).flatten(1).all(1)
    assert same[:6].all() and not same[6:8].any()
    hidden = torch.arange(6) != 3
    some = [world.generate(given, frames=12, actions=a, known=hidden)
            for a in (actions, actions.index_fill(0, torch.tensor(3), 7.0))]  # fmt: skip
    assert torch.equal(*some) and not torch.equal(some[0], base)


def test_a_loop_ends_as_it_begins(world) -> None:
    picture = media(1)[0]
    video = world.generate([(picture, 0), (picture, 10)], frames=11)
    assert torch.equal(video[0], picture) and torch.equal(video[-1], picture)


def test_a_clip_may_be_a_view(world) -> None:
    clip = media(4).numpy()
    view = clip[..., ::-1].copy()[..., ::-1]
    plain = worldsim.generate(world, [(clip, 0)], frames=6)
    assert torch.equal(worldsim.generate(world, [(view, 0)], frames=6), plain)


def test_strength_says_how_much_of_a_clip_is_left(world) -> None:
    clip, like = media(2), media(4, 1)
    rough = world.vae.encode(like[None].float() / 127.5 - 1).clamp(-LATENT_BOUND, LATENT_BOUND)

    def latents(strength: float) -> Tensor:
        said = Conditions.of(torch.zeros(1, 3, 3))
        soft = {1 + i: (rough[:, i], strength) for i in range(2)}
        timeline = Timeline(torch.zeros(1, 3, 3, 4, 4), [True, False, False], said, soft)
        return fill(world.dynamics, timeline, world.config.sampling, 3, row_keys([0]))

    free, half, weak = latents(1e-6), latents(0.5), latents(0.2)
    assert not torch.equal(free, half) and not torch.equal(half, weak)
    video = world.generate([(clip, 0), (like, 2, 0.5)], frames=6)
    assert torch.equal(video[:2], clip) and not torch.equal(video[2:], like)


@torch.no_grad()
@pytest.mark.parametrize("backwards", [False, True])
def test_a_cached_chunk_equals_a_pass_over_the_whole_timeline(world, backwards: bool) -> None:
    """Keys and values that are kept are those of one uncached pass under the training's mask."""
    g, n, window = torch.Generator().manual_seed(0), 7, 3
    latents = torch.randn(2, n, 3, 4, 4, generator=g)
    said = Conditions.of(torch.rand(2, n, 3, generator=g))
    known = torch.tensor([1, 1, 0, 0, 0, 1, 0]) > 0
    place = torch.arange(n)
    rank = n - 1 - place if backwards else place
    order = Order(rank.expand(2, -1), known.expand(2, -1))
    side = Side(world.dynamics, latents, said, known.tolist(), window, backwards=backwards)
    todo = [p for p in rank.argsort().tolist() if not known[p]]
    if backwards:
        todo = todo[1:]  # the last chunk has neither past nor anchor... its order begins there
        side.remember(6)
    noisy, level = torch.randn(2, n, 3, 4, 4, generator=g), torch.full((2,), 0.6)
    beside = order.neighbours(latents)
    whole = world.dynamics(
        torch.cat([latents, noisy], 1),
        torch.cat([torch.zeros(2, n), level[:, None].expand(2, n)], 1),
        said.as_context().then(said),
        torch.cat([beside, beside], 1),
        time=torch.cat([place, place]),
        mask=order.mask(window),
    ).x[:, n:]
    for p in todo:
        alone = ChunkBetween(side, p)(noisy[:, p], level)
        torch.testing.assert_close(alone, whole[:, p], atol=2e-5, rtol=0)
        side.remember(p)


@torch.no_grad()
def test_plain_context_has_the_keys_of_stepping(world) -> None:
    latents = torch.randn(1, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    said = Conditions.of(torch.zeros(1, 4, 3))
    side = Side(world.dynamics, latents, said, [True] * 3 + [False], 3)
    cache = fill_cache(world.dynamics, latents[:, :3], said.chunks(slice(3)), torch.full((1,), 3))
    torch.testing.assert_close(torch.cat([side.kv[p] for p in (0, 1)], 3), cache)


POINT = PointWorld(size=24, discrete=False)


def test_a_world_in_closed_form_goes_on_exactly() -> None:
    start = POINT.reset(row_keys([4]))
    actions = torch.rand(1, 6, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    state, parts = start, []
    for t in range(6):
        state, _ = POINT.step(state, actions[:, t])
        parts.append(POINT.decode(state)[0])
    true = torch.cat(parts)
    video = worldsim.generate(POINT, [(true[:6], 0)], frames=11, actions=actions[0])
    assert torch.equal(video[:6], true[:6]) and video.shape == (11, 24, 24, 3)
    assert (video.int() - true[:11].int()).abs().max() < 12
    still = worldsim.generate(POINT, [(true[0], 0)], frames=6)
    assert (still.int() - true[0].int()).abs().max() < 12  # nothing pushes it
    with pytest.raises(WorldError, match="point-world runs forwards only"):
        worldsim.generate(POINT, [(true[:2], 4)], frames=6)


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ([], {}, "given: expected a clip or picture of strength 1"),
        ([(media(2), 0, 0.5)], {}, "given: expected a clip or picture of strength 1"),
        ([(media(2), 0, 0.0)], {}, r"given\[0\]: expected a strength above 0 to 1, got 0"),
        ([(media(2), 1)], {}, "expected a start that is a multiple of 2, got 1"),
        ([(media(2), -2)], {}, "expected a start that is a multiple of 2, got -2"),
        ([(media(4), 6)], {}, "expected to end before frame 8, got frames 6 to 9"),
        ([(media(4), 0), (media(2), 2)], {}, "two clips hold frame 2"),
        ([(media(3), 0), (media(2), 2)], {}, "two clips hold frame 2"),
        ([(media(2)[:, :8], 0)], {}, r"given\[0\]: expected uint8"),
        ([(media(2).float(), 0)], {}, r"given\[0\]: expected uint8"),
        ([media(2)], {}, r"given\[0\]: expected \(media, start\)"),
        ([(media(2), 0)], {"frames": 0}, "frames: expected a whole number from 1 up, got 0"),
        ([(media(2), 0)], {"actions": torch.zeros(3, 3)}, r"action: expected shape \(4, 3\)"),
        ([(media(2), 0)], {"actions": torch.full((4, 3), 9.0)}, "action: expected finite values"),
        ([(media(2), 0)], {"known": [True] * 4}, "known: expected None without actions"),
        ([(media(2), 0)], {"num_steps": 0}, "num_steps: expected 1 to 1000"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(world, given: Any, options: Any, message: str) -> None:
    with pytest.raises(WorldError, match=message):
        worldsim.generate(world, given, **{"frames": 8, **options})


def test_whole_numbers_as_actions_and_a_world_of_several() -> None:
    plain = tiny_world(BUTTONS)
    video = plain.generate([(media(2), 0)], frames=6, actions=[0, 4, 2])
    assert not torch.equal(video, plain.generate([(media(2), 0)], frames=6, actions=[0, 1, 2]))
