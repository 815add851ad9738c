from dataclasses import replace

import pytest
import torch

from tests.contracts import WorldContract, same
from worldsim.core import WorldError, WorldModel, row_keys
from worldsim.world.point import PUSHES, VIEW, PointWorld
from worldsim.world.rollout import replay


class TestNoisyPointWorld(WorldContract):
    def make_world(self) -> WorldModel:
        return PointWorld(noise=0.3)


class TestQuietPointWorld(WorldContract):
    stochastic = False

    def make_world(self) -> WorldModel:
        return PointWorld(chunk=1, context=2, arena=1.0)


class TestDiscretePointWorld(WorldContract):
    def make_world(self) -> WorldModel:
        return PointWorld(discrete=True, noise=0.1, chunk=3)


def start(world: PointWorld, *latents: tuple[float, float, float, float]):
    """A state at these positions and velocities."""
    state = world.reset(row_keys(range(len(latents))))
    latent = torch.tensor(latents)[:, None]
    return replace(state, latents=latent.expand_as(state.latents).contiguous())


def test_a_step_by_hand() -> None:
    world = PointWorld(thrust=0.2, goal=(0.0, 0.0), arena=1.0)
    state = start(world, (0.3, 0.4, 0.1, 0.0), (0.9, 0.0, 0.2, 0.0))
    state, said = world.step(state, torch.tensor([[0.5, -1.0], [0.0, 0.0]]))
    expected = torch.tensor([[0.45, 0.3, 0.2, -0.2], [1.1, 0.0, 0.2, 0.0]])
    torch.testing.assert_close(state.latent, expected)
    torch.testing.assert_close(
        said.reward, torch.tensor([0.5 - (0.45**2 + 0.3**2) ** 0.5, 0.9 - 1.1])
    )
    assert said.continue_prob.tolist() == [1, 0] and said.trust.tolist() == [1, 1]


def test_a_push_saturates_and_an_unknown_one_is_none() -> None:
    world = PointWorld()
    state = start(world, (0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0))
    far, _ = world.step(state, torch.tensor([[9.0, -9.0], [0.0, 1.0]]))
    torch.testing.assert_close(far.latent[:, 2:], torch.tensor([[0.1, -0.1], [0.0, 0.1]]))
    free, _ = world.step(state)
    assert not free.latent.any() and not free.known[:, -1].any()


def test_the_five_pushes() -> None:
    world = PointWorld(discrete=True, thrust=1.0)
    state = start(world, *[(0.0, 0.0, 0.0, 0.0)] * 5)
    state, _ = world.step(state, torch.arange(5))
    assert state.latent[:, 2:].tolist() == [list(map(float, push)) for push in PUSHES]


def test_the_noise_has_the_spread_it_says() -> None:
    world = PointWorld(noise=0.3, thrust=0.1)
    state = start(world, *[(0.0, 0.0, 0.0, 0.0)] * 4000)
    state, _ = world.step(state, torch.zeros(4000, 2))
    assert state.latent[:, 2:].std().item() == pytest.approx(0.3, rel=0.03)
    assert abs(state.latent[:, 2:].mean().item()) < 0.015
    torch.testing.assert_close(state.latent[:, :2], state.latent[:, 2:] / 2)


def test_the_point_is_drawn_where_it_is() -> None:
    world = PointWorld(size=41, chunk=2, goal=(-0.5, -0.5))
    frames = world.decode(start(world, (0.0, 0.0, 0.0, 0.0), (VIEW / 2, VIEW / 4, 0.0, 0.0)))
    red, green = frames[:, -1, ..., 0], frames[:, -1, ..., 1]
    assert red[0].argmax() == 20 * 41 + 20 and red[0].max() == 255
    assert red[1].argmax() == 15 * 41 + 30  # up is a lower row, right a higher column
    assert green[0].argmax() == 28 * 41 + 12


def test_a_chunk_shows_the_way_there() -> None:
    """Half-way through a constant acceleration the point has gone a quarter of the way."""
    world = PointWorld(thrust=0.4, goal=(0.0, 1.0))
    state, _ = world.step(start(world, (-0.2, 0.0, 0.0, 0.0)), torch.tensor([[1.0, 0.0]]))
    frames = world.decode(state)
    shown = world._find(frames)[0]
    expected = torch.tensor([[-0.2 + 0.05, 0.0], [-0.2 + 0.2, 0.0]])
    torch.testing.assert_close(shown, expected, atol=2e-3, rtol=0)


