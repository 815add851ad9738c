import math

import pytest
import torch

from worldsim.core import row_keys
from worldsim.diffusion.rng import hash_rows, normal_rows, uniform_rows

ROWS = 4096


def keys(batch: int = ROWS, episode: int = 0) -> torch.Tensor:
    return row_keys(range(batch), episode)


def steps(batch: int = ROWS, age: int = 0) -> torch.Tensor:
    return torch.full((batch,), age)


def python_word(seed: int, episode: int, step: int, draw: int) -> int:
    """The hash again, on Python's own numbers."""

    def mix(x: int) -> int:
        x ^= x >> 16
        x = x * 0x7FEB352D & 0xFFFFFFFF
        x ^= x >> 15
        x = x * 0x846CA68B & 0xFFFFFFFF
        return x ^ x >> 16

    word = 0x9E3779B9 ^ draw
    for part in (seed, seed >> 32, episode, step):
        word = mix((word * 0x2545F491 + (part & 0xFFFFFFFF)) & 0xFFFFFFFF)
    return word


@pytest.mark.parametrize(
    ("seed", "episode", "step", "draw"),
    [(0, 0, 0, 0), (1, 2, 3, 4), (2**63 - 1, 2**40, 10**6, 2**20), (-1, 0, 0, 0), (2**32, 1, 1, 1)],
)
def test_the_hash_is_that_of_whole_numbers(seed: int, episode: int, step: int, draw: int) -> None:
    """No overflow of int64 anywhere: the same word comes out of numbers without a size."""
    word = hash_rows(torch.tensor([[seed, episode]]), torch.tensor([step]), draw)
    assert word.item() == python_word(seed, episode, step, draw)
    assert 0 <= word.item() < 2**32


def test_golden_numbers() -> None:
    """What a seed means never changes: saved states and published dreams depend on it."""
    noise = normal_rows(torch.tensor([[7, 1], [8, 1]]), torch.tensor([3, 3]), 2, (3,))
    expected = [[0.81549, -1.492433, 2.067652], [-1.534723, 0.467433, 0.645306]]
    torch.testing.assert_close(noise, torch.tensor(expected), atol=1e-5, rtol=0)


def test_noise_is_standard_normal() -> None:
    noise = normal_rows(keys(), steps(), 0, (64,)).double()
    count = noise.numel()
    assert noise.dtype == torch.float64 and noise.isfinite().all()
    assert abs(noise.mean().item()) < 4 / math.sqrt(count)
    assert abs(noise.std().item() - 1) < 4 / math.sqrt(2 * count)
    assert abs((noise**3).mean().item()) < 4 * math.sqrt(15 / count)
    assert abs((noise**4).mean().item() - 3) < 4 * math.sqrt(96 / count)
    ordered = noise.flatten().sort().values  # Kolmogorov and Smirnov, at about 1 in 10,000
    ideal = torch.special.ndtr(ordered)
    rank = torch.arange(1, count + 1, dtype=torch.float64) / count
    assert (ideal - rank).abs().max().item() < 2.2 / math.sqrt(count)


def test_uniform_numbers_fill_the_open_interval() -> None:
    u = uniform_rows(keys(), steps(), 0, 64)
    assert 0 < u.min() < 1e-4 and 1 - 1e-4 < u.max() < 1
    counts = torch.histc(u, 256, 0, 1)
    expected = u.numel() / 256
    chi2 = ((counts - expected) ** 2 / expected).sum().item()
    assert abs(chi2 - 255) < 4 * math.sqrt(2 * 255)


@pytest.mark.parametrize("part", ["seed", "seed high", "episode", "step", "draw", "lane"])
def test_streams_do_not_resemble_each_other(part: str) -> None:
    """Neighbouring counters give noise without correlation, within 4 standard errors."""
    first = normal_rows(keys(), steps(), 0, (64,))
    second = {
        "seed": normal_rows(keys() + torch.tensor([1, 0]), steps(), 0, (64,)),
        "seed high": normal_rows(keys() + torch.tensor([2**32, 0]), steps(), 0, (64,)),
        "episode": normal_rows(keys(episode=1), steps(), 0, (64,)),
        "step": normal_rows(keys(), steps(age=1), 0, (64,)),
        "draw": normal_rows(keys(), steps(), 1, (64,)),
        "lane": first.roll(1, 1),
    }[part]
    for a, b in ((first, second), (first**2 - 1, second**2 - 1)):
        size = (a * b).mean() / (a.std() * b.std())
        assert abs(size.item()) < 4 / math.sqrt(a.numel())


def test_no_two_streams_are_equal() -> None:
    """Every stream of the first seeds, episodes, steps and draws starts elsewhere."""
    grid = torch.cartesian_prod(*[torch.arange(12)] * 3)
    noise = torch.cat([normal_rows(grid[:, :2], grid[:, 2], draw, (4,)) for draw in range(4)])
    assert len(noise.unique(dim=0)) == len(noise) == 4 * 12**3


def test_a_row_is_its_own() -> None:
    key, step = keys(64), torch.arange(64)
    whole = normal_rows(key, step, 0, (5, 3))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(whole[order], normal_rows(key[order], step[order], 0, (5, 3)))
    for row in (0, 17, 63):
        alone = normal_rows(key[[row]], step[[row]], 0, (5, 3))
        torch.testing.assert_close(alone[0], whole[row], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3, 5), (0,)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    noise = normal_rows(keys(3), steps(3), 0, shape)
    assert noise.shape == (3, *shape) and noise.dtype == torch.float32 and noise.isfinite().all()


def test_no_rows() -> None:
    assert normal_rows(keys(0), steps(0), 0, (4,)).shape == (0, 4)
