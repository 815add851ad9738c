"""The rows of a CarRacing world's table: each figure where its answer is known."""

from dataclasses import replace

import pytest
import torch

from benchmarks.counterfactual import CONTROLS, STEPS, branch, counterfactual
from benchmarks.rows import RowsPlan, exploitability, kept, recipe_for, record, speeds
from tests.worlds import CAR, tiny_world
from worldsim.core import EnvironmentSpec, WorldError
from worldsim.evaluate.clips import Clips, Recorded, cut_clips
from worldsim.evaluate.probe import fit_probe
from worldsim.evaluate.sharpness import gradient_energy, sharpness
from worldsim.recipes.car_racing.settings import car_racing_state
from worldsim.recipes.mix import mix_of, told


def clips(frames: torch.Tensor) -> Clips:
    """Clips whose real frames (N, T, c, H, W, 3) are these."""
    count, steps = frames.shape[:2]
    none = torch.zeros(count, steps)
    return Clips(
        episode=torch.arange(count), context=frames[:, 0], context_actions=none[:, :1, None],
        context_known=none[:, :1].bool(), frames=frames, actions=none[..., None], rewards=none,
        ends=none.bool(), valid=~none.bool(), start=torch.arange(count),
        context_states=none[:, :1, None], states=none[..., None],
        text=torch.zeros(count, steps, 0, dtype=torch.int64),
    )  # fmt: skip


def test_gradient_energy_is_that_of_luminance() -> None:
    steps = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
    steps[:, :, 2:] = 90  # one edge of 90 in three columns of differences
    assert gradient_energy(steps).item() == pytest.approx(90**2 / 3, rel=1e-4)
    real = torch.randint(0, 256, (5, 16, 2, 8, 8, 3), dtype=torch.uint8)
    found = sharpness(real // 2 * 2, clips(real // 2 * 2))
    assert {k: v["value"] for k, v in found.items()} == {"1": 1, "16": 1}
    assert sharpness((real // 2), clips(real // 2 * 2))["16"]["value"] == pytest.approx(0.25)


def test_speeds_are_kept_or_lost() -> None:
    real = clips(torch.zeros(6, 60, 1, 8, 8, 3, dtype=torch.uint8))
    true = torch.tensor([20.0, 100.0] * 3)[:, None].expand(6, 60)
    halved = 60 + (true - 60) / 2
    found = kept(halved, true, ["slow", "fast"] * 3, real)
    assert found["difference"]["value"] == pytest.approx(0.5)
    assert found["slow"] == {"dreamt": 40.0, "real": 20.0}
    assert speeds(halved, true, real)["30"]["value"] == pytest.approx(0.75)
    rows = {"dreamer": {"dreamt_steps": 9, "gap": 30.0}, "clone": {"dreamt_steps": 0, "gap": 1.0}}
    assert exploitability({"policies": rows}) == {"dreamer": 30.0}


def test_a_probe_finds_what_latents_hold() -> None:
    g = torch.Generator().manual_seed(0)
    windows = torch.randn(400, 2, 2, 2, 2, generator=g)
    answers = (windows[:, 1] - windows[:, 0]).mean((1, 2, 3))[:, None] * 3 + 7
    probe = fit_probe(windows[:300], answers[:300], steps=100)
    error = (probe(windows[300:]) - answers[300:]).std() / answers.std()
    assert error < 0.7


@pytest.mark.nightly
def test_reality_is_played_again_from_any_moment(tmp_path) -> None:
    """Own actions give the recorded frames, and the controls do what they are called."""
    recipe = car_racing_state().seen(max_frames=80)
    who = recipe.policies[0]
    episode = recipe.record(1001, who)
    recorded = Recorded.of(episode, CAR, state=6)
    cut = cut_clips(recorded, 0, [30], 3, STEPS)
    assert cut is not None
    found = branch(recipe, [episode], cut)
    assert found.frames.shape == (1 + len(CONTROLS), 1, STEPS, 2, 56, 64, 3)
    assert torch.equal(found.frames[0], cut.frames)
    differ = [(found.frames[i] != found.frames[j]).any() for i in range(5) for j in range(i)]
    assert all(differ)
    with pytest.raises(ValueError, match="do not replay"):
        branch(recipe, [replace(episode, seed=1002)], cut)
    shown = counterfactual(tiny_world(size=(56, 64)), cut, found)
    assert set(shown["by control"]) == set(CONTROLS) and shown["effect"]["value"] > 0


def test_rows_are_of_car_racing(tmp_path) -> None:
    with pytest.raises(WorldError, match="expected one of CarRacing"):
        recipe_for(tiny_world(), 100)
    world = tiny_world(size=(56, 64))
    seen = EnvironmentSpec(id="CarRacing-v3", size=(56, 64), crop=(0, 84, 0, 96), warmup=2)
    world.config = replace(world.config, environment=seen)
    recipe = recipe_for(world, 16)
    assert (recipe.environment.size, recipe.environment.crop) == ((56, 64), (0, 84, 0, 96))
    data = record(recipe.seen(warmup=2), RowsPlan(tracks=1, fit=2, frames=16), tmp_path / "tracks")
    assert [len(data.split(name)) for name in ("train", "val")] == [2, 3]
    shares = mix_of(data.split("val"), {"speed": 5.0})
    assert shares["rows-slow"] == pytest.approx(1 / 3) and 0 < shares["speed > 5"] < 1
    assert "rows-fast 33.3%" in told(shares)
