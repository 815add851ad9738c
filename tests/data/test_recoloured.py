"""A recording in other colours: what is where stays, how it looks does not."""

from pathlib import Path

import numpy as np
import pytest

from tests.data.contracts import check_dataset
from tests.measured_data import stripes, stripes_data
from worldsim.data.recoloured import STRETCH, RecolouredDataset, RecolouredFrames, recolour, smooth
from worldsim.data.view import WithoutActions


def halves(frames: int) -> np.ndarray:
    """A dark left half and a bright right one."""
    picture = np.zeros((frames, 16, 16, 3), np.uint8)
    picture[:, :, :8], picture[:, :, 8:] = (30, 60, 20), (200, 180, 190)
    return picture


def test_a_view_keeps_what_a_reader_promises(tmp_path: Path):
    data = stripes_data(tmp_path, train=[stripes(1, 6), stripes(2, 9)])
    other = RecolouredDataset(WithoutActions(data))
    check_dataset(other)
    assert isinstance(other.split("train"), RecolouredDataset)
    assert other.fingerprint() not in (data.fingerprint(), other.data.fingerprint())
    assert other.episode(1).name == data.episode(1).name


def test_shapes_stay_and_colours_do_not():
    frames, rng = halves(3), np.random.default_rng(0)
    darker, flat, colours = 0, 0, []
    for _ in range(40):
        out = recolour(frames, rng)
        assert (out == out[:1]).all(), "alike in all frames"
        left, right = out[0, 0, 0].astype(int), out[0, 0, 8].astype(int)
        if all((side == side[:1, :1]).all() for side in (out[0, :, :8], out[0, :, 8:])):
            flat += 1
            assert np.abs(left - right).max() > 3, "the border is still seen"
        darker += left.sum() < right.sum()
        colours.append(left)
    assert 20 < darker < 40, "light may become dark, in half of the draws"
    assert 10 < flat < 30, "in half of the draws colours are others from place to place"
    assert np.std(colours, 0).min() > 25


@pytest.mark.parametrize("value", [0, 255])
def test_a_frame_of_one_colour_has_one(value: int):
    out = recolour(np.full((2, 8, 8, 3), value, np.uint8), np.random.default_rng(1))
    assert (out == out[0, 0, 0]).all()


def test_any_span_reads_the_same_and_every_stretch_has_its_colours():
    span = 2 * STRETCH
    other = RecolouredFrames(halves(3 * span), "one", span)
    whole = other[0 : len(other)]
    for start, stop in ((0, 5), (span - 3, span + 4), (7, 3 * span)):
        assert np.array_equal(other[start:stop], whole[start:stop])
    assert (whole[:span] == whole[0]).all(), "light that stands still stays"
    assert len({tuple(whole[i * span, 0, 0]) for i in range(3)}) == 3
    assert not np.array_equal(RecolouredFrames(halves(4), "two", span)[0:4], whole[:4])


def test_a_field_is_smooth_and_of_about_unit_variance():
    fields = np.stack([smooth(np.random.default_rng(i), 40, 48) for i in range(300)])
    assert fields.shape == (300, 40, 48, 1) and 0.8 < fields.var(0).mean() < 1.2
    assert np.abs(np.diff(fields, axis=1)).max() < 0.7 and np.abs(fields.mean(0)).max() < 0.3
