"""The loop's promises: resume bit for bit, whole checkpoints, no step on a broken loss."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from worldsim.train.checkpoint import read_checkpoint, write_checkpoint
from worldsim.train.loop import (
    CheckpointError,
    FitConfig,
    Losses,
    Run,
    fit,
    learning_rate,
    train_step,
)
from worldsim.train.optim import Optimizer, hidden_matrices


def regression(net: nn.Module, ema: nn.Module, step: int, g: torch.Generator) -> Losses:
    x = torch.randn(8, 3, generator=g)
    return {"fit": ((net(x) - x.sum(-1, keepdim=True)) ** 2).mean(), "_seen": x.mean()}


def model() -> nn.Module:
    torch.manual_seed(0)
    blocks = nn.ModuleList([nn.Linear(16, 16)])
    return nn.Sequential(nn.Linear(3, 16), nn.SiLU(), Blocks(blocks), nn.Linear(16, 1))


class Blocks(nn.Module):
    """Repeated blocks, as a network has them."""

    def __init__(self, blocks: nn.ModuleList) -> None:
        super().__init__()
        self.blocks = blocks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


def config(**more) -> FitConfig:
    return FitConfig(**{"steps": 60, "lr": 1e-2, "warmup": 5, "bf16": False, **more})


def weights(net: nn.Module) -> list[torch.Tensor]:
    return list(net.state_dict().values())


@pytest.mark.parametrize("muon", [False, True])
def test_fit_learns(tmp_path: Path, muon: bool):
    net = fit(model(), regression, config(steps=400, ema=0.95, muon=muon), tmp_path)
    x = torch.randn(64, 3)
    assert ((net(x) - x.sum(-1, keepdim=True)) ** 2).mean() < 0.05


@pytest.mark.parametrize("muon", [False, True])
def test_a_killed_run_ends_in_the_same_bits(tmp_path: Path, muon: bool):
    short = config(steps=24, muon=muon, save_seconds=0.0)
    whole = fit(model(), regression, short, tmp_path / "whole")
    for stop in (1, 17):

        class Killed(BaseException):
            pass

        def dies(net, ema, step, g, stop=stop, killed=Killed):
            if step == stop:
                raise killed
            return regression(net, ema, step, g)

        folder = tmp_path / str(stop)
        with pytest.raises(Killed):
            fit(model(), dies, short, folder)
        resumed = fit(model(), regression, short, folder)
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
    with pytest.raises(CheckpointError, match="fit.lr was 0.01, is 0.02; use the same flags"):
        Run(tmp_path, model(), config(lr=2e-2))
    Run(tmp_path, model(), config(save_seconds=1.0))


def settings(**more) -> dict:
    return {"resample": 0.5, "compile": True, "data": "abc", **more}


def test_other_losses_or_data_do_not_resume(tmp_path: Path):
    run = Run(tmp_path, model(), config(), settings())
    train_step(run, regression)
    run.save()
    for other, words in (
        (settings(resample=0.0), "resample was 0.5, is 0.0"),
        (settings(data="abd"), "data was 'abc', is 'abd'"),
        (settings(anchor=1.0), "anchor was None, is 1.0"),
        (None, "resample was 0.5, is None"),
    ):
        net = model()
        with pytest.raises(CheckpointError, match=words):
            Run(tmp_path, net, config(), other)
        assert all(map(torch.equal, weights(net), weights(model())))
    assert Run(tmp_path, model(), config(), settings(compile=False)).step == 1


def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path: Path):
    run = Run(tmp_path, model(), config())
    run.save()
    wide = nn.Sequential(nn.Linear(3, 17), nn.SiLU(), nn.Linear(17, 1))
    before = [w.clone() for w in weights(wide)]
    with pytest.raises(CheckpointError, match="tensors of this model"):
        Run(tmp_path, wide, config())
    assert all(map(torch.equal, before, weights(wide)))
    whole = (tmp_path / "checkpoint").read_bytes()
    for data in (b"", whole[:-1]):
        (tmp_path / "checkpoint").write_bytes(data)
        with pytest.raises(CheckpointError, match="move it away to start anew"):
            Run(tmp_path, model(), config())


def test_one_flipped_bit_anywhere_is_refused(tmp_path: Path):
    run = Run(tmp_path, model(), config())
    train_step(run, regression)
    run.save()
    whole, path = (tmp_path / "checkpoint").read_bytes(), tmp_path / "checkpoint"
    for at in range(0, len(whole), max(1, len(whole) // 199)):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError):
            Run(tmp_path, model(), config())


def resealed(path: Path, step: int | None = None, **changed: torch.Tensor | None) -> None:
    """The checkpoint with another step and tensors, and the SHA-256 that belongs to them."""
    old, settings, tensors = read_checkpoint(path)
    tensors |= {k: v for k, v in changed.items() if v is not None}
    tensors = {k: v for k, v in tensors.items() if k not in changed or changed[k] is not None}
    write_checkpoint(path, old if step is None else step, settings, tensors)


def test_what_no_run_can_have_written_is_refused_before_the_model_changes(tmp_path: Path):
    run, path = Run(tmp_path, model(), config()), tmp_path / "checkpoint"
    train_step(run, regression)
    run.save()
    whole = path.read_bytes()
    moments = [f"optimizer.{name}" for name, _ in run.optimizer.tensors()]
    cases = {
        "optimiser's state after 1 steps, got none": {n: None for n in moments},
        "whole state": {moments[1]: None},
        "not finite": {"model.0.bias": torch.full((16,), float("nan"))},
        "step -1": {"step": -1},
        "ema.0.bias": {"ema.0.bias": torch.zeros(3)},
    }
    for words, change in cases.items():
        path.write_bytes(whole)
        resealed(path, **change)
        net = model()
        with pytest.raises(CheckpointError, match=words):
            Run(tmp_path, net, config())
        assert all(map(torch.equal, weights(net), weights(model())))


def test_a_bad_line_of_the_log_is_dropped(tmp_path: Path):
    run = Run(tmp_path, model(), config())
    train_step(run, regression)
    run.log(loss=1.0)
    run.save()
    bad = b'7\n{"step": null}\n{"time": 3}\n\xff\xfe\n[1]\n{"step": NaN}\n'
    with open(run.logged, "ab") as file:
        file.write(bad)
    assert Run(tmp_path, model(), config()).step == 1
    assert len(run.logged.read_text().splitlines()) == 1


def test_a_float64_default_changes_nothing(tmp_path: Path):
    first = fit(model(), regression, config(steps=5), tmp_path / "a")
    net = model()
    torch.set_default_dtype(torch.float64)
    try:
        second = fit(net, regression, config(steps=5), tmp_path / "b")
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, weights(first), weights(second)))


def test_a_resumed_log_has_every_step_once(tmp_path: Path):
    run = Run(tmp_path, model(), config())
    for step in range(1, 5):
        train_step(run, regression)
        run.log(loss=0.1 * step)
        if step == 2:
            run.save()
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 5, "lo')  # the kill came within a line
    assert Run(tmp_path, model(), config()).step == 2
    lines = [json.loads(x) for x in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]


def test_a_loss_that_is_not_finite_touches_nothing(tmp_path: Path):
    run = Run(tmp_path, model(), config())
    before = [w.clone() for w in weights(run.model)]

    def broken(net, ema, step, g):
        return {"fit": regression(net, ema, step, g)["fit"] * float("nan")}

    with pytest.raises(FloatingPointError, match="step 0"):
        train_step(run, broken)
    assert all(map(torch.equal, before, weights(run.model)))


def test_muon_is_torchs_and_narrow_only_where_that_is_fast(monkeypatch: pytest.MonkeyPatch):
    """The same update up to bfloat16's rounding."""
    nets = {}
    for dtype in ("float32", "bfloat16"):
        monkeypatch.setattr("worldsim.train.optim.fast_dtype", lambda _, d=dtype: d)
        nets[dtype] = net = model()
        optimizer = Optimizer(net, 1e-2, (0.9, 0.99), 0.01, muon=True)
        for step in range(3):
            for i, p in enumerate(net.parameters()):
                g = torch.Generator().manual_seed(7 * step + i)
                p.grad = torch.randn(p.shape, generator=g)
            optimizer.step(1e-2)
    ours, theirs = (hidden_matrices(nets[dtype]) for dtype in ("float32", "bfloat16"))
    for a, b, begun in zip(ours, theirs, hidden_matrices(model()), strict=True):
        assert 0 < (a - b).norm() < 0.02 * (a - begun).norm()


def test_muon_moves_the_matrices_inside_blocks_and_adamw_the_rest():
    net = model()
    assert [p.shape for p in hidden_matrices(net)] == [(16, 16)]
    before = {k: v.clone() for k, v in net.state_dict().items()}
    optimizer = Optimizer(net, 1e-2, (0.9, 0.99), 0.0, muon=True)
    sum((p**2).sum() + p.sum() for p in net.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step(1e-2)
    change = {k: v - before[k] for k, v in net.state_dict().items()}
    assert all(
        (abs(c.abs() - 1e-2) < 1e-4).all() for k, c in change.items() if "blocks.0.w" not in k
    )
    singular = torch.linalg.svdvals(change["2.blocks.0.weight"]) / (0.2 * 1e-2 * 4)
    assert 0.3 < singular.min() and singular.max() < 1.3  # orthogonal, as far as 5 iterations go
    assert all(p.grad is None for p in net.parameters())


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
