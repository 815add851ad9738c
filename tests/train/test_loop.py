"""The loop's promises: resume bit for bit, whole checkpoints, no step on a broken loss."""

from pathlib import Path

import pytest
import torch
from torch import nn

from worldsim.train.loop import FitConfig, Losses, Run, fit, learning_rate, train_step


def regression(net: nn.Module, ema: nn.Module, step: int, g: torch.Generator) -> Losses:
    x = torch.randn(8, 3, generator=g)
    return {"fit": ((net(x) - x.sum(-1, keepdim=True)) ** 2).mean(), "_seen": x.mean()}


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.Linear(16, 1))


def config(**more) -> FitConfig:
    return FitConfig(**{"steps": 60, "lr": 1e-2, "warmup": 5, "bf16": False, **more})


def weights(net: nn.Module) -> list[torch.Tensor]:
    return list(net.state_dict().values())


def test_fit_learns(tmp_path: Path):
    net = fit(model(), regression, config(steps=400, ema=0.95), tmp_path)
    x = torch.randn(64, 3)
    assert ((net(x) - x.sum(-1, keepdim=True)) ** 2).mean() < 0.05


def test_a_killed_run_ends_in_the_same_bits(tmp_path: Path):
    whole = fit(model(), regression, config(), tmp_path / "whole")
    for stop in (1, 17, 42):

        class Killed(BaseException):
            pass

        def dies(net, ema, step, g, stop=stop, killed=Killed):
            if step == stop:
                raise killed
            return regression(net, ema, step, g)

        folder = tmp_path / str(stop)
        with pytest.raises(Killed):
            fit(model(), dies, config(save_seconds=0.0), folder)
        resumed = fit(model(), regression, config(save_seconds=0.0), folder)
        assert all(map(torch.equal, weights(whole), weights(resumed)))


def test_a_save_that_fails_leaves_the_last_one(tmp_path: Path, monkeypatch):
    run = Run(tmp_path, model(), config())
    train_step(run, regression)
    run.save()
    before = (tmp_path / "checkpoint").read_bytes()
    train_step(run, regression)

    def full(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space"):
        run.save()
    assert (tmp_path / "checkpoint").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]
    assert Run(tmp_path, model(), config()).step == 1


def test_another_config_does_not_resume(tmp_path: Path):
    run = Run(tmp_path, model(), config())
    train_step(run, regression)
    run.save()
    with pytest.raises(ValueError, match="same flags to resume"):
        Run(tmp_path, model(), config(lr=2e-2))


def test_a_loss_that_is_not_finite_touches_nothing(tmp_path: Path):
    run = Run(tmp_path, model(), config())
    before = [w.clone() for w in weights(run.model)]

    def broken(net, ema, step, g):
        return {"fit": regression(net, ema, step, g)["fit"] * float("nan")}

    with pytest.raises(FloatingPointError, match="step 0"):
        train_step(run, broken)
    assert all(map(torch.equal, before, weights(run.model)))


def test_learning_rate_rises_then_falls():
    c = config(steps=100, warmup=10, lr=1.0)
    rates = [learning_rate(c, s) for s in range(101)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[9] == 1.0
    assert rates[9:] == sorted(rates[9:], reverse=True) and rates[-1] == pytest.approx(0.02)


def test_logged_figures_are_not_minimised(tmp_path: Path):
    def only_logged(net, ema, step, g):
        x = torch.ones(1, 3)
        return {"fit": 0 * net(x).sum(), "_big": net(x).sum()}

    run = Run(tmp_path, model(), config(weight_decay=0.0))
    before = [w.clone() for w in weights(run.model)]
    figures = train_step(run, only_logged)
    assert "_big" in figures
    assert all(map(torch.equal, before, weights(run.model)))
