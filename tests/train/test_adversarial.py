"""What looks recorded to a discriminator does not average, and what decides it is checked."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.train.test_dynamics import WINDOW, fit, model, recording
from worldsim.core import WorldError, row_keys
from worldsim.data.latents import LatentRecording
from worldsim.diffusion.draws import Draws
from worldsim.train import adversarial
from worldsim.train.checkpoint import CheckpointError
from worldsim.train.distill import DistillationConfig, train_student
from worldsim.train.dynamics import draw_batch
from worldsim.train.loop import Run
from worldsim.world.config import Sampling
from worldsim.world.fill import Timeline, fill

PLAIN = {"targets": 5, "resample": 0.0, "damage": 0.0, "context_noise": 0.0, "compile": False}


def coins() -> LatentRecording:
    """Chunks whose places are 1 or -1, each for itself, whatever came before."""
    sides = torch.randint(2, (400, 2, 4, 1), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    return recording(sides.expand(-1, -1, -1, 4), torch.zeros(400, 1), 20)


def one_pass(data: LatentRecording, config: DistillationConfig, folder: Path) -> Tensor:
    """The last chunk of 32 clips, predicted in a single pass from noise."""
    student = train_student(data, model(), WINDOW, config, folder)
    batch = draw_batch(data, config, Draws(0, 0, range(32)))
    timeline = Timeline(batch.latents, [True] * 5 + [False], batch.conditions)
    return fill(student, timeline, Sampling(num_steps=1), WINDOW, row_keys(range(32)))[:, -1]


def test_a_student_of_one_pass_takes_sides_where_plain_training_answers_the_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adversarial, "BEGIN", 20)
    data, config = coins(), DistillationConfig(fit=fit(150), halvings=0, pure=0.8, **PLAIN)
    mean = one_pass(data, config, tmp_path / "plain").abs().mean()
    sides = one_pass(data, replace(config, adversarial=0.5), tmp_path / "sides").abs().mean()
    assert mean < 0.4 and sides > mean + 0.2


def test_a_killed_training_goes_on_with_its_discriminator(tmp_path: Path) -> None:
    """Bit for bit as one that was not; and with no other weight of the term."""

    def stop(run: Run, figures: dict[str, float]) -> None:
        if run.step == 3:
            run.save()
            raise KeyboardInterrupt

    data, config = coins(), DistillationConfig(fit=fit(6), adversarial=0.5, **PLAIN)
    whole = train_student(data, model(), WINDOW, config, tmp_path / "whole").state_dict()
    with pytest.raises(KeyboardInterrupt):
        train_student(data, model(), WINDOW, config, tmp_path / "killed", stop)
    with pytest.raises(CheckpointError, match="adversarial"):
        train_student(data, model(), WINDOW, replace(config, adversarial=0.1), tmp_path / "killed")
    again = train_student(data, model(), WINDOW, config, tmp_path / "killed").state_dict()
    assert all(torch.equal(again[name], x) for name, x in whole.items())


def test_a_weight_is_none_or_a_number() -> None:
    for weight in (-1.0, float("inf"), float("nan")):
        with pytest.raises(WorldError, match="adversarial: expected a weight from 0 up, got"):
            DistillationConfig(fit=fit(1), adversarial=weight)


def test_a_discriminator_is_named_by_the_seed_alone() -> None:
    network = model()

    def weights(seed: int) -> Tensor:
        found = adversarial.with_discriminator(network, 0.1, seed).state_dict()
        return found["discriminator.enter.weight"]

    first, before = weights(3), torch.manual_seed(7).get_state()
    assert torch.equal(weights(3), first) and not torch.equal(weights(4), first)
    assert torch.equal(torch.get_rng_state(), before)
