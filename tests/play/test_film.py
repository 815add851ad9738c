import resource
import signal
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest

from worldsim.play import film as video


def coloured(height: int, width: int, value: int = 200) -> video.Picture:
    return np.full((height, width, 3), value, np.uint8)


def test_enlarge_repeats_pixels():
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    big = video.enlarge(picture, 3)
    assert big.shape == (6, 6, 3)
    assert (big[:3, 3:] == picture[0, 1]).all() and (big[3:, :3] == picture[1, 0]).all()
    with pytest.raises(ValueError, match="times: expected at least 1, got 0"):
        video.enlarge(picture, 0)


def test_a_label_holds_ink_and_keeps_its_size():
    strip = video.label("dream, 1.2 s", 120, ink=video.GREEN)
    assert strip.shape == (14, 120, 3)
    assert (strip == video.GREEN).all(-1).any() and (strip[:, -10:] == video.PAPER).all()
    assert video.label("too long for this strip", 20).shape == (14, 20, 3)


def test_a_bar_is_as_long_as_its_share():
    for share, length in ((0.25, 10), (0.0, 0), (7.0, 40), (-1.0, 0)):
        assert (video.bar(share, 40)[0] == video.AMBER).all(-1).sum() == length


def test_side_by_side():
    assert video.beside([coloured(8, 5), coloured(8, 7)]).shape == (8, 5 + 7 + video.GAP, 3)
    assert video.below([coloured(8, 5), coloured(3, 5)]).shape == (8 + 3 + video.GAP, 5, 3)
    with pytest.raises(ValueError, match=r"one height, got \[7, 8\]"):
        video.beside([coloured(8, 5), coloured(7, 5)])
    with pytest.raises(ValueError, match=r"one width, got \[\]"):
        video.below([])


def test_a_sheet_holds_every_picture():
    rows = [[coloured(8, 64, 10 * i + j) for j in range(3)] for i in range(2)]
    page = video.sheet(rows, ["real", "dream"], ["0", "1", "2"], times=2)
    for i in range(2):
        for j in range(3):
            assert (page == 10 * i + j).all(-1).sum() == 16 * 128
    with pytest.raises(ValueError, match="expected 2 rows of 2 pictures"):
        video.sheet(rows, ["real", "dream"], ["0", "1"])


def test_a_film_can_be_read_again(tmp_path: Path):
    path = tmp_path / "new" / "film.mp4"
    shown = [coloured(33, 48, value) for value in (0, 120, 240)]
    video.save_film(path, shown, fps=10)
    read = np.stack(imageio.mimread(path))
    assert read.shape == (3, 32, 48, 3)
    assert np.abs(read.mean((1, 2, 3)) - [0, 120, 240]).max() < 4
    assert [p.name for p in path.parent.iterdir()] == ["film.mp4"]


def test_a_film_that_fails_leaves_the_old_one(tmp_path: Path):
    path = tmp_path / "film.mp4"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="at least one, got none"):
        video.save_film(path, [], fps=10)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_raises_and_leaves_the_good_film(tmp_path: Path, monkeypatch):
    path = tmp_path / "film.mp4"
    video.save_film(path, [coloured(32, 48)] * 4, fps=10)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (256, 256, 3), np.uint8) for _ in range(40)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing past the limit is an error
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(OSError):
            video.save_film(path, noise, fps=10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert path.read_bytes() == good and [p.name for p in tmp_path.iterdir()] == ["film.mp4"]


def test_pictures_of_two_sizes_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="pictures: expected one size"):
        video.save_film(tmp_path / "a.mp4", [coloured(32, 48), coloured(32, 32)], fps=10)
    assert not list(tmp_path.iterdir())


def test_a_picture_is_exact(tmp_path: Path):
    picture = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    video.save_picture(tmp_path / "a" / "picture.png", picture)
    assert np.array_equal(imageio.imread(tmp_path / "a" / "picture.png"), picture)
