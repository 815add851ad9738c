"""The layout of training against what it promises, with a real small network."""

import torch

from tests.worlds import tiny_dynamics
from worldsim.core import Conditions
from worldsim.diffusion.draws import Draws
from worldsim.diffusion.losses import noise_context
from worldsim.diffusion.schedule import draw_levels
from worldsim.diffusion.timeline import (
    Clip,
    Order,
    draw_order,
    predict,
    predict_ordered,
    training_mask,
)

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
    level = draw_levels((10_000,), Draws(0, 0, range(10_000)))
    assert level.min() > 0 and level.max() == 1
    assert 0.04 < (level == 1).float().mean() < 0.06
    assert 0.4 < level.mean() < 0.6


def test_context_noise_is_told_and_bounded():
    latents = torch.zeros(500, 3, 7, 8, 4)
    noisy, told = noise_context(latents, 0.3, Draws(0, 0, range(500)))
    assert told.max() <= 0.3 and (told[:, :1] == told).all()
    assert 0.15 < (told[:, 0] == 0).float().mean() < 0.25
    measured = noisy.flatten(1).std(1)
    assert torch.allclose(measured, told[:, 0], atol=0.02)


def orders() -> Order:
    """Forwards; forwards to a known end; backwards from it; forwards to a known middle."""
    place = torch.arange(T + 1)
    rank = torch.stack([place, place, T - place, place])
    known = torch.tensor([[1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 1],
                          [1, 0, 0, 1, 0, 0]]) > 0  # fmt: skip
    return Order(rank, known)


def test_orders_say_who_sees_whom():
    order, n = orders(), T + 1
    assert order.anchors.nonzero().tolist() == [[1, 5], [3, 3]]
    mask = order.mask(WINDOW)

    def seen(row: int, place: int, noisy: bool) -> list[int]:
        return mask[row, place + n * noisy].nonzero()[:, 0].tolist()

    plain = training_mask(n, WINDOW)[0]  # z_{i + 1} stands in row i there
    assert torch.equal(mask[0, :n, :n], plain[:n, :n])
    assert torch.equal(mask[0, n + 1 :, :n], plain[n:-1, :n])
    assert seen(1, 2, True) == [0, 1, 5, n + 2] and seen(1, 2, False) == [0, 1, 2, 5]
    assert seen(1, 5, False) == [5]  # the others within its window are not there yet
    assert seen(2, 2, True) == [3, 4, 5, n + 2] and seen(2, 3, False) == [3, 4, 5]
    assert seen(2, 0, True) == [1, 2, 3, n] and seen(2, 5, False) == [5]
    assert seen(3, 1, True) == [0, 3, n + 1] and seen(3, 4, True) == [1, 2, 3, n + 4]
    assert seen(3, 0, False) == [0, 3] and seen(3, 3, False) == [3]


def test_a_backward_order_is_a_forward_one_reversed_in_time():
    g = torch.Generator().manual_seed(0)
    known = torch.rand(20, T + 1, generator=g) < 0.4
    place = torch.arange(T + 1).expand(20, -1)
    forward, backward = Order(place, known).mask(WINDOW), Order(T - place, known.flip(1))
    n = T + 1
    flipped = torch.cat([torch.arange(n).flip(0), n + torch.arange(n).flip(0)])
    assert torch.equal(backward.mask(WINDOW)[:, flipped][:, :, flipped], forward)
    x = torch.randn(20, n, 1, 1, 1, generator=g)
    beside = Order(place, known).neighbours(x)
    assert torch.equal(backward.neighbours(x.flip(1)).flip(1), beside)
    assert torch.equal(orders().neighbours(x[:4])[1, 5], x[0, 0] * 0)  # its neighbour is not there


@torch.no_grad()
def test_known_chunks_ahead_and_only_those_reach_a_target():
    network, order = tiny_dynamics(channels=4), orders()
    g = torch.Generator().manual_seed(0)
    latents = torch.randn(4, T + 1, 7, 8, 4, generator=g)
    noise, level = torch.randn(4, T, 7, 8, 4, generator=g), torch.full((4, T), 0.7)

    def run(latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        said = Conditions.of(torch.zeros(4, T + 1, 3))
        clip = Clip(latents, latents[:, :-1], torch.zeros(4, T), said)
        x, _, counts = predict_ordered(network, clip, noise, level, WINDOW, order)
        return x, counts

    base, counts = run(latents)
    assert torch.equal(counts, ~order.known[:, 1:])
    for place in range(T + 1):
        other = latents.clone()
        other[:, place] += 1
        changed = (run(other)[0] != base).flatten(2).any(-1)  # (rows, targets 1 to T)
        assert changed[0].nonzero()[:, 0].tolist() == list(range(place, T))
        if place == T:
            assert changed[:, :-1].any(1).tolist() == [False, True, True, False]
    forward = Clip(latents[:1], latents[:1, :-1], torch.zeros(1, T),
                   Conditions.of(torch.zeros(1, T + 1, 3)))  # fmt: skip
    plain, _ = predict(network, forward, noise[:1], level[:1], WINDOW)
    assert torch.allclose(plain, base[:1], atol=1e-5)


def test_drawn_orders_leave_something_to_do_and_something_to_see():
    order = draw_order(9, Draws(0, 0, range(500)))
    assert order.known.any(1).all() and not order.known.all(1).any()
    backwards = order.rank[:, 0] == 8
    assert 0.35 < backwards.float().mean() < 0.45
    assert order.known[backwards, -1].all() and not order.anchors[backwards].any()
    assert 0.35 < order.anchors.any(1).float().mean() < 0.65
