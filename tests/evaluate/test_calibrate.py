"""Trust is fitted on dreams whose reality is known, and on nothing of the test split."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.measured_data import SPEC, stripes, stripes_data
from tests.world_folders import tiny_world
from worldsim.core import WorldError
from worldsim.evaluate import calibrate as calibration
from worldsim.evaluate import trust as trusted
from worldsim.evaluate.calibrate import CalibrationPlan, Watched, calibrate, clips_of
from worldsim.evaluate.test_clips import cut_clips
from worldsim.metrics import auroc, reliability
from worldsim.store.folder import load, save
from worldsim.world.uncertainty import FEATURES, Trust

PLAN = CalibrationPlan(starts=2, horizon=8, recoloured=2, frozen=3, rows=8)


@pytest.fixture
def data(tmp_path: Path):
    first = {"train": 0, "val": 1000}
    return stripes_data(
        tmp_path, **{s: [stripes(n + i, 22) for i in range(4)] for s, n in first.items()}
    )


@pytest.mark.filterwarnings("ignore:.*no fidelity card")
def test_a_world_is_calibrated_from_training_and_validation_alone(data, tmp_path):
    for path in (tmp_path / "test").glob("*.npz"):
        path.unlink()
    world, figures = calibrate(tiny_world(), data, PLAN)
    assert world.calibrated and figures["clips"] == {"recorded": 8, "recoloured": 4, "frozen": 2}
    assert figures["other_psnr"] < figures["bound_psnr"] < max(99, figures["floor_psnr"])
    again, _ = calibrate(tiny_world(), data, PLAN)
    saved = load(save(world, tmp_path / "world"))
    assert world.trust is not None and again.trust is not None and saved.trust is not None
    for name, value in world.trust.state_dict().items():
        assert torch.equal(value, again.trust.state_dict()[name]), name
        assert torch.equal(value, saved.trust.state_dict()[name]), f"{name} is rounded"


def test_too_little_to_fit_on_is_named(data):
    with pytest.raises(WorldError, match="val episodes of"):
        calibrate(tiny_world(), data, replace(PLAN, horizon=99))


def test_clips_are_harmed_as_they_say(data):
    clips = clips_of(data, "val", 3, 4, 2, 8)
    sets = calibration.harmed(clips, 2, 3, 0)
    still, painted = sets["frozen"], sets["recoloured"]
    assert (still.context == still.context[:, -1:]).all()
    assert torch.equal(still.frames, clips[torch.arange(2, 8, 3)].frames)
    assert not torch.equal(painted.frames, clips[torch.arange(1, 8, 2)].frames)
    # one palette for what was before and what follows
    frames = torch.cat([painted.context[0], painted.frames[0].flatten(0, 1)]).flatten(0, -2)
    source = clips[torch.tensor([1])]
    real = torch.cat([source.context[0], source.frames[0].flatten(0, 1)]).flatten(0, -2)
    for colour in real.unique(dim=0)[:5]:
        assert frames[(real == colour).all(-1)].unique(dim=0).shape[0] == 1


def test_components_that_hardly_vary_are_not_blown_up(data):
    trust = calibration.fit_senses(tiny_world(), data)
    scales = trust.basis.norm(dim=0)  # one over each component's spread
    assert scales.max() <= scales.min() / calibration.LEAST_PART * 1.01
    assert scales.max() > 2 * scales.min()  # the others are scaled


def test_the_judge_learns_what_can_be_learned_and_says_how_sure_it_is():
    """The odds of tracking reality hang on one sign among many: trust finds it, and the odds."""
    g = torch.Generator().manual_seed(0)
    world = tiny_world()
    features = torch.randn(60, 20, FEATURES, generator=g)
    odds = (1.5 * features[..., 3] - 1).sigmoid()
    mse = torch.where(torch.rand(60, 20, generator=g) < odds, 0.1, 1.0)
    whole = torch.ones(60, 20, dtype=torch.bool)
    seen = Watched(features, mse, torch.arange(20), torch.arange(60), whole)
    trust = Trust(world.spec)
    calibration.fit_judge(trust, [seen], 0.5)
    fresh = torch.randn(4000, FEATURES, generator=g)
    said = trust.judge(fresh).sigmoid()
    odds = (1.5 * fresh[:, 3] - 1).sigmoid()
    true = torch.rand(4000, generator=g) < odds
    assert auroc(said, true) > auroc(odds, true) - 0.02
    assert reliability(said, true).ece < 0.05


def test_the_safe_horizon_ends_where_copying_is_as_good():
    episode = torch.arange(12)
    g = torch.Generator().manual_seed(0)
    still = 0.02 + 0.002 * torch.rand(12, 6, generator=g)
    dreamt = still.clone()
    dreamt[:, :4] /= 2
    found = trusted.safe_horizon(dreamt, still, episode)
    assert found["steps"] == 4 and found["gap"]["low"] > 2.5
    assert trusted.safe_horizon(still * 2, still, episode)["steps"] == 0


def test_trust_of_real_steps_only(data):
    clip = cut_clips(stripes(5001, 20, terminated=True), 0, [16], 3, 8, SPEC.action)
    assert clip is not None
    from worldsim.evaluate.horizon import Dreamt

    flat = torch.zeros(1, 8)
    said, mse = trusted.judged(clip, Dreamt(flat, flat, flat, flat + 0.7))
    assert len(said) == len(mse) == int(clip.valid.sum()) < 8


def test_figures_of_trust_with_known_answers():
    said = torch.tensor([0.95, 0.95, 0.05, 0.05])
    mse = torch.tensor([0.001, 0.1, 0.1, 0.1])
    found = trusted.trust_figures(said, mse, 0.01)
    assert found["tracking"] == 0.25 and found["auroc"] == pytest.approx(5 / 6)
    assert found["trusted_wrongly"] == 0.5 and found["distrusted_wrongly"] == 0
    assert found["ece"] == pytest.approx((0.45 + 0.05) / 2, abs=1e-6)
    bins = found["reliability"]
    assert bins["psnr"][0] == pytest.approx(10) and bins["psnr"][9] == pytest.approx(
        12.97, abs=0.01
    )
    assert bins["count"] == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]
