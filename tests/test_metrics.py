import math

import pytest
import torch
from torch import Tensor

from worldsim import metrics
from worldsim.metrics import bootstrap, confusion, crossings, match_crossings, weighted_mean


def flat(value: int, count: int = 1) -> Tensor:
    return torch.full((count, 4, 6, 3), value, dtype=torch.uint8)


def test_squared_error_and_psnr_of_known_frames():
    error = metrics.squared_error(flat(0), flat(51))  # a fifth of the range, both ways
    assert error.shape == (1, 4, 6) and torch.allclose(error, torch.tensor(0.04))
    assert torch.equal(error, metrics.squared_error(flat(51), flat(0)))
    assert metrics.psnr(torch.tensor([0.01, 0.001])).tolist() == pytest.approx([20, 30])
    assert metrics.psnr(torch.zeros(1)).item() == metrics.BEST_PSNR


def test_squared_error_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"frames: expected \(2, 4, 6, 3\), got \(1, 4, 6, 3\)"):
        metrics.squared_error(flat(0), flat(0, 2))


def test_moved_looks_at_the_largest_channel():
    before, after = flat(100), flat(100)
    after[0, 1, 2, 1] += 26  # just above a tenth of 255
    after[0, 3, 3, 1] += 25
    after[0, 0, 0, 2] -= 30
    expected = torch.zeros(1, 4, 6, dtype=torch.bool)
    expected[0, 1, 2] = expected[0, 0, 0] = True
    assert torch.equal(metrics.moved(after, before), expected)


def test_weighted_mean_counts_rows():
    values = torch.tensor([[1.0, 10.0], [3.0, 20.0]])
    weights = torch.tensor([[1.0, 1.0], [0.0, 2.0], [0.0, 0.0]])
    found = weighted_mean(values, weights)
    assert found[:2].tolist() == [[2, 15], [3, 20]] and bool(found[2].isnan().all())


def test_pearson_agrees_with_torch_and_refuses_flat_rows():
    generator = torch.Generator().manual_seed(0)
    a, noise = torch.randn(2, 200, generator=generator)
    b = a + 0.5 * noise
    once = torch.ones(1, 200)
    expected = torch.corrcoef(torch.stack([a, b]))[0, 1].item()
    assert metrics.pearson(a, b, once).item() == pytest.approx(expected, abs=1e-5)
    assert metrics.pearson(a, -3 * a + 7, once).item() == pytest.approx(-1, abs=1e-6)
    assert metrics.pearson(a, torch.full((200,), 0.1), once).isnan().all()
    twice = torch.cat([once, once], 1)
    twice[:, 200:] = 0  # rows without weight do not exist
    padded = metrics.pearson(torch.cat([a, b * 9]), torch.cat([b, a]), twice)
    assert padded.item() == pytest.approx(expected, abs=1e-5)


def test_bootstrap_covers_the_mean_of_clusters():
    """Rows that repeat within an episode carry no further knowledge: the interval must know."""
    generator = torch.Generator().manual_seed(1)
    of_episode = torch.randn(40, generator=generator)
    values, clusters = of_episode.repeat_interleave(25), torch.arange(40).repeat_interleave(25)

    def mean(weights: Tensor) -> Tensor:
        return weighted_mean(values, weights)

    clustered, naive = bootstrap(mean, clusters), bootstrap(mean, torch.arange(1000))
    spread = 1.96 * of_episode.std().item() / math.sqrt(40)
    assert clustered.value == pytest.approx(of_episode.mean().item(), abs=1e-6)
    assert (clustered.high - clustered.low) / 2 == pytest.approx(spread, rel=0.2)
    assert (naive.high - naive.low) < 0.4 * (clustered.high - clustered.low)
    assert bootstrap(mean, clusters) == clustered


def test_confusion_counts_where_asked():
    said = torch.tensor([True, True, False, False, True])
    true = torch.tensor([True, False, True, False, True])
    counted = torch.tensor([True, True, True, True, False])
    found = confusion(said, true, counted)
    assert (found.hits, found.false, found.missed, found.quiet) == (1, 1, 1, 1)
    assert found.f1 == 0.5 and found.false_rate == 0.5
    silent = confusion(said & False, true & False, counted)
    assert math.isnan(silent.f1) and silent.false_rate == 0


def test_crossings_are_sub_pixel():
    ramp = torch.tensor([[-3.0, -1.0, 3.0, 3.0, -1.0]])
    found = crossings(ramp)
    assert found.position[0].nan_to_num(-1).tolist() == pytest.approx([-1, 1.25, -1, 3.75])
    assert found.rises[0, 1] and not found.rises[0, 3]


@pytest.mark.parametrize("shift", [0.0, 0.3, -0.7])
def test_matching_measures_a_shift(shift: float):
    column = torch.arange(32.0)
    road = (column - 10).clamp(-1, 1) * (22 - column).clamp(-1, 1)
    moved = (column - 10 - shift).clamp(-1, 1) * (22 + shift - column).clamp(-1, 1)
    distance = match_crossings(crossings(road[None]), crossings(moved[None]), reach=4)
    assert distance.tolist() == pytest.approx([abs(shift)] * 2, abs=1e-5)


def test_matching_wants_the_same_direction_line_and_reach():
    up = torch.tensor([[-1.0, 1, 1, 1], [1, 1, 1, 1]])
    down = torch.tensor([[1.0, -1, -1, -1], [-1, 1, 1, 1]])  # the other way, and another line
    assert match_crossings(crossings(up), crossings(down), reach=4).tolist() == [math.inf]
    late = torch.tensor([[-1.0, -1, -1, 1], [1, 1, 1, 1]])
    assert match_crossings(crossings(up), crossings(late), reach=1.5).tolist() == [math.inf]
    assert match_crossings(crossings(up), crossings(late), reach=2.5).tolist() == [2]
