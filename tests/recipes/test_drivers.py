from collections import Counter

import gymnasium
import numpy as np
import pytest

from worldsim.collect.policies import Behaviour, choose, from_path, uniform
from worldsim.recipes.car_racing import drivers as behaviours
from worldsim.recipes.car_racing.drivers import car_racing_mix


@pytest.mark.parametrize("first", [0, 80, 1000, 5000])
@pytest.mark.parametrize("count", [20, 50, 100])
def test_any_run_of_seeds_holds_the_shares(first: int, count: int):
    mix = car_racing_mix()
    counts = Counter(choose(mix, seed).name for seed in range(first, first + count))
    for behaviour in (b for b in mix if b.seeds is None):
        assert abs(counts[behaviour.name] - behaviour.share * count) <= 2


def test_uniform_actions_lie_in_the_space_and_cover_it():
    rng = np.random.default_rng(0)
    for env in (gymnasium.make("CartPole-v1"), gymnasium.make("Pendulum-v1")):
        policy = uniform(env, rng)
        actions = np.array([policy(None) for _ in range(50)])
        assert all(env.action_space.contains(policy(None)) for _ in range(50))
        assert actions.std() > 0.4


def test_a_dotted_path_names_a_policy():
    assert (
        from_path("math:sqrt").make(gymnasium.make("CartPole-v1"), np.random.default_rng())(4) == 2
    )


@pytest.mark.parametrize("path", ["math", "math:nothing", "no_such_module:f", "math:pi", ""])
def test_a_path_to_nothing_is_refused(path: str):
    with pytest.raises(ValueError, match="policy: expected"):
        from_path(path)


def test_shares_must_be_positive():
    with pytest.raises(ValueError, match="share: expected"):
        Behaviour(name="never", make=uniform, share=0.0)
    with pytest.raises(ValueError, match="at least one"):
        choose((), 0)


def test_a_band_of_seeds_belongs_to_one_behaviour_and_leaves_the_others_alone():
    shared = (Behaviour(name="a", make=uniform), Behaviour(name="b", make=uniform, share=2.0))
    banded = (Behaviour(name="c", make=uniform, seeds=(7, 12)), *shared)
    for seed in range(30):
        expected = "c" if 7 <= seed < 12 else choose(shared, seed).name
        assert choose(banded, seed).name == expected
    with pytest.raises(ValueError, match="at least one for seed 12"):
        choose(banded[:1], 12)


def test_the_clumsy_are_each_wrong_in_their_own_way(monkeypatch: pytest.MonkeyPatch):
    looks, asked = [], []
    monkeypatch.setattr(
        behaviours, "pursue", lambda env: looks.append(1) or np.array([0.5, 0.5, 0.2], np.float32)
    )
    drives = []
    for seed in range(60):
        looks.clear()
        policy = behaviours.clumsy(None, np.random.default_rng(seed))  # type: ignore[arg-type]
        drives.append(np.stack([policy(None) for _ in range(600)]))
        asked.append(len(looks) / 600)
    calm = np.array([len(np.unique(drive, axis=0)) < 100 for drive in drives])
    assert 0.2 < calm.mean() < 0.6  # four of ten have no noise
    assert min(asked) < 0.6 and max(asked) > 0.95  # some are blind half of the time
    wheel, gas = (np.array([drive[:, i].mean() for drive in drives]) for i in (0, 1))
    assert wheel.min() < 0.1 and wheel.max() > 0.7 and gas.min() < 0.15 and gas.max() > 0.5


def test_a_stray_sees_the_road_now_and_then_only(monkeypatch: pytest.MonkeyPatch):
    road = iter(range(10**6))  # what the road asks for: another wheel each time it is looked at
    monkeypatch.setattr(
        behaviours, "pursue", lambda env: np.array([next(road) * 1e-5, 0.5, 0.0], np.float32)
    )
    drives, looks = [], []
    for seed in range(40):
        first = next(road)
        policy = behaviours.stray(None, np.random.default_rng(seed))  # type: ignore[arg-type]
        drives.append(np.stack([policy(None) for _ in range(475)]))
        looks.append((next(road) - first) / 475)
    assert 0.2 < np.mean(looks) < 0.6 and max(looks) < 0.8
    actions = np.concatenate(drives)
    both = (actions[:, 1] > 0.2) & (actions[:, 2] > 0.1)
    assert 0.1 < both.mean() < 0.5  # a foot on each pedal
    again = [len(np.unique(drive[:, 0])) / len(drive) for drive in drives]
    assert min(again) < 0.7  # the wheel is held
    turned = [
        drive[i : i + 12, 0]
        for drive in drives
        for i in range(400)
        if np.isin(drive[i : i + 12, 0], drive[:i, 0]).all()
    ]
    assert any((np.diff(wheel) > 0).all() for wheel in turned)  # or turned as it was before


def test_a_steady_foot_is_held_and_light(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(behaviours, "pursue", lambda env: np.array([0.3, 1.0, 1.0], np.float32))
    policy = behaviours.steady(None, np.random.default_rng(0))  # type: ignore[arg-type]
    actions = np.stack([policy(None) for _ in range(3000)])
    assert (actions[:, 0] == np.float32(0.3)).all()  # the wheel is the expert's, the foot is not
    held = np.diff(np.flatnonzero((actions[1:, 1:] != actions[:-1, 1:]).any(1)))
    assert held.min() >= 15 and held.max() <= 100
    gas, brake = actions[:, 1], actions[:, 2]
    assert gas.max() <= 0.4 and ((gas > 0) & (gas < 0.15)).mean() > 0.3
    for kind in (gas == 0, (gas > 0) & (brake == 0), (gas > 0) & (brake > 0), brake > 0.2):
        assert kind.mean() > 0.02
