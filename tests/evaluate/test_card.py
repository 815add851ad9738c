"""The whole card: of any data, repeatable, honest about what it could not measure."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import fidelity as fidelity_command
from tests.evaluate.test_clips import recorded
from tests.measured_data import SPEC, stored, stripes, stripes_data
from tests.world_folders import tiny_world
from worldsim.collect.workers import Job
from worldsim.core import ActionSpec, WorldError
from worldsim.data import NativeDataset
from worldsim.data.sized import at_size
from worldsim.evaluate import card, evaluate, horizon, reconstruction
from worldsim.evaluate.describe import describe
from worldsim.evaluate.plan import EvaluationPlan, fitted_to_data, fitted_to_time
from worldsim.evaluate.report import _line, table
from worldsim.evaluate.report import _sizes as report_sizes
from worldsim.evaluate.sizes import by_size, unseen, world_at
from worldsim.evaluate.teacher import teacher_of
from worldsim.models.vae import to_bytes, to_float
from worldsim.recipes.recipe import Recipe
from worldsim.store.provenance import training_cost
from worldsim.store.tensors import save_tensors
from worldsim.world.diffusion import Sampling

PLAN = EvaluationPlan(
    starts=2, horizon=8, teacher_horizon=4, teacher_steps=2, action_steps=4, dreams=3,
    dream_steps=8, window=8,
)  # fmt: skip
STUDENT = Sampling()


@pytest.fixture
def data(tmp_path: Path) -> NativeDataset:
    return stripes_data(tmp_path)


def test_pieces_rebuild_what_the_whole_video_would(monkeypatch: pytest.MonkeyPatch):
    world, episode = tiny_world(), recorded(5000, 20)
    frames = episode.frames.flatten(0, 1)
    with torch.no_grad():
        whole = to_bytes(world.vae.decode(world.vae.encode(to_float(frames)[None])))[0]
    monkeypatch.setattr(reconstruction, "ROWS", 6)
    rebuilt = reconstruction.rebuild(world, episode)
    error = (whole.float() - frames.float()).div(255).square().reshape(20, -1).mean(1)
    assert torch.allclose(rebuilt.mse, error, rtol=1e-3)
    moved = (frames[1:].int() - frames[:-1].int()).abs().amax(-1) > 25.5
    pixels = (whole.float() - frames.float()).div(255).square().mean(-1)[1:][moved]
    assert rebuilt.moved_count == int(moved.sum()) > 0 and not rebuilt.places
    mean = rebuilt.moved_error / rebuilt.moved_count
    assert mean == pytest.approx(pixels.mean().item(), rel=1e-3)


def test_a_card_is_whole_and_repeats_itself(data: NativeDataset):
    world = tiny_world().with_sampling(STUDENT)
    cards = [evaluate(world, data, teacher=world, plan=PLAN) for _ in range(2)]
    figures = cards[0]["figures"]
    assert figures == cards[1]["figures"]
    assert json.loads(json.dumps(cards[0], allow_nan=False)) == cards[0]
    assert figures["horizon"]["clips"] == 6 and figures["teacher"]["clips"] == 3
    assert {len(c) for c in figures["horizon"]["psnr"].values()} == {8}
    assert figures["ends"]["count"] == 5  # one episode: its last start and four near its end
    assert figures["long"]["dreams"] == figures["long"]["finite"] == 3
    assert cards[0]["data"]["split"] == "test" and len(cards[0]["data"]["sha256"]) == 64
    names = [line["figure"] for line in cards[0]["lines"]]
    assert names[0] == "dream above persistence, 1 denoising step: next chunk"
    assert names[1] == "dream above persistence, 1 denoising step: horizon 8"
    assert names[2] == "VAE: test frames" and names[3].startswith("error, shuffled / true")
    assert "teacher (2 steps) minus 2-step student, horizon 1" in names
    assert set(cards[0]["not_measured"]) == {"trust", "policies"}
    assert "not measured: trust: unknown" in describe(cards[0])


def test_films_of_one_short_episode_have_a_card_that_says_what_it_lacks(tmp_path: Path):
    """No action, no reward, no end, no test split, another chunk: nothing of it is invented."""
    none = ActionSpec(kind="none")
    spec = replace(SPEC, action=none, has_rewards=False, chunk=2, name="film")
    film = replace(stripes(1, 9), actions=None, rewards=None, truncated=False)
    found = evaluate(tiny_world(action=none), stored(tmp_path, spec, train=[film]), quick=True)
    assert set(found["not_measured"]) >= {"actions", "reward", "end: F1", "long dreams", "trust"}
    assert found["figures"]["actions"] is None and found["figures"]["reward"] is None
    assert found["data"]["split"] == "train" and "horizon" in found["adapted"]
    assert len(found["figures"]["horizon"]["persistence"]) == 6  # 9 chunks less a context of 3
    assert not [x for x in found["lines"] if "reward" in x["figure"] or "shuffled" in x["figure"]]
    assert "less than asked: horizon" in describe(found)


def test_a_card_of_discrete_actions(tmp_path: Path):
    actions = ActionSpec(kind="multi_discrete", nvec=(3, 2))
    rng = np.random.default_rng(0)

    def acted(seed: int):
        return replace(stripes(seed, 20), actions=rng.integers(0, [3, 2], (20, 2)))

    data = stored(tmp_path, replace(SPEC, action=actions), test=[acted(i) for i in range(2)])
    found = evaluate(tiny_world(action=actions), data, plan=PLAN)
    assert found["figures"]["actions"]["4"]["value"] > 0
    assert found["figures"]["reward"]["steps"] == 8


def test_a_world_is_measured_in_the_steps_it_ships_with(
    data: NativeDataset, monkeypatch: pytest.MonkeyPatch
):
    """One and two denoising steps stand beside; whatever else is measured is of its own three."""
    steps: dict[int, int] = {}  # by the dreams' identity
    used, dream, reward_figures = [], horizon.dream, horizon.reward_figures

    def dreamt(world: Any, *given: Any) -> Any:
        found = dream(world, *given)
        steps[id(found)] = world.config.sampling.num_steps
        return found

    def figures(clips: Any, found: Any) -> Any:
        used.append(steps[id(found)])
        return reward_figures(clips, found)

    monkeypatch.setattr(horizon, "dream", dreamt)
    monkeypatch.setattr(horizon, "reward_figures", figures)
    found = evaluate(tiny_world().with_sampling(Sampling(num_steps=3)), data, plan=PLAN)
    assert list(found["figures"]["horizon"]["psnr"]) == ["1", "2", "3"] and used == [3]


def test_a_card_is_renewed_in_trust_and_ranking_alone(data: NativeDataset):
    world = tiny_world().with_sampling(STUDENT)
    first = evaluate(world, data, plan=PLAN)
    spoilt = json.loads(json.dumps(first))
    spoilt["figures"]["safe_horizon"] = {"steps": 99}
    pearson = {"value": 0.5, "low": 0.1, "high": 0.7}
    ranking = {"ranked": 9, "pearson": pearson, "mmrv": 12.0, "policies": {}}
    renewed = card.renew_trust(spoilt, world, data, policies=ranking)
    assert renewed["figures"].pop("policies") == {"ranked": 9, "pearson": pearson, "mmrv": 12.0}
    first["figures"].pop("policies")
    assert renewed["figures"] == first["figures"] and "policies" not in renewed["not_measured"]
    [line] = [x for x in renewed["lines"] if x["figure"].startswith("policies' returns")]
    assert line["passed"] is False and line["interval"] == [0.1, 0.7]


def test_figures_do_not_depend_on_the_batch(data: NativeDataset):
    world = tiny_world().with_sampling(STUDENT)
    some = replace(PLAN, num_steps=(), dreams=0)
    small, large = (evaluate(world, data, plan=replace(some, rows=n)) for n in (1, 6))
    pair = [x["figures"]["horizon"]["psnr"]["1"] for x in (small, large)]
    assert pair[0] == pytest.approx(pair[1], abs=1e-3)


def test_a_world_of_nan_fails_and_still_has_a_card(data: NativeDataset):
    world = tiny_world().with_sampling(STUDENT)
    for value in world.dynamics.dit.parameters():
        value.fill_(float("nan"))
    found = evaluate(world, data, plan=PLAN)
    assert found["figures"]["long"]["finite"] == 0
    [line] = [x for x in found["lines"] if x["figure"] == "long dreams: all finite"]
    assert line["passed"] is False
    json.dumps(found, allow_nan=False)


def test_a_plan_fits_the_data_and_the_time():
    spec, asked = tiny_world().spec, EvaluationPlan()
    fitted, why = fitted_to_data(asked, spec, [23, 40, 22])
    assert (fitted.episodes, fitted.horizon, fitted.window) == (3, 20, 40)
    assert set(why) == {"episodes", "horizon", "window"} and "20 steps" in why["horizon"]
    assert fitted_to_data(asked, spec, [400] * 50) == (asked, {})
    big = replace(spec, frame_shape=(512, 512, 3))
    assert fitted_to_data(asked, big, [400] * 50)[0].starts == 1
    quick = fitted_to_time(asked, 10.0, 1e-3)
    assert quick.row_steps <= 1e4 < asked.row_steps and quick.horizon >= 16
    least = fitted_to_time(asked, 0.0, 1.0)
    assert least.episodes == least.starts == least.horizon == 1 and least.dreams == 0
    with pytest.raises(WorldError, match="dream_steps: expected at least 4, got 3"):
        EvaluationPlan(dream_steps=3)


def test_other_data_are_refused(data: NativeDataset, tmp_path: Path):
    other = stored(tmp_path / "other", replace(SPEC, chunk=1), test=[
        replace(stripes(1, 20), chunk=1, frames=stripes(1, 20).frames[:20])])  # fmt: skip
    with pytest.raises(WorldError, match="chunk: expected 2 of the world tiny0, got 1"):
        evaluate(tiny_world(), other)
    short = stored(tmp_path / "short", SPEC, test=[stripes(1, 3)])
    with pytest.raises(WorldError, match="expected episodes of 4 chunks or more"):
        evaluate(tiny_world(), short)


def test_the_teacher_may_be_a_stage_of_a_run(tmp_path: Path):
    world, other = tiny_world(), tiny_world(1)
    (tmp_path / "teacher").mkdir()
    path = tmp_path / "teacher" / "final.safetensors"
    save_tensors(path, other.dynamics.state_dict())
    for source in (tmp_path, tmp_path / "teacher"):
        teacher = teacher_of(world, source, 5)
        assert teacher.config.sampling == Sampling(method="euler", num_steps=5)
        name, value = next(iter(teacher.dynamics.state_dict().items()))
        assert torch.equal(value, other.dynamics.state_dict()[name]) and teacher.vae is world.vae
    save_tensors(path, {"stray": torch.zeros(1)})
    with pytest.raises(WorldError, match="teacher: expected weights of the sizes of tiny0"):
        teacher_of(world, tmp_path, 5)


def test_lines_pass_and_fail_by_their_goals():
    line = _line("x", 2.0, 3.0)
    assert line["passed"] is False and _line("x", 2.0, 3.0, most=True)["passed"] is True
    assert _line("x", float("nan"), 3.0, most=True)["passed"] is False
    assert _line("x", 0.0, 0.0, above=True)["passed"] is False
    assert _line("x", 2.0, None)["passed"] is None
    assert table([line]).startswith("-  x  2  >= 3") and math.isfinite(line["value"])


def test_cost_leaves_out_pauses(tmp_path: Path):
    assert training_cost(None) == training_cost(tmp_path) == {}
    (tmp_path / "vae").mkdir()
    times = [100.0, 160.0, 5000.0, 5030.0]
    rows = [json.dumps({"step": 20 * i, "time": t}) for i, t in enumerate(times, 1)]
    (tmp_path / "vae" / "log.jsonl").write_text("\n".join(rows) + "\n")
    expected = {"stages": {"vae": {"seconds": 90.0, "steps": 80}}, "seconds": 90.0}
    assert training_cost(tmp_path) == expected


def test_the_bundled_worlds_test_tracks_are_recorded_only_where_there_is_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[tuple[Path, list[Job]]] = []
    monkeypatch.setattr(Recipe, "collect", lambda _, out, jobs: asked.append((out, jobs)))
    fidelity_command.record_tests("car-racing", tmp_path)
    fidelity_command.record_tests("another", tmp_path / "new")
    assert not asked
    fidelity_command.record_tests("car-racing", tmp_path / "new")
    [(out, jobs)] = asked
    assert out == tmp_path / "new"
    assert [(job.split, job.seed) for job in jobs] == [("test", s) for s in range(5000, 5050)]


def test_a_world_of_several_sizes_has_a_line_for_each(tmp_path: Path):
    """At those it was trained on and at one between; of a recording that is too small, none."""
    data = at_size(stripes_data(tmp_path), (16, 16)).split("test")
    world = world_at(tiny_world(), (16, 16))
    plan = replace(PLAN, episodes=2, horizon=2)

    def dream(name: str, clips: Any, actions: torch.Tensor, world: Any) -> horizon.Dreamt:
        assert name == "dreams at {}x{}".format(*clips.frames.shape[3:5])
        return horizon.dream(world, clips, actions, 8, lambda done: None)

    missing: dict[str, str] = {}
    assert by_size(world, data, plan, dream, missing) == []
    for trained in (((16, 16), (16, 24)), ((16, 16), (24, 24))):
        world.config = replace(world.config, sizes=trained)
        rows = by_size(world, data, plan, dream, missing)
        shown = [(tuple(row["size"]), row["trained"]) for row in rows]
        assert shown == ([((16, 16), True), ((16, 24), True)] if not missing else [])
    assert missing == {"sizes": "16 x 24 frames are smaller than those trained on"}
    assert unseen([(32, 32), (32, 48), (48, 32)], (56, 96)) == (40, 40)
    lines = [*report_sizes({"sizes": [{"size": [40, 40], "trained": False, "steps": 8, "psnr": 20.0,
                                       "persistence": 18.0, "above": interval()}]})]  # fmt: skip
    assert lines[0]["figure"] == "dream above persistence at 40 x 40, never trained on: horizon 8"
    assert lines[0]["passed"]


def interval() -> dict[str, float]:
    return {"value": 2.0, "low": 1.0, "high": 3.0}
