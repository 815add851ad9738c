"""The transfer benchmark: its ranking against hand values, and its lines read back."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.agents.test_deploy import ACTIONS, CART, PENDULUM, agent_of, world_of
from tests.kinds import KINDS
from tests.worlds import tiny_world, with_doubts
from worldsim.agents.planners import CEM, CategoricalCEM, Plan
from worldsim.agents.training import Spent, save_agent
from worldsim.benchmarks import transfer, transfer_policies
from worldsim.benchmarks.transfer import Scope, dream_returns, main
from worldsim.benchmarks.transfer_policies import Contestant, contestants, state_policy
from worldsim.benchmarks.transfer_table import (  # fmt: skip
    MARKS,
    dreaming,
    mmrv,
    read,
    summary,
    table,
    write_table,
)
from worldsim.core import EnvironmentSpec, WorldError, row_keys
from worldsim.recipes.frame_policies import SteerBySight
from worldsim.states import StateSpec
from worldsim.store.folder import save
from worldsim.world.diffusion import DiffusionWorld

RANDOM, CONSTANT = (Contestant(name=name, script=name) for name in ("random", "constant"))


def test_rank_violations_by_hand() -> None:
    assert mmrv([1, 2, 3], [10, 20, 30]) == 0
    # the dream puts the second before the third, which is 5 better in reality
    assert mmrv([1, 3, 2], [10, 20, 25]) == pytest.approx((0 + 5 + 5) / 3)
    assert mmrv([3, 2, 1], [10, 20, 30]) == pytest.approx((20 + 10 + 20) / 3)


def line(policy: str, track: int, where: str, value: float) -> dict[str, object]:
    return {"policy": policy, "track": track, "where": where, "return": value, "seconds": 2.0}


def test_the_table_holds_both_returns_their_gap_and_the_ranking() -> None:
    values = {"random": ([-30, -40], [-20, -30]), "constant": ([10, 30], [25, 45])}
    lines = [
        line(name, 5000 + i, where, value)
        for name, both in values.items()
        for where, found in zip(("real", "dream"), both, strict=True)
        for i, value in enumerate(found)
    ]
    found = summary([RANDOM, CONSTANT], lines, 900)
    rows = found["policies"]
    assert rows["random"]["real"]["value"] == pytest.approx(-35)
    assert rows["random"]["gap"] == pytest.approx(10)
    assert rows["constant"]["gap"] == pytest.approx(15)
    assert rows["constant"]["real"]["low"] >= 10 and rows["constant"]["real"]["high"] <= 30
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
    assert list(scope.real(RANDOM)) == [5000, 5001, 5002, 5003]
    assert list(scope.real(Contestant(name="noisy", script="random", noise=0.1))) == [5000, 5001]
    assert list(scope.real(planner)) == [5000] and not scope.dreamt(planner)
    assert not scope.dreamt(Contestant(name="expert", script="recipe:expert"))
    assert list(scope.dreamt(CONSTANT)) == [5000, 5001, 5002]


def test_dreams_take_as_many_steps_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    world, num_steps = world_of(PENDULUM), []

    def dreamt(who: Contestant, dream: Any, starts: Any, steps: int) -> list[float]:
        num_steps.append((dream.config.sampling.num_steps, steps))
        return [0.0]

    for name, of_transfer in {
        "load": lambda name: world, "compiled": lambda world: world, "dream_returns": dreamt,
        "real_starts": lambda *_: None,
    }.items():  # fmt: skip
        monkeypatch.setattr(transfer, name, of_transfer)
    for scope in (Scope(dream_tracks=1), Scope(dream_tracks=1, num_steps=5, steps=7)):
        transfer.dream_all([RANDOM], set(), "tiny", scope, lambda *_: None)
    assert num_steps == [(world.config.sampling.num_steps, 12), (5, 7)]


def test_dreams_begin_with_what_the_real_episode_felt() -> None:
    """A dream that has to guess its speed judges policies by another drive than the real one."""
    state = StateSpec(names=("x", "y", "turn"), mean=(0,) * 3, std=(1,) * 3, change=(1,) * 3)
    world = tiny_world(ACTIONS["Pendulum-v1"], state=state)
    shown = replace(PENDULUM, state=("observation",))
    world = DiffusionWorld(
        replace(world.config, environment=shown), world.vae, world.dynamics, world.starts
    )
    begun = transfer.real_starts(world, [3, 4], False)
    assert begun.states_known.all() and begun.states.shape == (2, world.spec.context, 3)
    assert torch.allclose(begun.states[..., :2].norm(dim=-1), torch.ones(2, 3))  # cosine and sine


def test_the_planner_of_the_table_plans_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer_policies, "compiled", lambda world: world)  # takes a minute
    world, passes = with_doubts(tiny_world()), []

    class Spy(CEM):
        def plan(self, world: Any, state: Any, **how: Any) -> Plan:
            passes.append(world.world.config.sampling.num_steps)
            assert world.world.trust is None  # fitted for the shipped passes alone
            return super().plan(world, state, **how)

    drive = transfer_policies.planner(world, transfer_policies.SEARCHES["CarRacing-v3"])
    drive.planner = Spy(**vars(drive.planner))
    state = world.reset(row_keys([0]))
    actions = torch.cat([drive(state) for _ in range(transfer_policies.EVERY + 1)])
    assert passes == 2 * [transfer_policies.NUM_STEPS]
    assert actions.shape == (transfer_policies.EVERY + 1, 3)
    assert actions[:, 1].max() < 0.6  # a light gas


def test_spoilt_actions_are_in_range_and_worse_on_purpose() -> None:
    car = tiny_world().spec.action
    actions = np.tile(np.array([0.5, 0.8, 0.1], np.float32), (1000, 1))
    rng = np.random.default_rng(0)
    slow = Contestant(name="slow", scale=0.5).spoil(car, actions, rng)
    np.testing.assert_allclose(slow[0], [0.25, 0.4, 0.05], atol=1e-6)
    noisy = Contestant(name="noisy", noise=0.2).spoil(car, actions, rng)
    assert noisy[:, 0].std() == pytest.approx(0.2, rel=0.15)
    assert (noisy >= [-1, 0, 0]).all() and (noisy <= 1).all()
    choices = np.full((1000,), 5)
    other = Contestant(name="noisy", noise=0.4).spoil(KINDS["discrete"], choices, rng)
    assert (other != 5).mean() == pytest.approx(0.3, abs=0.05) and other.min() == 3


@pytest.mark.parametrize("kind", KINDS)
def test_scripts_act_in_a_world_of_any_kind(kind: str) -> None:
    world: Any = tiny_world(KINDS[kind])
    for who in (RANDOM, CONSTANT, Contestant(name="noisy", script="random", noise=0.5)):
        actions = state_policy(who, world)(world.reset(row_keys([0, 1])))
        world.spec.action.check(actions, (2,))


def test_stages_of_the_agent_command_are_found(tmp_path: Path) -> None:
    world = world_of(PENDULUM)
    agent = agent_of(world)
    for stage, spent in {
        "clone": Spent(seconds=3.0), "dream": Spent(dream_steps=8), "real": Spent(real_steps=700)
    }.items():  # fmt: skip
        save_agent(agent, tmp_path / "seed-0" / stage / "agent", spent=spent)
    rows = contestants(world, (tmp_path / "seed-0",), plan=True)
    names = [row.name for row in rows]
    expected = {"cloning, seed-0", "dream, seed-0", "random", "constant", "planner",
                "swing, reads the simulator"}  # fmt: skip
    assert expected <= set(names) and sum(row.spoilt for row in rows) == 5
    lines = [line(name, 5000, "real", 1.0) for name in ("dream, seed-0", "real practice, seed-0")]
    found = summary(rows, lines, 900)
    learnt = found["policies"]
    assert learnt["dream, seed-0"]["dreamt_steps"] == 8
    assert learnt["dream, seed-0"]["recorded_steps"] == 900
    assert learnt["random"]["recorded_steps"] == 0
    row = learnt["real practice, seed-0"]
    assert row["own_real_steps"] == 700 and row["recorded_steps"] == 0
    assert "| 700 |" in table(found)


@pytest.mark.filterwarnings("ignore:.*no fidelity card")
@pytest.mark.parametrize("environment", [CART, pytest.param(PENDULUM, marks=pytest.mark.nightly)])
def test_the_command_plays_and_dreams_any_world(
    environment: EnvironmentSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (transfer, transfer_policies):
        monkeypatch.setattr(module, "compiled", lambda world: world)
    kind = CategoricalCEM if environment is CART else CEM
    quick = kind(horizon=1, candidates=4, elites=2, rounds=1)
    monkeypatch.setitem(transfer_policies.SEARCHES, environment.id, quick)
    folder = save(world_of(environment), tmp_path / "world")
    save_agent(agent_of(world_of(environment)), tmp_path / "seed-0" / "dream" / "agent")
    scope = Scope(tracks=1, spoilt_tracks=1, plan_tracks=1, dream_tracks=1, steps=3)
    options: dict[str, Any] = {"agents": (tmp_path / "seed-0",), "out": tmp_path / "lines.jsonl"}
    for _ in range(2):  # the second time nothing is left to do
        main(str(folder), scope=scope, **options)
    lines = read(tmp_path / "lines.jsonl")
    found = json.loads((tmp_path / "lines.json").read_text())
    assert len(lines) == len({(x["policy"], x["where"]) for x in lines})
    assert found["ranked"] >= 5 and "decision" in lines[-1]
    with pytest.raises(WorldError, match="made of video that names no environment"):
        main(str(save(tiny_world(), tmp_path / "film")), out=tmp_path / "none.jsonl")


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


def test_seconds_a_decision_are_told() -> None:
    lines = [line("random", track, "real", 0.0) | {"decision": 0.02 * track} for track in (1, 3)]
    found = summary([RANDOM], lines, 900)
    assert found["policies"]["random"]["decision_seconds"] == pytest.approx(0.04)
    assert "| 2.0 | 40 |" in table(found)


def test_dream_returns_stop_counting_at_an_end() -> None:
    world = tiny_world()
    start = world.reset(row_keys([0, 1]))
    found = dream_returns(CONSTANT, world, start, 3)
    action = torch.zeros(2, 3)
    state, total, alive = start, torch.zeros(2), torch.ones(2)
    for _ in range(3):
        state, prediction = world.step(state, action)
        total, alive = total + alive * prediction.reward, alive * prediction.continue_prob
    assert found == pytest.approx(total.tolist())


def test_the_driver_by_sight_keeps_its_wheel_where_there_is_no_road() -> None:
    grass = np.zeros((2, 56, 64, 3), np.uint8)
    grass[..., 1] = 200
    road = grass.copy()
    road[:, :, 40:60] = 105
    steer = SteerBySight()
    wheel = steer(torch.from_numpy(road[-1:]))[0, 0]
    assert wheel > 0.05 and steer(torch.from_numpy(grass[-1:]))[0, 0] == wheel


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
    "car-racing-state": "reference/worlds/car-racing-state.md",
}


@pytest.mark.parametrize("world", PAGES)
def test_a_page_says_what_its_result_says(world: str) -> None:
    root = Path(__file__).parents[2]
    found = json.loads((root / f"benchmarks/results/transfer-{world}.json").read_text())
    assert table(found) in (root / "docs" / PAGES[world]).read_text()