def test_a_lone_chunk_shows_where_the_point_came_from() -> None:
    world = PointWorld(chunk=2)
    shown = world._find(world.decode(start(world, (0.4, -0.2, 0.2, -0.1))))[0]
    torch.testing.assert_close(shown, torch.tensor([[0.3, -0.15], [0.4, -0.2]]), atol=2e-3, rtol=0)


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_encode_finds_position_and_velocity(chunk: int) -> None:
    """To a few hundredths of a pixel, and the velocity to what that leaves over."""
    world = PointWorld(chunk=chunk, noise=0.05)
    state = world.reset(row_keys(range(64)))
    torch.manual_seed(0)
    actions = 2 * torch.rand(64, world.context, 2) - 1
    dream = replay(world, state, actions, decode_every=1)
    assert dream.frames is not None
    found = world.encode(dream.frames, actions)
    inside = (dream.latents[..., :2].abs() < 1.1).all(-1).all(-1)
    assert inside.sum() > 40
    error = (found.latents - dream.latents)[inside].abs()
    pixel = 2 * VIEW / (world.size - 1)
    assert error[..., :2].max() < 0.03 * pixel
    slack = 0.05 * 4 / (2 * chunk)  # the noise within the chunk, which no action tells
    assert error[:, 1:, 2:].max() < 2 * chunk * 0.03 * pixel + slack


def test_encode_without_noise_repeats_the_dream() -> None:
    world = PointWorld()
    state = start(world, (-0.5, 0.2, 0.02, 0.03))
    actions = torch.tensor([[[0.3, -0.2], [1.0, 0.5], [-0.4, 0.1], [0.2, 0.9]]])
    dream = replay(world, state, actions, decode_every=1)
    assert dream.frames is not None
    found = world.encode(dream.frames, actions, state.key)
    torch.testing.assert_close(found.latents, dream.latents, atol=5e-3, rtol=0)
    more = torch.zeros(1, 5, 2)
    ours, theirs = (replay(world, s, more).latents for s in (found, dream.state))
    torch.testing.assert_close(ours, theirs, atol=3e-2, rtol=0)


def test_a_still_picture_is_a_point_at_rest() -> None:
    world = PointWorld()
    frame = world.decode(start(world, (0.4, -0.3, 0.0, 0.0)))[:, -1:]
    found = world.encode(frame.repeat(1, 2, 1, 1, 1))
    torch.testing.assert_close(found.latent, torch.tensor([[0.4, -0.3, 0, 0]]), atol=2e-3, rtol=0)
    assert found.filled.item() == 1


def test_a_point_out_of_sight_waits_at_the_border() -> None:
    world = PointWorld()
    frames = world.decode(start(world, (50.0, -50.0, 0.0, 0.0)))
    found = world.encode(frames).latent[0]
    assert found[0] == -found[1] and 1.1 < found[0] < VIEW


def test_frames_without_a_point_are_refused() -> None:
    world = PointWorld()
    blank = torch.zeros(2, 2, 40, 40, 3, dtype=torch.uint8)
    with pytest.raises(WorldError, match="frames: expected pictures of PointWorld"):
        world.encode(blank)


@pytest.mark.parametrize("horizon", [1, 3, 10])
def test_the_best_plan_earns_the_best_return(horizon: int) -> None:
    world = PointWorld(goal=(0.3, -0.6))
    state = world.reset(row_keys(range(200)))
    plan = world.best_plan(state, horizon)
    earned = replay(world, state, plan).rewards.sum(1)
    torch.testing.assert_close(earned, world.best_return(state, horizon), atol=1e-5, rtol=0)
    torch.manual_seed(0)
    for spread in (2.0, 0.2):
        rival = (plan + spread * torch.randn(plan.shape)).clamp(-1, 1)
        assert (replay(world, state, rival).rewards.sum(1) <= earned + 1e-5).all()
    if horizon == 10:  # far enough to reach the goal from anywhere
        where = replay(world, state, plan).state.latent[:, :2]
        torch.testing.assert_close(
            where, torch.tensor(world.goal).expand_as(where), atol=1e-4, rtol=0
        )


def test_the_best_discrete_plan_beats_all_others() -> None:
    world = PointWorld(discrete=True, thrust=0.15)
    state = world.reset(row_keys(range(8)))
    every = torch.cartesian_prod(*[torch.arange(5)] * 3)
    best = world.best_return(state, 3)
    earned = replay(world, state, world.best_plan(state, 3)).rewards.sum(1)
    torch.testing.assert_close(earned, best, atol=1e-5, rtol=0)
    tried = replay(world, state.repeat(125), every.repeat(8, 1)).rewards.sum(1).reshape(8, 125)
    torch.testing.assert_close(tried.amax(1), best, atol=1e-5, rtol=0)
    with pytest.raises(WorldError, match="horizon: expected at most 8, got 9"):
        world.best_plan(state, 9)


def test_starts_differ_and_lie_inside() -> None:
    world = PointWorld()
    where = world.reset(row_keys(range(500))).latent
    assert where[:, :2].abs().max() <= 0.8 and where[:, 2:].abs().max() == 0
    assert len(where[:, 0].unique()) > 490 and where[:, :2].std() > 0.4
    assert not same(where, world.reset(row_keys(range(500), episode=1)).latent)


@pytest.mark.parametrize(
    "wrong", [{"size": 7}, {"chunk": 0}, {"context": 1}, {"noise": -0.1}, {"noise": float("nan")}]
)
def test_bad_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(WorldError, match=f"{next(iter(wrong))}: expected at least"):
        PointWorld(**wrong)
