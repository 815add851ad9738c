"""Samplers against a Gaussian, whose denoiser and distribution are known in closed form."""

import pytest
import torch
from torch import Tensor

from worldsim.diffusion.samplers import consistency, euler, heun
from worldsim.diffusion.schedule import corrupt, linear_levels

MEAN, STD, ROWS = 0.7, 0.4, 20_000


def posterior_mean(x: Tensor, level: Tensor) -> Tensor:
    """E[clean | (1 - t) clean + t noise = x] of clean ~ N(MEAN, STD^2)."""
    t = level[:, None]
    gain = (1 - t) * STD**2 / ((1 - t) ** 2 * STD**2 + t**2)
    return MEAN + gain * (x - (1 - t) * MEAN)


def path_end(x: Tensor, level: Tensor) -> Tensor:
    """The probability-flow ODE's end: the same quantile of the clean distribution."""
    t = level[:, None]
    spread = ((1 - t) ** 2 * STD**2 + t**2).sqrt()
    return MEAN + STD * (x - (1 - t) * MEAN) / spread


def noise() -> Tensor:
    return torch.randn(ROWS, 1, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("sampler", "steps"), [(euler, 200), (heun, 30)])
def test_solvers_follow_the_ode(sampler, steps):
    x = noise()
    sample = sampler(posterior_mean, x, linear_levels(steps))
    assert torch.allclose(sample, path_end(x, torch.ones(ROWS)), atol=0.02)


def test_heun_beats_euler_at_equal_steps():
    x = noise()
    true = path_end(x, torch.ones(ROWS))
    errors = [(s(posterior_mean, x, linear_levels(12)) - true).abs().mean() for s in (euler, heun)]
    assert errors[1] < errors[0] / 3


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_consistency_keeps_the_distribution(steps):
    def fresh(i: int) -> Tensor:
        return torch.randn(ROWS, 1, generator=torch.Generator().manual_seed(i))

    sample = consistency(path_end, noise(), linear_levels(steps)[:-1], fresh)
    assert abs(sample.mean() - MEAN) < 0.01
    assert abs(sample.std() - STD) < 0.01


def test_one_step_is_one_call():
    calls: list[float] = []

    def denoise(x: Tensor, level: Tensor) -> Tensor:
        calls.append(float(level[0]))
        return x

    consistency(denoise, noise(), linear_levels(1)[:-1], lambda i: noise())
    euler(denoise, noise(), linear_levels(4))
    assert calls == [1.0, 1.0, 0.75, 0.5, 0.25]


def test_corrupt_reaches_both_ends():
    clean, unit = torch.randn(3, 5, 2), torch.randn(3, 5, 2)
    level = torch.tensor([[0.0] * 5, [1.0] * 5, [0.25] * 5])
    x = corrupt(clean, unit, level)
    assert torch.equal(x[0], clean[0])
    assert torch.equal(x[1], unit[1])
    assert torch.allclose(x[2], 0.75 * clean[2] + 0.25 * unit[2])
