import numpy as np
import pytest

from worldsim.data.resize import area_resize, crop_frames


def image(rows: list[list[int]]) -> np.ndarray:
    return np.repeat(np.array(rows, np.uint8)[..., None], 3, axis=-1)


def test_three_to_two_has_the_known_answer():
    source = image([[0, 30, 60], [90, 120, 150], [180, 210, 240]])
    # each output pixel covers 1.5 x 1.5: weights 1, .5 along each axis, over 2.25
    expected = image([[40, 80], [160, 200]])
    np.testing.assert_array_equal(area_resize(source, (2, 2)), expected)


def test_halves_round_up():
    np.testing.assert_array_equal(area_resize(image([[0, 1]]), (1, 1)), image([[1]]))
    np.testing.assert_array_equal(area_resize(image([[2, 3]]), (1, 1)), image([[3]]))


@pytest.mark.parametrize("size", [(56, 64), (1, 1), (7, 5), (84, 96), (100, 97)])
@pytest.mark.parametrize("value", [0, 127, 255])
def test_a_constant_frame_stays_constant(size: tuple[int, int], value: int):
    resized = area_resize(np.full((2, 84, 96, 3), value, np.uint8), size)
    assert resized.shape == (2, *size, 3)
    assert (resized == value).all()


def test_equals_the_mean_of_repeated_pixels():
    source = np.random.default_rng(0).integers(0, 256, (2, 84, 96, 3), np.uint8)
    fine = source.repeat(2, axis=1).repeat(2, axis=2).astype(np.int64)  # 2/3: blocks of 3 x 3
    sums = fine.reshape(2, 56, 3, 64, 3, 3).sum((2, 4))
    np.testing.assert_array_equal(area_resize(source, (56, 64)), (2 * sums + 9) // 18)


def test_large_frames_stay_exact():
    source = np.full((1021, 1031, 3), 255, np.uint8)  # sums pass 2**24
    source[0, 0] = 0
    expected = (2 * 255 * (1021 * 1031 - 1) + 1021 * 1031) // (2 * 1021 * 1031)
    assert (area_resize(source, (1, 1)) == expected).all()


def test_crop_keeps_the_named_window():
    frames = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(1, 4, 5, 3)
    np.testing.assert_array_equal(crop_frames(frames, (1, 3, 2, 5)), frames[:, 1:3, 2:5])
    assert crop_frames(frames, None) is frames


@pytest.mark.parametrize("crop", [(0, 5, 0, 5), (2, 2, 0, 5), (-1, 3, 0, 5), (0, 4, 0, 6)])
def test_a_crop_outside_the_frame_is_refused(crop: tuple[int, int, int, int]):
    with pytest.raises(ValueError, match="crop: expected 0 <= top < bottom <= 4"):
        crop_frames(np.zeros((4, 5, 3), np.uint8), crop)


def test_unfit_frames_and_sizes_are_refused():
    with pytest.raises(ValueError, match="frames: expected uint8"):
        area_resize(np.zeros((4, 5, 3), np.float32), (2, 2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="size: expected"):
        area_resize(np.zeros((4, 5, 3), np.uint8), (0, 2))
