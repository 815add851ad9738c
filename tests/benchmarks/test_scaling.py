"""The scaling law: its intervals, its order of events, and the page that shows it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import page, scaling, scaling_runs
from benchmarks import scaling_report as report
from benchmarks.scaling import Places, draw, read, train_all
from benchmarks.scaling_law import fit_law
from benchmarks.scaling_runs import Plan, exam, heldout_loss, runs
from tests.measured_data import SPEC, stored, stripes
from worldsim.core import WorldError
from worldsim.costs.flops import Networks, stages
from worldsim.data import Dataset, NativeDataset
from worldsim.diffusion.draws import Draws
from worldsim.diffusion.losses import chunk_error, ramp
from worldsim.diffusion.schedule import draw_levels
from worldsim.models.dit import DiTConfig
from worldsim.models.heads import HeadsConfig
from worldsim.models.vae import SpacetimeVAE, VAEConfig
from worldsim.presets import Sizes, small
from worldsim.store.tensors import save_tensors
from worldsim.train.recipe import Recipe, action_spec, new_dynamics

SIZES = Sizes(
    vae=VAEConfig(channels=4, widths=(16, 16), blocks=(1, 1)),
    dit=DiTConfig(dim=16, depth=2, heads=2, kv_heads=1, mlp=2),
    heads=HeadsConfig(hidden=8),
    context=2,
)
PLAN = Plan(
    sizes=SIZES, widths=(16, 24, 32), budgets=((1, 2, 4), (2, 4), (8,)), unit=1.5e7, batch=2,
    targets=2, warmup=2, compile=False, clips=3, horizons=(1, 2), passes=1,
)  # fmt: skip
KEYS = ["loss", "mse1", "mse2"]


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    first = {"train": 0, "val": 1000}
    episodes = {s: [stripes(n + i, 56) for i in range(2)] for s, n in first.items()}
    return stored(tmp_path / "data", SPEC, **episodes)


@pytest.fixture
def places(tmp_path: Path, data: Dataset) -> Places:
    torch.manual_seed(0)
    home = tmp_path / "home"
    (home / "vae").mkdir(parents=True)
    weights = {k: v.contiguous() for k, v in SpacetimeVAE(SIZES.vae).state_dict().items()}
    save_tensors(home / "vae/final.safetensors", weights)
    written = tmp_path / "page.md"
    written.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    return Places(
        data.folder, home, tmp_path / "out", tmp_path / "r.jsonl", written, tmp_path / "m"
    )


@pytest.mark.nightly
def test_steps_meet_the_budgets_and_flops_are_those_of_the_account(data: Dataset):
    plan = Plan(sizes=small(), widths=(80, 256), budgets=((1, 2), (32,)))
    every = list(runs(plan, data))
    assert [run.budget for run in every] == [1, 2, 32]
    for run in every:
        assert run.flops == pytest.approx(run.budget * plan.unit, rel=5e-3)
    networks = Networks(every[-1].sizes, (16, 24), action_spec(data))
    stage = stages(networks, replace(Recipe(), forced=every[-1].training))[1]
    assert every[-1].flops == stage.flops
    with pytest.raises(WorldError, match=r"unit: 1e\+10 FLOPs are \d+ steps .* the warm-up"):
        list(runs(replace(plan, unit=1e10), data))


def made_up(g: np.random.Generator, floor: float, tilt: float, scatter: float):
    """Nine runs of a known law and a tenth: compute, clips, errors."""
    flops = np.array([b for i in (1, 2, 4) for b in (i, 2 * i, 4 * i)] + [32.0])
    clips = flops / np.array([1, 1, 1, 2.5, 2.5, 2.5, 4.6, 4.6, 4.6, 9.6])
    above = 0.1 * flops**-0.4 * (flops / clips**2) ** -tilt
    return flops, clips, floor + above * np.exp(scatter * g.standard_normal(10))


def test_intervals_hold_what_they_promise():
    g, hits = np.random.default_rng(0), dict.fromkeys(("next", "floor", "b", "s"), 0)
    for _ in range(100):
        flops, clips, errors = made_up(g, 0.03, 0.05, 0.01)
        law = fit_law(flops[:9], clips[:9], errors[:9])
        told = {
            "next": (law.next_run(flops[9], clips[9]), errors[9]),
            "floor": (law.irreducible, 0.03),
            "b": (law.exponent, 0.4),
            "s": (law.tilt, 0.05),
        }
        for name, (interval, truth) in told.items():
            hits[name] += interval.low <= truth <= interval.high
    assert all(87 <= count <= 100 for count in hits.values()), hits
    assert law.floor_is_known and law.exponent.high - law.exponent.low < 0.4


def test_an_unknown_floor_widens_what_lies_far_away():
    flops, clips, errors = made_up(np.random.default_rng(1), 0.03, 0.0, 0.05)
    law = fit_law(flops[:9], clips[:9], errors[:9])
    near, far = law.next_run(32, 3.3), law.next_run(32e3, 3.3e3)
    assert not law.floor_is_known
    assert (far.high - far.low) / far.value > 3 * (near.high - near.low) / near.value
    assert law.mean(32, 3.3).high < near.high  # one run scatters, the law does not


def test_a_law_needs_runs_of_several_sizes():
    flops, clips, errors = made_up(np.random.default_rng(1), 0.03, 0.0, 0.05)
    with pytest.raises(WorldError, match="expected 5 or more"):
        fit_law(flops[:4], clips[:4], errors[:4])
    with pytest.raises(WorldError, match="several sizes and budgets"):
        fit_law(flops, flops, errors)


def test_the_loss_of_a_network_that_repeats_the_last_chunk(places: Places, data: Dataset):
    paper = exam(PLAN, data, places.home)
    model = new_dynamics(data, SIZES)  # untrained: its change to the chunk before is zero
    loss = heldout_loss(model, paper, SIZES.context)
    assert torch.equal(paper.episode, torch.tensor([0] * 3 + [1] * 3))
    latents = paper.latents.latents[paper.rows].float()
    level = draw_levels((6, 2), Draws(0, 0, range(6)))
    wanted = (ramp(level) * chunk_error(latents[:, :-1], latents[:, 1:])).mean(1)
    assert torch.allclose(loss, wanted) and loss.min() > 0
    with pytest.raises(WorldError, match="expected validation episodes"):
        exam(PLAN, data.split("train"), places.home)


@pytest.mark.nightly
def test_predict_then_train_then_draw(places: Places, monkeypatch: pytest.MonkeyPatch):
    measure, seen = scaling_runs.measure, []

    def killed_once(run, *more):
        seen.append(run.name)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return measure(run, *more)

    monkeypatch.setattr(scaling, "measure", killed_once)
    with pytest.raises(KeyboardInterrupt):
        train_all(PLAN, places)
    begun = places.results.read_text()
    assert [r["name"] for r in read(places.results)] == ["16-1x", "16-2x"]
    with pytest.raises(SystemExit, match="largest run is missing"):
        draw(PLAN, places)
    train_all(PLAN, places)  # goes on
    assert seen == ["16-1x", "16-2x", "16-4x", "16-4x", "24-2x", "24-4x", "32-8x"]
    whole = places.results.read_text()
    assert whole.startswith(begun)
    kinds = [(r["kind"], r["name"]) for r in read(places.results)]
    assert kinds[-2:] == [("prediction", "32-8x"), ("run", "32-8x")]
    prediction = read(places.results)[-2]
    assert prediction["from"] == [name for _, name in kinds[:-2]]
    assert all(prediction[k]["low"] < prediction[k]["value"] < prediction[k]["high"] for k in KEYS)
    assert {"hardware", "versions", "commit", "command", "date"} <= prediction["provenance"].keys()
    train_all(PLAN, places)  # nothing is left to do
    assert places.results.read_text() == whole
    with pytest.raises(WorldError, match="16-1x was made as"):
        train_all(replace(PLAN, lr=2e-3), places)
    check_drawn(places)


def check_drawn(places: Places) -> None:
    draw(PLAN, places)
    page, records = places.page.read_text(), read(places.results)
    assert page.startswith("before\n") and page.endswith("after\n") and "old" not in page
    assert report.report(records) in page
    for name in ("scaling.png", "scaling-strip.png"):
        assert np.asarray(Image.open(places.media / name)).std() > 5
    assert (places.media / "scaling.mp4").stat().st_size > 1000
    draw(PLAN, places)
    assert places.page.read_text() == page


def test_the_largest_run_is_not_trained_before_its_prediction(places: Places):
    (places.out / "32-8x").mkdir(parents=True)
    *_, last = runs(PLAN, NativeDataset(places.data))
    with pytest.raises(WorldError, match="expected nothing before the prediction"):
        scaling.predict_first(last, places)


def record(name: str, budget: int, loss: float, **more) -> dict:
    figures = {k: {"value": loss, "low": loss * 0.9, "high": loss * 1.1} for k in KEYS}
    width = int(name.split("-")[0])
    cost = {16: 1.0, 24: 2.5, 32: 4.6}[width]
    return {
        "kind": "run", "name": name, "budget": budget, "width": width, "parameters": 1e6,
        "steps": 10, "clips": budget / cost, "clip_flops": cost, "flops": float(budget),
        "seconds": 60.0, "still": {"mse1": 0.1, "mse2": 0.1}, **figures, **more,
    }  # fmt: skip


def test_a_miss_is_said():
    names = ["16-1x", "16-2x", "16-4x", "24-2x", "24-4x", "24-8x"]
    seen = [record(n, b, 0.2 * b**-0.5) for n, b in zip(names, (1, 2, 4, 2, 4, 8), strict=True)]
    prediction = record("32-32x", 32, 0.03) | {"kind": "prediction", "from": names}
    hit, miss = (report.report([*seen, prediction, record("32-32x", 32, x)]) for x in (0.031, 0.05))
    assert "**no**" not in hit and "lies within its predicted 95% interval in every" in hit
    assert miss.count("**no**") == 3 and "lies **outside** its predicted 95% interval" in miss
    assert "32 times the compute" in hit
    assert [r["name"] for r in report.shown([*seen, prediction, record("32-32x", 32, 0.03)])] == [
        "16-1x", "16-4x", "32-32x",
    ]  # fmt: skip


def test_the_page_shows_the_results(root: Path):
    places = Places()
    records = read(root / places.results)
    report.check_whole(records)
    assert report.report(records) in (root / places.page).read_text()
    assert [json.dumps(r["kind"]) for r in records].count('"prediction"') == 1
