"""A recording at other sizes: cropped to shape, reduced, never stretched or made up."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.contracts import check_dataset
from tests.measured_data import SPEC, stored, stripes, stripes_data
from tests.world_folders import tiny_world
from worldsim.data.dataset import DatasetError
from worldsim.data.open import open_for
from worldsim.data.resize import centred_crop
from worldsim.data.sized import SizedDataset, at_size, check_sizes, drawn_crop, views_at
from worldsim.data.view import OfLength, WithoutActions
from worldsim.evaluate.sizes import world_at


@pytest.mark.parametrize(
    ("source", "size", "crop"),
    [
        ((64, 80), (64, 80), (0, 64, 0, 80)),
        ((64, 80), (32, 32), (0, 64, 8, 72)),
        ((64, 80), (24, 48), (12, 52, 0, 80)),
        ((56, 96), (48, 32), (0, 56, 29, 66)),  # 37.3 columns are 37
        ((480, 640), (56, 64), (0, 480, 45, 594)),
    ],
)
def test_the_window_is_the_largest_of_the_shape(source, size, crop):
    found = centred_crop(source, size)
    assert found == crop
    height, width = found[1] - found[0], found[3] - found[2]
    assert height >= size[0] and width >= size[1]
    assert abs(height * size[1] / size[0] - width) <= 1  # not stretched by more than a pixel


def test_a_view_keeps_what_a_reader_promises(tmp_path: Path):
    data = stripes_data(tmp_path, train=[stripes(1, 6), stripes(2, 9)])
    small = at_size(WithoutActions(data), (16, 16))
    check_dataset(small)
    assert isinstance(small, WithoutActions) and small.spec.frame_shape == (16, 16, 3)
    whole = np.asarray(data.episode(0).frames[:])
    np.testing.assert_array_equal(small.episode(0).frames[:], whole[:, :, 4:20])
    assert small.fingerprint() != at_size(WithoutActions(data), (16, 24)).fingerprint()
    again = at_size(small, (16, 24))  # of the recording, not of the smaller frames
    np.testing.assert_array_equal(again.episode(0).frames[:], whole)


@pytest.mark.parametrize("size", [(32, 32), (32, 48), (48, 32), (56, 96)])
def test_drawn_windows_keep_the_shape_and_lie_in_the_frame(size):
    source, centred = (56, 96), centred_crop((56, 96), size)
    crops = [drawn_crop(source, size, f"episode_{i}") for i in range(200)]
    assert crops == [drawn_crop(source, size, f"episode_{i}") for i in range(200)]
    for top, bottom, left, right in crops:
        height, width = bottom - top, right - left
        assert 0 <= top and bottom <= 56 and 0 <= left and right <= 96
        assert height >= size[0] and width >= size[1]
        assert abs(height / size[0] * size[1] / width - 1) < 0.04
    if size != source:
        assert 0.35 < np.mean([crop == centred for crop in crops]) < 0.65
        assert len(set(crops)) > 40


def test_windows_are_drawn_for_training_alone(tmp_path: Path):
    data = stripes_data(tmp_path, train=[stripes(i, 6) for i in range(12)])
    plain, drawn = at_size(data, (16, 16)), at_size(data, (16, 16), "drawn")
    check_dataset(drawn.split("train"))
    assert drawn.fingerprint() != plain.fingerprint()

    def differing(split: str) -> int:
        a, b = plain.split(split), drawn.split(split)
        frames = [(a.episode(i).frames[:], b.episode(i).frames[:]) for i in range(len(a))]
        return sum(not np.array_equal(*both) for both in frames)

    assert differing("train") > 0
    assert all(differing(split) == 0 for split in plain.splits if split != "train")


def test_recordings_are_opened_as_a_world_of_sizes_saw_them(tmp_path: Path):
    """By their shape where it was trained so; else a recording of another size is another kind."""
    stripes_data(tmp_path)
    world = world_at(tiny_world(), (16, 16)).spec
    assert open_for(tmp_path, world).spec.frame_shape == (16, 24, 3)
    small = open_for(tmp_path, world, sizes=((16, 16), (16, 24)))
    assert small.spec.frame_shape == (16, 16, 3)
    assert at_size(small, (16, 24)).spec.frame_shape == (16, 24, 3)


def test_sizes_that_are_none_are_refused(tmp_path: Path):
    assert check_sizes([[56, 64], (64, 64)]) == ((56, 64), (64, 64))
    for wrong in ((), "56", (56, 64), ((56, 64, 3),), ((8, 64),), ((50, 64),), ((56.0, 64),)):
        with pytest.raises(DatasetError, match="sizes: expected pairs of sides, height and width"):
            check_sizes(wrong)
    with pytest.raises(DatasetError, match="sizes: expected each size once"):
        check_sizes(((56, 64), (56, 64)))
    with pytest.raises(DatasetError, match="sizes: expected at most 16 x 24, as it was recorded"):
        SizedDataset(stripes_data(tmp_path), (16, 32))


def test_episodes_of_some_length(tmp_path: Path):
    parts = {"train": [stripes(1, 3), stripes(2, 9)], "val": [stripes(3, 4)]}
    some = OfLength(stored(tmp_path, SPEC, **parts), 4, 9)
    assert list(some.names) == ["stripes-000003"] and list(some.splits) == ["val"]
    check_dataset(some)
    assert list(OfLength(some.data, 4).splits) == ["train", "val"]


def test_windows_are_refused_that_are_none_or_without_a_size(tmp_path: Path) -> None:
    data = stripes_data(tmp_path / "data")
    wrong: Any = "moved"
    with pytest.raises(DatasetError, match="windows: expected centred or drawn, got moved"):
        views_at(data, [(16, 16)], wrong)
    with pytest.raises(DatasetError, match="windows: expected centred, as no sizes are named"):
        views_at(data, [], "drawn")
    assert views_at(data, []) == [data]
