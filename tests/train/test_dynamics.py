"""A tiny network learns what it is given: one clip by heart, and which action led into a chunk."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from worldsim.core import ActionSpec, WorldError, row_keys
from worldsim.data.latents import LatentRecording
from worldsim.data.windows import Windows
from worldsim.diffusion.consistency import earlier_level
from worldsim.diffusion.draws import Draws
from worldsim.models.conditioning import ConditioningConfig
from worldsim.models.dit import DiTConfig
from worldsim.models.dynamics import Dynamics
from worldsim.models.heads import HeadsConfig
from worldsim.train import distill
from worldsim.train.distill import DistillationConfig, begun_by, train_student
from worldsim.train.dynamics import DynamicsTrainingConfig, draw_batch, train_dynamics
from worldsim.train.loop import FitConfig
from worldsim.world.config import Sampling
from worldsim.world.fill import Timeline, fill

PUSH = ActionSpec(kind="continuous", low=(-1.0,), high=(1.0,))
DIT = DiTConfig(dim=32, depth=2, heads=2, kv_heads=1, mlp=2, residual=False, patch=(1, 1))
WINDOW = 3


def model(dit: DiTConfig = DIT) -> Dynamics:
    torch.manual_seed(0)
    return Dynamics(dit, HeadsConfig(hidden=16), 4, ConditioningConfig(action=PUSH))


def fit(steps: int, batch: int = 16) -> FitConfig:
    return FitConfig(steps=steps, batch=batch, lr=3e-3, warmup=10, bf16=False, ema=0.95)


def training(steps: int, **more) -> DynamicsTrainingConfig:
    plain = {"context_noise": 0.0, "drop_action": 0.0, "compile": False, "targets": 6}
    return DynamicsTrainingConfig(fit=fit(steps), **{**plain, **more})


def recording(latents: Tensor, actions: Tensor, length: int) -> LatentRecording:
    zero = torch.zeros(len(latents))
    windows = Windows((length,) * (len(latents) // length))
    return LatentRecording(latents.half(), actions, zero, zero + 1, windows)


@pytest.mark.nightly
def test_one_clip_is_learnt_by_heart(tmp_path: Path) -> None:
    """And dreamt from its first chunks, from its last ones, and from both ends."""
    latents = torch.randn(7, 1, 2, 4, generator=torch.Generator().manual_seed(1))
    data = recording(latents, torch.zeros(7, 1), 7)
    config = replace(training(300, masked=0.5), fit=fit(300, batch=4))
    trained = train_dynamics(data, model(), WINDOW, config, tmp_path)
    said = draw_batch(data, training(1), Draws(0, 0, range(16))).conditions[:1]

    def dreamt(known: list[int]) -> Tensor:
        there = [p in known for p in range(7)]
        timeline = Timeline(latents[None].half().float(), there, said)
        found = fill(trained, timeline, Sampling(), WINDOW, row_keys([0]))[0]
        return ((found - latents) ** 2).mean((1, 2, 3))

    spread = latents.var()
    assert dreamt([0, 1, 2]).max() < 0.1 * spread
    assert dreamt([4, 5, 6])[1:].max() < 0.1 * spread  # chunk 0 is never asked for
    assert dreamt([0, 1, 6]).max() < 0.1 * spread


@pytest.mark.parametrize("shift", [0, pytest.param(1, marks=pytest.mark.nightly)])
def test_the_action_that_led_into_a_chunk_is_the_one_that_decides_it(
    tmp_path: Path, shift: int
) -> None:
    """A chunk too late it cannot be known."""
    g = torch.Generator().manual_seed(0)

    def pushed(shift: int) -> LatentRecording:
        actions = torch.rand(400, 1, generator=g) * 2 - 1
        latents = (1.5 * actions[:, :, None, None]).expand(400, 1, 1, 4).contiguous()
        return recording(latents, actions.roll(shift, 0), 40)

    config = training(120, targets=4)
    trained = train_dynamics(pushed(shift), model(), WINDOW, config, tmp_path)
    batch = draw_batch(pushed(shift), config, Draws(9, 0, range(16)))
    timeline = Timeline(batch.latents, [True] * 4 + [False], batch.conditions)
    found = fill(trained, timeline, Sampling(), WINDOW, row_keys(range(16)))
    error = ((found - batch.latents)[:, -1] ** 2).mean().item()
    assert error > 0.3 if shift else error < 0.05


def test_a_student_that_goes_on_begins_with_the_finest_levels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Coarse ones are plain regression, and would teach it to answer with a mean again."""
    asked: list[int] = []

    def levels(level: Tensor, halvings: Tensor) -> Tensor:
        asked.append(int(halvings.max()))
        return earlier_level(level, halvings)

    monkeypatch.setattr(distill, "earlier_level", levels)
    data = recording(torch.randn(40, 1, 2, 4), torch.zeros(40, 1), 20)
    config = DistillationConfig(fit=fit(1), targets=5, damage=0.0, compile=False, halvings=3)
    on = begun_by(config, Sampling(num_steps=2))
    teacher = begun_by(config, Sampling(method="euler"))
    for name, training in (("new", config), ("on", on), ("taught", teacher)):
        train_student(data, model(), WINDOW, training, tmp_path / name)
    assert asked == [0, 3, 0]


def test_a_student_is_trained_on_orders_too(tmp_path: Path) -> None:
    g = torch.Generator().manual_seed(0)
    data = recording(torch.randn(40, 1, 2, 4, generator=g), torch.rand(40, 1, generator=g), 20)
    config = DistillationConfig(
        fit=fit(4), targets=5, resample=0.0, damage=0.0, masked=1.0, compile=False
    )
    before = {k: v.clone() for k, v in model().state_dict().items()}
    student = train_student(data, model(replace(DIT)), WINDOW, config, tmp_path)
    after = student.state_dict()
    assert all(v.isfinite().all() for v in after.values())
    assert not torch.equal(after["dit.unpatchify.weight"], before["dit.unpatchify.weight"])
    with pytest.raises(WorldError, match="masked: expected a share from 0 to 1, got 1.5"):
        replace(config, masked=1.5)
