"""Long dreams, and the eyes that look at CarRacing."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests import worlds
from tests.evaluate.test_clips import recorded
from tests.world_folders import tiny_world
from worldsim.core import EnvironmentSpec
from worldsim.evaluate import long_rollouts as long_dreams
from worldsim.evaluate.long_rollouts import LongDreams, RealLooks
from worldsim.metrics import match_crossings
from worldsim.recipes.car_racing import landmarks as car_racing
from worldsim.recipes.landmarks import landmarks_for

VISIBLE = {"road": torch.ones(9), "car": torch.ones(9)}
GRASS, ROAD, BODY = (100, 204, 100), (104, 104, 104), (150, 45, 45)


def track(left: float = 24.0, lean: float = 0.0, car: bool = True, road: bool = True) -> Tensor:
    """A frame (1, 56, 64, 3): a road 14 wide from column `left`, leaning as it goes up."""
    rows, columns = torch.arange(56.0)[:, None], torch.arange(64.0)[None]
    edge = left + lean * (50 - rows)
    inside = (columns - edge + 0.5).clamp(0, 1) * (edge + 14 - columns + 0.5).clamp(0, 1)
    cover = (inside * road)[..., None]
    frame = torch.tensor(ROAD) * cover + torch.tensor(GRASS) * (1 - cover)
    if car:
        frame[45:51, 31:33] = torch.tensor(BODY, dtype=torch.float32)
    return frame.round().to(torch.uint8)[None]


def test_the_eyes_see_road_and_car():
    frame = track()
    assert car_racing.has_road(frame).all() and car_racing.has_car(frame).all()
    assert not car_racing.has_road(track(road=False)).any()
    assert not car_racing.has_car(track(car=False)).any()
    assert car_racing.car_place(frame)[0].tolist() == pytest.approx([47.5, 31.5])
    assert car_racing.car_place(track(car=False)).isnan().all()


def test_the_eyes_do_not_look_at_the_panel():
    """Grey below the field is no road, and an action by sight is the same with it."""
    both = torch.cat([track(), track(road=False), track(lean=0.5)])
    panel = torch.full((3, 8, 64, 3), 104, dtype=torch.uint8)
    whole, wheel = torch.cat([both, panel], 1), torch.zeros(3)
    for look in (car_racing.has_road, car_racing.has_car, car_racing.car_place):
        torch.testing.assert_close(look(whole), look(both), equal_nan=True)
    seen = (car_racing.steer_by_sight(frames, wheel) for frames in (whole, both))
    torch.testing.assert_close(*seen)
    spec = tiny_world().spec
    spec = replace(spec, action=replace(spec.action, low=(-1.0, 0.0, 0.0), high=(1.0,) * 3))
    sizes = [(56, 64, 3), (64, 64, 3), (64, 56, 3)]
    known = [car_racing.recognised(replace(spec, frame_shape=size)) for size in sizes]
    assert known == [True, True, False]


@pytest.mark.parametrize("shift", [0.25, -1.5])
def test_edges_are_measured_to_a_fraction_of_a_pixel(shift: float):
    edges = car_racing.road_edges(track()), car_racing.road_edges(track(24 + shift))
    distance = match_crossings(*edges, reach=car_racing.EDGE_REACH)
    assert len(distance) == 20  # two on each of ten lines
    assert distance.tolist() == pytest.approx([abs(shift)] * 20, abs=0.1)


def test_driving_by_sight_follows_the_road():
    frames = torch.cat([track(), track(lean=0.5), track(lean=-0.5), track(road=False)])
    action = car_racing.steer_by_sight(frames, torch.full((4,), 0.3))
    assert action.shape == (4, 3) and action[:, 1].min() > 0 and (action[:, 2] == 0).all()
    assert abs(action[0, 0]) < 0.1 and action[1, 0] > 0.3 and action[2, 0] < -0.3
    assert action[3, 0] == pytest.approx(0.3)  # nothing to go by: hold the wheel
    assert action[0, 1] > action[1, 1]  # less gas where it bends


def test_a_look_is_what_it_says():
    chunk = torch.zeros(1, 2, 4, 4, 3, dtype=torch.uint8)
    chunk[0, 1, :2] = torch.tensor([30, 60, 90])
    expected = [30, 60 / 2 * (16 / 15) ** 0.5, 15, 30, 45, 30]
    assert long_dreams.look(chunk)[0].tolist() == pytest.approx(expected, rel=1e-5)


def fake(looks: Tensor, by_sight: int = 0) -> LongDreams:
    n, t = looks.shape[:2]
    seen, sight = torch.ones(n, t, dtype=torch.bool), torch.arange(n) < by_sight
    visible = {"road": seen, "car": seen & False} if by_sight else {}
    return LongDreams(torch.ones(n, dtype=torch.bool), looks, visible, sight)


def test_dreams_like_reality_pass_and_pale_ones_fail():
    generator = torch.Generator().manual_seed(0)
    level = 100 + 5 * torch.randn(80, 1, 6, generator=generator)
    looks = level + torch.randn(80, 50, 6, generator=generator)
    real = RealLooks(long_dreams.windows(looks[:40]).flatten(0, 1), VISIBLE)
    same = long_dreams.summarise(fake(looks[40:], 20), real)
    assert same["z_of_mean"] < 1 and same["share_within"] > 0.9
    assert same["landmarks"]["road"]["by_sight"] == 1
    assert same["landmarks"]["car"]["recorded"] == 0
    drift = looks[40:].clone()
    drift[:, 25:, 1] += 30  # contrast, in the second window
    pale = long_dreams.summarise(fake(drift), real)
    assert pale["z_of_mean"] > 4 and pale["looks"]["contrast"]["z_of_mean"] > 4
    assert pale["looks"]["red"]["z_of_mean"] < 1 and not pale["landmarks"]
    assert pale["share_within"] < 0.6


def test_dreams_under_recorded_actions_are_held_against_reality_under_them():
    """Half of the dreams leave the road; so does reality under the same actions."""
    generator = torch.Generator().manual_seed(0)
    on_road = 100 + 5 * torch.randn(80, 1, 6, generator=generator).expand(80, 50, 6)
    off_road = 40 + on_road
    real = RealLooks(long_dreams.windows(on_road[:40]).flatten(0, 1), VISIBLE)
    off = long_dreams.windows(off_road[:40]).flatten(0, 1).tolist()
    reference = {"windows": off, "road": 0.25, "car": 1.0}
    dreams = fake(torch.cat([on_road[40:60], off_road[60:]]), 20)
    same = long_dreams.summarise(dreams, real, reference)
    assert same["z_of_mean"] < 1 and same["share_within"] > 0.9
    assert same["landmarks"]["road"]["recorded_real"] == 0.25
    assert long_dreams.summarise(dreams, real)["z_of_mean"] > 3
    for stray in (off_road[40:], on_road[40:]):  # either half may be the one that strays
        assert long_dreams.summarise(fake(stray, 20), real, reference)["z_of_mean"] > 4


def test_recorded_actions_are_looped_and_repeat():
    episodes = [torch.arange(7.0)[:, None], 100 + torch.arange(5.0)[:, None]]
    found = long_dreams.recorded_actions(episodes, 3, 12)
    assert found.shape == (3, 12, 1)
    steps = found[..., 0].diff(dim=1)
    assert set(steps[0].tolist()) == {1.0, -6.0} and set(steps[1].tolist()) == {1.0, -4.0}
    assert torch.equal(found, long_dreams.recorded_actions(episodes, 3, 12))


def test_a_long_dream_is_looked_at_and_counted():
    world, done = tiny_world(), []
    actions = torch.rand(3, 9, 2, generator=torch.Generator().manual_seed(0))
    dreams = long_dreams.dream_long(world, actions, done.append)
    assert dreams.looks.shape == (3, 2, 6) and sum(done) == 9 and dreams.finite.all()
    assert not dreams.by_sight.any() and dreams.looks[..., 1].std() > 0
    real = long_dreams.real_looks(recorded(5000, 20), None, 2)
    assert real.windows.shape == (2, 6) and not real.visible
    assert len(long_dreams.real_looks(recorded(5000, 20), None, 6).windows) == 0


def test_every_other_dream_is_driven_by_what_is_in_its_picture(monkeypatch: pytest.MonkeyPatch):
    world, taken = worlds.tiny_world(size=(56, 64)), []
    wheel = torch.tensor([0.5, 0.1, 0.0])
    landmarks = landmarks_for(EnvironmentSpec(id="CarRacing-v3", size=(56, 64)), (56, 64, 3))
    assert landmarks is not None and landmarks_for(None, (56, 64, 3)) is None
    monkeypatch.setattr(car_racing, "steer_by_sight", lambda f, s: wheel.expand(len(f), 3))
    step = world.step
    monkeypatch.setattr(world, "step", lambda s, a: taken.append(a) or step(s, a))
    actions = torch.rand(4, 8, 3)
    dreams = long_dreams.dream_long(world, actions, lambda n: None, landmarks)
    assert list(dreams.visible) == ["road", "car"]
    assert dreams.by_sight.tolist() == [True, False, True, False]
    for t, action in enumerate(taken):
        assert torch.equal(action[1::2], actions[1::2, t])
        assert torch.equal(action[::2], wheel.expand(2, 3))
