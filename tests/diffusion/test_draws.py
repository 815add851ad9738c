"""Random numbers of training: a row's are its own, however the batch is split."""

import torch

from worldsim.diffusion.draws import Draws

ROWS, TOTAL = torch.arange(8), 8


def drawn(rows: torch.Tensor) -> list[torch.Tensor]:
    draws = Draws(3, 5, rows, TOTAL)
    shared = draws.shared.integers(1000, (1,))
    some = draws[1:].normal((len(rows) - 1, 3))
    shape = (len(rows), 5)
    return [draws.uniform(shape), draws.normal(shape), draws.integers(10, shape), shared, some]


def test_a_row_draws_the_same_wherever_it_lies():
    whole = drawn(ROWS)
    for rank in range(2):
        part, rows = drawn(ROWS[rank::2]), ROWS[rank::2]
        assert all(torch.equal(part[i], whole[i][rows]) for i in range(3))
        assert torch.equal(part[3], whole[3]) and torch.equal(part[4], whole[4][rows[1:] - 1])


def test_another_draw_row_step_or_seed_is_another_number():
    base = Draws(0, 0, ROWS)
    numbers = [base.normal((8, 4)), base.normal((8, 4)), Draws(0, 1, ROWS).normal((8, 4)),
               Draws(1, 0, ROWS).normal((8, 4))]  # fmt: skip
    assert len(torch.stack(numbers).unique()) == 4 * 8 * 4


def test_shares_are_of_the_whole_batch():
    ranks = [Draws(0, 0, ROWS[rank::3], TOTAL) for rank in range(3)]
    assert [d.first(0.5) for d in ranks] == [2, 1, 1] and [d.last(0.3) for d in ranks] == [1, 1, 0]


def test_numbers_are_of_their_kind():
    draws = Draws(0, 0, range(1000))
    assert abs(draws.normal((1000, 50)).std() - 1) < 0.02
    assert abs(draws.uniform((1000, 50)).mean() - 0.5) < 0.01
    counts = draws.integers(7, (1000, 70)).flatten().bincount()
    assert len(counts) == 7 and (counts / 10_000 - 1).abs().max() < 0.05
