"""The whole line on small real video: episodes, VAE, teacher, student, world folder, dream."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.measured_data import stored
from worldsim.core import ActionSpec, WorldError, row_keys
from worldsim.data import DatasetSpec, Episode
from worldsim.models.dit import DiTConfig
from worldsim.models.heads import HeadsConfig
from worldsim.models.vae import VAEConfig
from worldsim.presets import SIZES, Sizes
from worldsim.store.folder import load, save
from worldsim.train.distill import DistillationConfig
from worldsim.train.dynamics import DynamicsTrainingConfig
from worldsim.train.final import load_final
from worldsim.train.loop import CheckpointError, FitConfig
from worldsim.train.recipe import (
    assemble,
    fit_forced,
    fit_student,
    fit_teacher,
    fit_vae,
    new_dynamics,
    start_clips,
)
from worldsim.train.vae import VAETrainingConfig, moved_pixels
from worldsim.world.diffusion import DiffusionWorld, Sampling

SIZES_HERE = Sizes(
    vae=VAEConfig(channels=4, widths=(16, 16), blocks=(1, 1)),
    dit=DiTConfig(dim=32, depth=2, heads=2, kv_heads=1, mlp=2),
    heads=HeadsConfig(hidden=16),
    context=3,
)


def film(seed: int, chunks: int = 20) -> Episode:
    """A bright square that the action pushes left and right; reward where it ends up right."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, (chunks, 1)).astype(np.float32)
    frames = np.zeros((2 * chunks, 16, 16, 3), np.uint8)
    x, rewards = 8.0, np.zeros(chunks, np.float32)
    for t in range(2 * chunks):
        x = float(np.clip(x + 2 * actions[t // 2, 0], 2, 13))
        frames[t, 5:11, int(x) - 2 : int(x) + 3] = 255
        rewards[t // 2] += x > 8
    return Episode(
        name=f"film-{seed}", frames=frames, chunk=2, fps=20.0, actions=actions, rewards=rewards,
        truncated=True, seed=seed, policy="random",
    )  # fmt: skip


FILM = DatasetSpec(
    name="film", frame_shape=(16, 16, 3), fps=20.0, chunk=2, has_rewards=True,
    action=ActionSpec(kind="continuous", low=(-1.0,), high=(1.0,)),
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("film")
    return stored(folder, FILM, train=[film(seed) for seed in range(8)])


def recipe(steps: int) -> tuple[VAETrainingConfig, DynamicsTrainingConfig, DistillationConfig]:
    fit = FitConfig(steps=steps, batch=4, lr=2e-3, warmup=5, bf16=False)
    return (
        VAETrainingConfig(fit=fit),
        DynamicsTrainingConfig(fit=fit, targets=4, compile=False),
        DistillationConfig(fit=fit, targets=4, compile=False),
    )


def train_both(data, training: DynamicsTrainingConfig, run: Path):
    """Teacher forcing, then resampled context."""
    fit_forced(data, SIZES_HERE, training, run)
    return fit_teacher(data, SIZES_HERE, replace(training, resample=0.5), run)


def test_the_whole_line(data, tmp_path: Path):
    vae, dynamics, distill = recipe(3)
    fitted = fit_vae(data, SIZES_HERE, vae, tmp_path).state_dict()
    again = fit_vae(data, SIZES_HERE, vae, tmp_path).state_dict()  # it is not trained again
    assert all(torch.equal(fitted[k], again[k]) for k in fitted)
    with pytest.raises(WorldError, match="train it first: worldsim train"):
        fit_teacher(data, SIZES_HERE, dynamics, tmp_path)
    trained = train_both(data, dynamics, tmp_path).state_dict()
    final = load_final(new_dynamics(data, SIZES_HERE, seed=9), tmp_path / "teacher").state_dict()
    assert all(torch.equal(trained[k], final[k]) for k in trained)
    fit_student(data, SIZES_HERE, distill, tmp_path)
    world = assemble(data, SIZES_HERE, tmp_path, "film", clips=4, num_steps=3)
    save(world, tmp_path / "film", card={"figures": "none"})
    loaded = load(tmp_path / "film")
    assert loaded.config.sampling == Sampling(num_steps=3)
    state = loaded.reset(row_keys([1, 2]))
    for _ in range(5):
        state, prediction = loaded.step(state, torch.zeros(2, 1))
    assert loaded.decode(state).shape == (2, 2, 16, 16, 3)
    assert prediction.reward.isfinite().all()
    assert ((prediction.continue_prob >= 0) & (prediction.continue_prob <= 1)).all()


@pytest.mark.nightly
def test_training_lowers_every_loss(data, tmp_path: Path):
    """Each stage must be better at the end than at its start, by its own logged error."""
    import json

    vae, dynamics, distill = recipe(200)
    fit_vae(data, SIZES_HERE, vae, tmp_path)
    train_both(data, dynamics, tmp_path)
    fit_student(data, SIZES_HERE, replace(distill, fit=replace(distill.fit, steps=20)), tmp_path)
    for stage, share in (("vae", 0.3), ("forced", 0.8)):
        lines = (tmp_path / stage / "log.jsonl").read_text().splitlines()
        errors = [json.loads(line)["_mse"] for line in lines]
        assert np.mean(errors[-3:]) < share * errors[0], (stage, errors)


def test_a_line_that_begins_with_another_world(data, tmp_path: Path):
    """Both networks go on from that world's, and neither goes on from anything else."""
    vae, dynamics, distill = recipe(3)
    fit_vae(data, SIZES_HERE, vae, tmp_path / "a")
    fit_forced(data, SIZES_HERE, dynamics, tmp_path / "a")
    old = assemble(data, SIZES_HERE, tmp_path / "a", "film", stage="forced", clips=4)
    one = FitConfig(steps=1, batch=4, lr=1e-6, warmup=0, bf16=False)
    run, vae, distill = tmp_path / "b", replace(vae, fit=one), replace(distill, fit=one)
    went_on = fit_vae(data, SIZES_HERE, vae, run, old)
    student = fit_student(data, SIZES_HERE, distill, run, old)
    for ours, its in ((went_on, old.vae), (student, old.dynamics)):
        for mine, yours in zip(ours.parameters(), its.parameters(), strict=True):
            assert torch.allclose(mine, yours, atol=1e-4)
    with pytest.raises(CheckpointError, match="begin was"):
        fit_vae(data, SIZES_HERE, vae, run)
    other = copy.deepcopy(old.dynamics.requires_grad_(False))
    next(other.parameters()).add_(1)
    other = DiffusionWorld(old.config, old.vae, other, old.starts)
    with pytest.raises(CheckpointError, match="begin was"):
        fit_student(data, SIZES_HERE, distill, run, other)
    with pytest.raises(WorldError, match="begin: expected a world whose dit is"):
        fit_student(data, replace(SIZES_HERE, dit=DiTConfig(dim=64)), distill, run, old)


def test_moved_pixels():
    video = torch.zeros(1, 3, 4, 4, 3)
    video[:, 1, 0, 0, 1] = 0.3  # 0.15 of 0..1
    video[:, 2, 0, 0, 1] = 0.3
    video[:, 2, 1, 1, 2] = 0.1
    moved = moved_pixels(video, 0.1)
    assert moved.sum() == 1 and moved[0, 1, 0, 0]


@pytest.mark.parametrize("name", SIZES)
def test_presets_are_buildable(name: str):
    from worldsim.core import ActionSpec
    from worldsim.models.conditioning import ConditioningConfig
    from worldsim.models.dynamics import Dynamics
    from worldsim.models.vae import SpacetimeVAE

    sizes = SIZES[name]()
    with torch.device("meta"):
        SpacetimeVAE(sizes.vae)
        dynamics = Dynamics(
            sizes.dit,
            sizes.heads,
            sizes.vae.channels,
            ConditioningConfig(action=ActionSpec(kind="discrete", n=3)),
        )
    count = sum(p.numel() for p in dynamics.dit.parameters()) / 1e6
    low, high = {"tiny": (0.5, 1.5), "small": (4, 5.5), "medium": (20, 45), "base": (90, 150),
                 "xl": (400, 700)}[name]  # fmt: skip
    assert low < count < high


def test_dreams_begin_in_the_episodes_that_are_asked_for(data):
    """Each start is a clip of one of them, and a range that holds none is refused."""
    starts = start_clips(data, 3, 40, (2, 4))
    shown = [torch.from_numpy(film(i).frames) for i in (2, 3)]
    assert len(starts.frames) == 2
    for clip, frames in zip(starts.frames, shown, strict=True):
        assert any(torch.equal(clip, frames[t : t + 6]) for t in range(0, len(frames), 2))
    assert len(start_clips(data, 3, 40).frames) == 8
    with pytest.raises(WorldError, match=r"starts: expected training episodes of 3 chunks"):
        start_clips(data, 3, 40, (8, 9))
