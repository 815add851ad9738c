"""R1: no two streams of noise share a word, and no two of their lanes do."""

from __future__ import annotations

import torch

from tests.reliability.nightly.rows import Outcome, Row, main
from worldsim.core import row_keys
from worldsim.diffusion.rng import hash_rows, philox

SEEDS = 1000


def repeated_words(seeds: int, steps: int) -> int:
    """How many 64-bit words occur twice among those of random `seeds` at their first `steps`."""
    seed = torch.randint(2**62, (seeds, 1), generator=torch.Generator().manual_seed(0))
    key = torch.cat([seed, torch.zeros_like(seed)], 1)
    words = torch.empty(steps, seeds, dtype=torch.int64)
    for step in range(steps):
        words[step] = hash_rows(key, torch.full((seeds,), step), 0)
    return _repeats(words)


def repeated_lanes(seeds: int, steps: int, draws: int, lanes: int) -> int:
    """How many pairs of words occur twice in the first blocks of neighbouring streams."""
    key, lane = row_keys(range(seeds)), torch.arange(lanes)[None]
    found = []
    for step in range(steps):
        for draw in range(draws):
            counter = (lane, *(torch.full((1, 1), x) for x in (draw, step, 0)))
            a, b, c, d = philox(counter, (key[:, :1], key[:, :1] >> 32))
            found += [a | b << 32, c | d << 32]
    return _repeats(torch.cat(found))


def _repeats(words: torch.Tensor) -> int:
    ordered = words.flatten().sort().values
    return int((ordered[1:] == ordered[:-1]).sum())


def words(count: int) -> Outcome:
    """`count` steps of 1,000 random seeds; the counts of repeats are figures too."""
    again = repeated_words(SEEDS, count)
    lanes = repeated_lanes(seeds=100, steps=max(count // 100, 1), draws=4, lanes=128)
    failures = [f"{n} repeated {what}" for n, what in ((again, "words"), (lanes, "lanes")) if n]
    figures = {"64-bit words": SEEDS * count, "repeated words": again, "repeated lanes": lanes}
    return Outcome(failures=failures, figures=figures)


ROWS = (
    Row(name="R1", promise="no two steps of 1,000 random seeds share a 64-bit word of noise",
        unit="steps", ci=100, full=10_000, attempt=words),
)  # fmt: skip

if __name__ == "__main__":
    main(ROWS)
