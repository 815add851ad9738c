"""The transfer benchmark: its ranking against hand values, and its lines read back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import transfer, transfer_drivers
from benchmarks.transfer import (  # fmt: skip
    MARKS,
    Scope,
    dream_returns,
    dreaming,
    mmrv,
    read,
    summary,
    table,
    write_table,
)
from benchmarks.transfer_drivers import Contestant, Sight, Timed, contestants, driver_of
from tests.worlds import tiny_world, with_doubts
from worldsim.agents.actor_critic import ActorCritic, AgentConfig
from worldsim.agents.planners import CEM, Plan
from worldsim.agents.training import save_agent
from worldsim.core import WorldError, row_keys

RANDOM, STRAIGHT = (Contestant(name=name, script=name) for name in ("random", "straight"))


def test_rank_violations_by_hand() -> None:
    assert mmrv([1, 2, 3], [10, 20, 30]) == 0
    # the dream puts the second before the third, which is 5 better in reality
    assert mmrv([1, 3, 2], [10, 20, 25]) == pytest.approx((0 + 5 + 5) / 3)
    assert mmrv([3, 2, 1], [10, 20, 30]) == pytest.approx((20 + 10 + 20) / 3)


def line(policy: str, track: int, where: str, value: float) -> dict[str, object]:
    return {"policy": policy, "track": track, "where": where, "return": value, "seconds": 2.0}


def test_the_table_holds_both_returns_their_gap_and_the_ranking() -> None:
    values = {"random": ([-30, -40], [-20, -30]), "straight": ([10, 30], [25, 45])}
    lines = [
        line(name, 5000 + i, where, value)
        for name, both in values.items()
        for where, found in zip(("real", "dream"), both, strict=True)
        for i, value in enumerate(found)
    ]
    found = summary([RANDOM, STRAIGHT], lines, 900)
    rows = found["policies"]
    assert rows["random"]["real"]["value"] == pytest.approx(-35)
    assert rows["random"]["gap"] == pytest.approx(10)
    assert rows["straight"]["gap"] == pytest.approx(15)
    assert rows["straight"]["real"]["low"] >= 10 and rows["straight"]["real"]["high"] <= 30
    assert found["ranked"] == 2 and found["mmrv"] == 0
    assert found["pearson"]["value"] == pytest.approx(1)
    assert found["pearson"]["low"] <= found["pearson"]["value"] + 1e-6
    assert "| random | -35 [" in table(found) and "Pearson 1.000" in table(found)


def test_a_torn_line_is_driven_again(tmp_path: Path) -> None:
    whole = json.dumps(line("random", 5000, "real", 1.0))
    (tmp_path / "lines").write_text(whole + "\n" + whole[:20])
    assert len(read(tmp_path / "lines")) == 1
    assert read(tmp_path / "none") == []


def test_who_drives_where() -> None:
    scope = Scope(tracks=4, spoilt_tracks=2, plan_tracks=1, dream_tracks=3)
    planner = Contestant(name="planner", script="plan")
    assert scope.real(RANDOM) == [5000, 5001, 5002, 5003]
    assert scope.real(Contestant(name="noisy", script="random", noise=0.1)) == [5000, 5001]
    assert scope.real(planner) == [5000] and scope.dreamt(planner) == []
    assert scope.dreamt(Contestant(name="expert", script="expert")) == []


def test_dreams_take_as_many_passes_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    world, passes = tiny_world(), []

    def dreamt(who: Contestant, dream: Any, starts: Any, steps: int) -> list[float]:
        passes.append(dream.config.sampling.num_steps)
        return [0.0]

    for name, of_transfer in {
        "load": lambda name: world, "compiled": lambda world: world, "dream_returns": dreamt,
        "track_starts": lambda *_: None,
    }.items():  # fmt: skip
        monkeypatch.setattr(transfer, name, of_transfer)
    for asked in (None, 5):
        scope = Scope(dream_tracks=1, passes=asked)
        transfer.dream_all([RANDOM], set(), "tiny", Path(), scope, lambda *_: None)
    assert passes == [world.config.sampling.num_steps, 5]


def test_the_planner_of_the_table_plans_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer_drivers, "compiled", lambda world: world)  # takes a minute
    world, passes = with_doubts(tiny_world()), []

    class Spy(CEM):
        def plan(self, world: Any, state: Any, **how: Any) -> Plan:
            passes.append(world.world.config.sampling.num_steps)
            assert world.world.trust is None  # fitted for the shipped passes alone
            return super().plan(world, state, **how)

    drive = transfer_drivers.planner(world)
    drive.planner = Spy(**vars(drive.planner))
    state = world.reset(row_keys([0]))
    actions = torch.cat([drive(state) for _ in range(transfer_drivers.EVERY + 1)])
    assert passes == 2 * [transfer_drivers.PASSES]
    assert actions.shape == (transfer_drivers.EVERY + 1, 3)
    assert actions[:, 1].max() < 0.6  # a light gas


def test_spoilt_actions_are_in_range_and_worse_on_purpose() -> None:
    actions = np.tile(np.array([0.5, 0.8, 0.1], np.float32), (1000, 1))
    rng = np.random.default_rng(0)
    slow = Contestant(name="slow", gas=0.5).spoil(actions, rng)
    np.testing.assert_allclose(slow[0], [0.5, 0.4, 0.1], atol=1e-6)
    noisy = Contestant(name="noisy", noise=0.2).spoil(actions, rng)
    assert noisy[:, 0].std() == pytest.approx(0.2, rel=0.15)
    assert (noisy >= [-1, 0, 0]).all() and (noisy <= 1).all()


def test_stages_of_the_agent_command_are_found(tmp_path: Path) -> None:
    world = tiny_world()
    agent = ActorCritic(world.spec, AgentConfig(width=8, hidden=16))
    save_agent(agent, tmp_path / "seed-0" / "clone" / "agent", seconds=3.0)
    save_agent(agent, tmp_path / "seed-0" / "dream" / "agent", dream_steps=8, seconds=5.0)
    rows = contestants((tmp_path / "seed-0",), plan=False)
    names = [row.name for row in rows]
    assert {"cloning, seed-0", "dream, seed-0", "random", "scripted driver"} <= set(names)
    assert len(rows) >= 8 and sum(row.spoilt for row in rows) == 5
    learnt = summary(rows, [line("dream, seed-0", 5000, "real", 1.0)], 900)["policies"]
    assert learnt["dream, seed-0"]["dreamt_steps"] == 8
    assert learnt["dream, seed-0"]["recorded_steps"] == 900
    assert learnt["random"]["recorded_steps"] == 0
    save_agent(agent, tmp_path / "seed-0" / "real" / "agent", real_steps=700)
    rows = contestants((tmp_path / "seed-0",), plan=False)
    practised = summary(rows, [line("real practice, seed-0", 5000, "real", 1.0)], 900)
    row = practised["policies"]["real practice, seed-0"]
    assert row["own_real_steps"] == 700 and row["recorded_steps"] == 0
    assert "| 700 |" in table(practised)


def test_what_dreaming_adds_is_told_track_by_track() -> None:
    """By hand: seeds are averaged first; tracks that one of them has not driven are left out."""
    returns = {
        "cloning, seed-0": [10, 20, 30, 1], "cloning, seed-1": [30, 40, 10],
        "cloning, then dream, seed-0": [20, 20, 40, 1],
        "cloning, then dream, seed-1": [50, 30, 20, 1],
        "cloning, seed-2": [900], "cloning, noise 0.2": [1, 1, 1],
    }  # fmt: skip
    lines = [
        line(name, 5000 + i, "real", value)
        for name, values in returns.items()
        for i, value in enumerate(values)
    ]
    lines.append(line("cloning, seed-0", 5000, "dream", 999.0))
    found = dreaming(lines)
    assert found is not None and found["seeds"] == ["seed-0", "seed-1"] and found["tracks"] == 3
    values = [found[k]["value"] for k in ("clones", "dreamt", "difference")]
    assert values == pytest.approx([70 / 3, 30, 20 / 3])
    assert found["better"] == 2 and found["better_by_seed"] == [2, 2]
    assert [x["value"] for x in found["by_seed"]] == pytest.approx([20 / 3, 20 / 3])
    assert "difference 7 [" in table(summary([RANDOM], lines, 900))
    assert dreaming(lines[:4]) is None


def test_a_decision_is_timed_and_told() -> None:
    timed = Timed(Sight())
    for _ in range(3):
        timed(np.zeros((2, 56, 64, 3), np.uint8))
    assert timed.decisions == 3 and timed.seconds > 0
    lines = [line("random", track, "real", 0.0) | {"decision": 0.02 * track} for track in (1, 3)]
    found = summary([RANDOM], lines, 900)
    assert found["policies"]["random"]["decision_seconds"] == pytest.approx(0.04)
    assert "| 2.0 | 40 |" in table(found)


def test_dream_returns_stop_counting_at_an_end() -> None:
    world = tiny_world()
    start = world.reset(row_keys([0, 1]))
    found = dream_returns(STRAIGHT, world, start, 3)
    action = torch.tensor([0.0, 0.1, 0.0]).expand(2, 3)
    state, total, alive = start, torch.zeros(2), torch.ones(2)
    for _ in range(3):
        state, said = world.step(state, action)
        total, alive = total + alive * said.reward, alive * said.continue_prob
    assert found == pytest.approx(total.tolist())


def test_the_driver_by_sight_keeps_its_wheel_where_there_is_no_road() -> None:
    grass = np.zeros((2, 56, 64, 3), np.uint8)
    grass[..., 1] = 200
    road = grass.copy()
    road[:, :, 40:60] = 105
    driver = driver_of(Contestant(name="sight", script="sight"), tiny_world(), None, 0)
    assert isinstance(driver, Sight)
    wheel = driver(road)[0]
    assert wheel > 0.05
    assert driver(grass)[0] == wheel
    driver.forget()
    assert driver(grass)[0] == 0


def test_the_table_goes_between_its_marks(tmp_path: Path) -> None:
    page, found = tmp_path / "page.md", summary([RANDOM], [line("random", 1, "real", 2.0)], 9)
    page.write_text(f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n")
    for _ in range(2):
        write_table(page, found)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert text.count(table(found)) == 1 and "old" not in text
    page.write_text("no marks")
    with pytest.raises(WorldError, match="page"):
        write_table(page, found)


PAGES = {
    "car-racing": "explanation/agents.md",
    "car-racing-panel": "reference/worlds/car-racing-panel.md",
}


@pytest.mark.parametrize("world", PAGES)
def test_a_page_says_what_its_result_says(world: str) -> None:
    root = Path(__file__).parents[2]
    found = json.loads((root / f"benchmarks/results/transfer-{world}.json").read_text())
    assert table(found) in (root / "docs" / PAGES[world]).read_text()
