"""A budget becomes steps: shares, refusals, and what a resumed run remembers."""

import pytest

from worldsim.core import WorldError
from worldsim.train.plan import (
    STAGES,
    StagePlan,
    plan_by_steps,
    plan_by_time,
    replanned,
    time_left,
    trained_seconds,
    with_steps,
)
from worldsim.train.recipe import recipe_for


def test_time_is_split_and_what_is_left_over_goes_to_those_that_follow():
    left, spent = 1000.0, []
    for stage in STAGES:
        spent.append(time_left(left, stage))
        left -= spent[-1]
    assert spent == pytest.approx([380, 240, 100, 200])
    assert left == pytest.approx(80)  # calibration and card
    assert time_left(480.0, "student") == pytest.approx(480 * 0.20 / 0.28)


def test_steps_fill_the_time():
    plan = plan_by_time("forced", 100.0, 0.25, None, first=False)
    assert plan == StagePlan(400, False, 0.25) and plan.seconds == 100
    assert plan_by_time("forced", 2000.0, 0.25, None, first=False).compile
    assert not plan_by_time("forced", 2000.0, 0.25, False, first=False).compile


def test_too_little_time_is_refused():
    with pytest.raises(WorldError, match="hours: expected time for 30 steps .* 'vae', got 2 s"):
        plan_by_time("vae", 2.0, 0.1, None, first=True)
    assert plan_by_time("student", 2.0, 0.1, None, first=False).steps == 30  # not after hours


def test_steps_are_split():
    assert [plan_by_steps(stage, 1000, None).steps for stage in STAGES] == [250, 350, 150, 250]
    assert [plan_by_steps(stage, 4, None).steps for stage in STAGES] == [1, 1, 1, 1]


def test_warm_up_and_average_fit_a_short_run():
    training = with_steps(recipe_for("tiny").distill, StagePlan(100, True))
    assert (training.fit.steps, training.fit.warmup, training.fit.ema) == (100, 10, 0.9)
    assert training.compile
    long = with_steps(recipe_for("small").forced, StagePlan(100_000, False))
    assert (long.fit.warmup, long.fit.ema) == (100, 0.999)


def test_a_cut_log_still_tells_its_time(tmp_path):
    assert trained_seconds(tmp_path) == 0
    (tmp_path / "log.jsonl").write_text('{"seconds": 2.5}\n{"seconds": 1}\n[]\n{"seco')
    assert trained_seconds(tmp_path) == 3.5


def test_a_machine_that_others_use_gets_another_plan():
    plan = StagePlan(1000, False, 0.1, until=100.0)
    assert replanned(plan, 100, 0.1, 10.0) is None
    assert replanned(plan, 100, 0.12, 10.0) is None  # not by far
    assert replanned(plan, 100, 0.5, 50.0) == StagePlan(200, False, 0.5, until=100.0)
    assert replanned(plan, 100, 0.5, 500.0) == StagePlan(130, False, 0.5, until=100.0)
    assert replanned(plan, 100, 0.02, 10.0) == StagePlan(4600, False, 0.02, until=100.0)
    assert replanned(plan, 990, 0.5, 99.0) is None  # it is over in a moment
