from collections import Counter

import gymnasium
import numpy as np
import pytest

from worldsim.data.behaviours import Behaviour, car_racing_mix, choose, from_path, uniform


@pytest.mark.parametrize("first", [0, 80, 1000, 5000])
@pytest.mark.parametrize("count", [20, 50, 100])
def test_any_run_of_seeds_holds_the_shares(first: int, count: int):
    mix = car_racing_mix()
    counts = Counter(choose(mix, seed).name for seed in range(first, first + count))
    for behaviour in mix:
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
