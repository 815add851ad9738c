"""Trust is fitted on dreams whose reality is known, and on nothing of the test split."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.evaluate.test_clips import recorded
from tests.measured_data import stored, stripes, stripes_data
from tests.world_folders import tiny_world
from worldsim.data import DatasetSpec
from worldsim.evaluate import calibrate as calibration
from worldsim.evaluate import horizon
from worldsim.evaluate import trust as trusted
from worldsim.evaluate.calibrate import CalibrationPlan, Watched, calibrate, clips_of
from worldsim.evaluate.clips import cut_clips
from worldsim.metrics import auroc, reliability
from worldsim.recipes.pendulum import pendulum
from worldsim.store.folder import load, save
from worldsim.world.uncertainty import FEATURES, Trust

PLAN = CalibrationPlan(starts=2, horizon=8, recoloured=2, frozen=3, turned=5, rows=8)


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
    counts = {"recorded": 8, "recoloured": 4, "frozen": 2, "turned": 2}
    assert world.calibrated and figures["clips"] == counts and figures["split"] == "val"
    again, _ = calibrate(tiny_world(), data, PLAN)
    saved = load(save(world, tmp_path / "world"))
    assert world.trust is not None and again.trust is not None and saved.trust is not None
    for name, value in world.trust.state_dict().items():
        assert torch.equal(value, again.trust.state_dict()[name]), name
        assert torch.equal(value, saved.trust.state_dict()[name]), f"{name} is rounded"


def test_a_world_of_garbage_is_not_trusted(data):
    """Untrained networks: whatever they dream, trust is low, and the bound is not theirs."""
    world, figures = calibrate(tiny_world(), data, PLAN)
    assert figures["above_persistence"]["value"] < 0
    assert figures["share_tracking"]["recorded"] < 0.05
    clips = clips_of(data.split("val"), world, 4, 3, 8)
    dreamt = horizon.dream(world, clips, clips.actions, 8, lambda _: None)
    assert dreamt.trust.max() < 0.1
    worse = tiny_world()
    worse.vae.std.mul_(10)
    assert calibrate(worse, data, PLAN)[1]["bound_psnr"] == figures["bound_psnr"]


def test_a_world_of_nan_is_not_trusted_either(data):
    broken = tiny_world()
    for value in broken.dynamics.dit.parameters():
        value.fill_(float("nan"))
    world, figures = calibrate(broken, data, PLAN)
    assert world.trust is not None and all(b.isfinite().all() for b in world.trust.buffers())
    assert math.isfinite(figures["bound_psnr"])


@pytest.mark.nightly
def test_a_good_world_is_trusted_while_it_tracks_reality(tmp_path):
    """The bundled pendulum on two pendulums nobody recorded before."""
    recipe = pendulum().seen(max_frames=80)
    episodes = [recipe.record(seed) for seed in (7001, 7002)]
    world = load("pendulum")
    spec = DatasetSpec(
        name="swung", frame_shape=(32, 32, 3), fps=world.spec.fps, chunk=2,
        action=world.spec.action, has_rewards=True,
    )  # fmt: skip
    data = stored(tmp_path / "data", spec, val=episodes)
    plan = CalibrationPlan(episodes=2, starts=8, horizon=16)
    again, figures = calibrate(world, data, plan)
    assert figures["above_persistence"]["low"] > 3
    clips = clips_of(data.split("val"), world, 2, 8, 16)
    for one in (world, again):  # as it is shipped, and fitted anew
        assert one.trust is not None
        dreamt = horizon.dream(one, clips, clips.actions, 16, lambda _: None)
        tracking = (dreamt.mse <= one.trust.bound).float()
        assert dreamt.trust[:, 0].mean() > 0.6 > 0.2 + dreamt.trust[:, -1].mean()
    assert abs(dreamt.trust.mean() - tracking.mean()) < 0.15  # of the one fitted to them


def test_clips_are_perturbed_as_they_say(data):
    clips = clips_of(data.split("val"), tiny_world(), 4, 2, 8)
    sets = calibration.perturbed(clips, PLAN, 0)
    still, painted, turned = (sets[name] for name in ("frozen", "recoloured", "turned"))
    assert (still.context == still.context[:, -1:]).all()
    assert torch.equal(still.frames, clips[torch.arange(2, 8, 3)].frames)
    assert torch.equal(turned.frames.flip(-3), clips[torch.arange(0, 8, 5)].frames)
    assert torch.equal(turned.context[:, 0, 0], clips.context[::5, 0, -1])
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


def test_the_regression_learns_what_can_be_learned_and_how_sure_it_may_be():
    """The odds of tracking reality hang on one sign among many: trust finds it, and the odds."""
    g = torch.Generator().manual_seed(0)
    world = tiny_world()
    features = torch.randn(60, 20, FEATURES, generator=g)
    odds = (1.5 * features[..., 3] - 1).sigmoid()
    mse = torch.where(torch.rand(60, 20, generator=g) < odds, 0.1, 1.0)
    whole = torch.ones(60, 20, dtype=torch.bool)
    seen = Watched(features, mse, torch.arange(20), torch.arange(60), whole)
    trust = Trust(world.spec)
    calibration.fit_regression(trust, [seen], 0.5)
    fresh = torch.randn(4000, FEATURES, generator=g)
    predicted = trust.judge(fresh).sigmoid()
    odds = (1.5 * fresh[:, 3] - 1).sigmoid()
    true = torch.rand(4000, generator=g) < odds
    assert auroc(predicted, true) > auroc(odds, true) - 0.02
    assert reliability(predicted, true).ece < 0.05


def test_the_safe_horizon_ends_where_copying_is_as_good():
    episode = torch.arange(12)
    g = torch.Generator().manual_seed(0)
    still = 0.02 + 0.002 * torch.rand(12, 6, generator=g)
    dreamt = still.clone()
    dreamt[:, :4] /= 2
    found = trusted.safe_horizon(dreamt, still, episode)
    assert found["steps"] == 4 and found["gap"]["low"] > 2.5
    assert trusted.safe_horizon(still * 2, still, episode)["steps"] == 0


def test_trust_of_real_steps_only():
    clip = cut_clips(recorded(5001, 20, terminated=True), 0, [16], 3, 8)
    assert clip is not None
    flat = torch.zeros(1, 8)
    trust, mse = trusted.real_steps(clip, horizon.Dreamt(flat, flat, flat, flat + 0.7, flat))
    assert len(trust) == len(mse) == int(clip.valid.sum()) < 8


def test_the_bound_is_of_the_recording_alone(data):
    clips = clips_of(data.split("val"), tiny_world(), 4, 3, 8)
    copied = horizon.persistence(clips)[:, 7].mean().item()
    assert trusted.bound_of(clips) == pytest.approx(min(copied, trusted.bound_of(clips)))
    still = replace(clips, frames=clips.context[:, None, None, -1].expand_as(clips.frames).clone())
    assert trusted.bound_of(still) == trusted.LEAST_BOUND
    other = still.frames[:, 0].roll(6, 0)
    apart = ((other.float() - still.frames[:, 0]) / 255).square().mean().item()
    jump = replace(still, frames=255 - still.frames)  # copying is worse than the half-way point
    assert trusted.bound_of(jump) == pytest.approx((1e-3 * apart) ** 0.5, rel=1e-3)


def test_figures_of_trust_with_known_answers():
    trust = torch.tensor([0.95, 0.95, 0.05, 0.05])
    mse = torch.tensor([0.001, 0.1, 0.1, 0.1])
    found = trusted.trust_figures(trust, mse, 0.01)
    assert found["tracking"] == 0.25 and found["auroc"] == pytest.approx(5 / 6)
    assert found["trusted_wrongly"] == 0.5 and found["distrusted_wrongly"] == 0
    assert found["ece"] == pytest.approx((0.45 + 0.05) / 2, abs=1e-6)
    assert found["mean"] == pytest.approx(0.5)
    bins = found["reliability"]
    assert bins["psnr"][0] == pytest.approx(10)
    assert bins["psnr"][9] == pytest.approx(12.97, abs=0.01)
    assert bins["count"] == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]
