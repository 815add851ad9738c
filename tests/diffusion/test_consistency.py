import pytest
import torch

from worldsim.diffusion.consistency import earlier_level, halvings_at, pseudo_huber


def test_no_halving_asks_for_the_data():
    level = torch.tensor([0.01, 0.5, 1.0])
    assert torch.equal(earlier_level(level, torch.zeros(3)), torch.zeros(3))


def test_one_halving_is_half_the_angle():
    assert earlier_level(torch.ones(1), torch.ones(1)) == pytest.approx(0.5, abs=1e-6)


def test_finer_schedules_come_closer_and_never_reach():
    level = torch.linspace(0.05, 1, 20)
    levels = [earlier_level(level, torch.full((20,), float(s))) for s in range(8)]
    for finer, coarser in zip(levels[1:], levels[:-1], strict=True):
        assert (finer > coarser).all()
    assert (levels[-1] < level).all()


def test_huber_is_linear_far_out_and_flat_near_zero():
    small, large = torch.full((1, 1, 4, 4), 1e-3), torch.full((1, 1, 4, 4), 10.0)
    assert pseudo_huber(large) == pytest.approx(10.0, abs=0.05)
    assert pseudo_huber(2 * small) / pseudo_huber(small) == pytest.approx(4, abs=0.05)


def test_schedule_is_coarse_first():
    seen = [halvings_at(step, 300, 2) for step in range(300)]
    assert seen == sorted(seen)
    assert {seen.count(s) for s in (0, 1, 2)} == {100}
