import math

import pytest
import torch

from tests.reliability.nightly.noise import repeated_lanes, repeated_words
from worldsim.core import row_keys
from worldsim.diffusion.rng import hash_rows, normal_rows, philox, uniform_rows

ROWS = 4096


def keys(batch: int = ROWS, episode: int = 0) -> torch.Tensor:
    return row_keys(range(batch), episode)


def steps(batch: int = ROWS, age: int = 0) -> torch.Tensor:
    return torch.full((batch,), age)


def python_words(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 again, on Python's own numbers, as Salmon et al. 2011 write it."""
    for _ in range(10):
        p0, p1 = counter[0] * 0xD2511F53, counter[2] * 0xCD9E8D57
        counter = [
            p1 >> 32 ^ counter[1] ^ key[0], p1 & 0xFFFFFFFF,
            p0 >> 32 ^ counter[3] ^ key[1], p0 & 0xFFFFFFFF,
        ]  # fmt: skip
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return counter


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000",
         "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
         "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
         "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)  # fmt: skip
def test_the_published_answers(counter: str, key: str, words: str) -> None:
    """`philox4x32 10` of the authors' own known answers (Random123, tests/kat_vectors)."""

    def numbers(text: str) -> list[int]:
        return [int(word, 16) for word in text.split()]

    def tensors(text: str) -> tuple[torch.Tensor, ...]:
        return tuple(torch.tensor([[word]]) for word in numbers(text))

    found = philox(tensors(counter), tensors(key))  # type: ignore[arg-type]
    assert [word.item() for word in found] == numbers(words)
    assert python_words(numbers(counter), numbers(key)) == numbers(words)


@pytest.mark.parametrize(
    ("seed", "episode", "step", "draw"),
    [(0, 0, 0, 0), (1, 2, 3, 4), (2**63 - 1, 2**31, 10**6, 2**20), (-1, 0, 0, 0), (2**32, 1, 1, 1)],
)
def test_every_part_of_a_key_has_its_own_place(
    seed: int, episode: int, step: int, draw: int
) -> None:
    """No overflow of int64 anywhere: the same words come out of numbers without a size."""
    key, age = torch.tensor([[seed, episode]]), torch.tensor([step])
    expected = [
        python_words([lane, draw, step, episode], [seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF])
        for lane in range(3)
    ]
    word = hash_rows(key, age, draw).item()
    assert word % 2**64 == expected[0][0] + (expected[0][1] << 32)
    u = torch.tensor(expected).T.flatten() // 512  # their highest 23 bits
    torch.testing.assert_close(uniform_rows(key, age, draw, 12)[0], (u + 0.5) / 2**23)


def test_golden_numbers() -> None:
    """What a seed means never changes: saved states and published dreams depend on it."""
    noise = normal_rows(torch.tensor([[7, 1], [8, 1]]), torch.tensor([3, 3]), 2, (3,))
    expected = [[0.29068, 0.369093, -0.95616], [-1.282276, -0.807706, 1.28822]]
    torch.testing.assert_close(noise, torch.tensor(expected), atol=1e-5, rtol=0)


def test_no_word_repeats() -> None:
    """Random seeds, many steps; the whole count is a row of `make nightly`."""
    assert repeated_words(seeds=200, steps=1000) == 0


def test_no_lane_of_a_stream_is_another_s() -> None:
    """Blocks of neighbouring seeds, steps, draws and lanes: every word pair occurs once."""
    assert repeated_lanes(seeds=20, steps=20, draws=4, lanes=64) == 0


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
