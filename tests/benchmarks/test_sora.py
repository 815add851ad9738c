"""Every figure of the published analysis from its assumptions, and the page that shows it."""

from pathlib import Path

import pytest

from benchmarks.sora import Assumptions, DiTXL, Figure, counted_fully, figures, tables

FIGURES = {f.name: f for f in figures()}
FOLLOW = {
    "DiT-XL, parameters": 674_834_720,
    "DiT-XL, training FLOPs": 1.207e21,
    "DiT-XL, FLOPs an image": 131e12,
    "DiT-XL, crossover in images": 7.634e6,
    "Sora, latent frames": 180,
    "Sora, training, least": 1.08e25,
    "Sora, training, most": 2.7e25,
    "Sora, H100-months, least": 4211,
    "Sora, H100-months, most": 10528,
    "Sora, FLOPs a step": 2.8296e15,
    "Sora, minutes an H100-hour": 5.035,
    "Sora, crossover, least": 15.27e6,
}
DO_NOT = {
    "DiT-XL, FLOPs a step": (524.5e9, 524e9),
    "Sora, FLOPs a video": (707.4e15, 707.5e15),
    "Sora, crossover, most": (38.17e6, 38.14e6),
    "H100s for the creators": (124_583, 89_167),
    "H100s at the peak": (712_000, 720_000),
}


def test_nothing_is_left_out():
    assert FIGURES.keys() == FOLLOW.keys() | DO_NOT.keys()


@pytest.mark.parametrize("name", FOLLOW)
def test_what_follows(name: str):
    assert FIGURES[name].follows and FIGURES[name].instead is None
    assert FIGURES[name].ours == pytest.approx(FOLLOW[name], rel=1e-3)


@pytest.mark.parametrize("name", DO_NOT)
def test_what_does_not_follow_and_what_gives_it(name: str):
    figure, (ours, instead) = FIGURES[name], DO_NOT[name]
    assert not figure.follows and figure.instead is not None and figure.rounds(figure.instead)
    assert (figure.ours, figure.instead) == pytest.approx((ours, instead), rel=1e-3)


def test_rounding_is_to_the_digits_printed():
    assert Figure("", "7.6e6", 7.64e6, "").follows
    assert not Figure("", "7.6e6", 7.66e6, "").follows
    assert Figure("", "4211", 4211.4, "").follows and not Figure("", "4211", 4212, "").follows


def test_the_multiply_adds_of_dit():
    w = 1152
    block = 1024 * 12 * w**2 + 2 * 1024 * 1024 * w + 6 * w**2
    around = 1024 * (16 + 32) * w + (256 + w + 2 * w) * w
    assert DiTXL(depth=1).macs == block + around
    assert DiTXL(tokens=256).macs == pytest.approx(118.6e9, rel=1e-3)  # 256 x 256


def test_counted_fully():
    a, b = Assumptions(), Assumptions(flops_a_mac=2.0, utilisation=0.4)
    assert b.breakeven == a.breakeven  # ratios survive, counts of devices do not
    assert b.months == pytest.approx([5 * m for m in a.months])
    assert b.minutes_an_hour == pytest.approx(a.minutes_an_hour / 5)
    assert dict((n, f) for n, _, f in counted_fully())["Sora, H100-months"] == "21,057 to 52,641"
    assert DiTXL().full_attention(180, 30) == pytest.approx(8.58, rel=1e-3)


def test_the_page_shows_these_tables(root: Path):
    page = (root / "docs/explanation/costs.md").read_text()
    assert len(tables().splitlines()) > 20
    assert not [line for line in tables().splitlines() if line not in page]
