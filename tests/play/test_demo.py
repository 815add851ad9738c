from dataclasses import replace
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest

from benchmarks import pictures
from tests.measured_data import SPEC, stripes
from tests.world_folders import tiny_world
from worldsim.core import ActionSpec, WorldError
from worldsim.evaluate.clips import Recorded, cut_clips
from worldsim.play import film as video
from worldsim.play.demo import against_reality, dream_alone, real_drive, run_demo
from worldsim.recipes.car_racing.sensors import SENSORS
from worldsim.states import StateSpec


def test_the_dream_is_told_the_truth_and_then_set_free():
    world, episode = tiny_world(), stripes(10_007, 60)
    moments = list(against_reality(world, episode, 57))  # 6.25 steps a second: anchors every 12
    assert len(moments) == 57
    since = [round(m.since * 6.25) for m in moments]
    assert since[:14] == [*range(1, 13), 1, 2]
    assert [m.free for m in moments] == [i >= 28 for i in range(57)]
    assert since[28:] == list(range(since[27] + 1, since[27] + 30))
    assert moments[5].real is not None
    assert np.array_equal(moments[5].real, episode.frames[16:18])  # context of 3, then the sixth
    assert moments[5].dream.shape == (2, 16, 24, 3)


def test_a_world_without_a_real_environment_dreams_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = run_demo(tiny_world(), tmp_path / "demo.mp4", seconds=2)
    said = capsys.readouterr()
    assert "no recipe of ours records what tiny0" in said.err
    assert f"wrote {out}" in said.out
    film = np.stack(imageio.mimread(out))
    assert len(film) == 12 and film.shape[2] == 24 * 6


FELT = StateSpec(names=SENSORS, mean=(0.0,) * 6, std=(1.0,) * 6, change=(1.0,) * 6)


@pytest.mark.parametrize("state", [None, FELT])
def test_reality_is_driven_as_the_world_knew_it(state: StateSpec | None):
    """With what the car feels for a world that is told it."""
    car = ActionSpec(kind="continuous", low=(-1.0, 0.0, 0.0), high=(1.0, 1.0, 1.0))
    seen = replace(tiny_world().spec, frame_shape=(56, 64, 3), latent_shape=(7, 8, 4))
    spec = replace(seen, action=car, state=state)
    episode = real_drive(spec, 2, 10_007)
    assert episode.frames.shape == (2 * (2 + spec.context), 56, 64, 3)
    felt = None if episode.state is None else episode.state.shape
    assert felt == (None if state is None else (2 + spec.context, 6))


def test_a_dream_repeats_itself_by_its_seed():
    films = [[m.dream for m in dream_alone(tiny_world(), 5, seed)] for seed in (10_001, 10_001, 9)]
    assert np.array_equal(films[0], films[1]) and not np.array_equal(films[0], films[2])


def test_the_sheet_and_the_film_show_what_they_say():
    clip = cut_clips(Recorded.of(stripes(5000, 70), SPEC.action), 0, [3, 6], 3, 60)
    assert clip is not None
    page = pictures.rollout_sheet(clip, clip.frames)
    lines = np.split(page[14 + 4 :][: 4 * 36 - 4], [36, 72, 108])
    assert np.array_equal(lines[0][:32, 60:], lines[1][:32, 60:])  # a perfect dream
    assert not np.array_equal(lines[0][:32, 60:], lines[2][:32, 60:])
    film = pictures.rollout_film(clip, clip.frames, 12.5)
    assert len(film) == 60 and {f.shape for f in film} == {(14 + 4 + 64, 4 * 96 + 3 * 4, 3)}
    assert np.array_equal(film[9][18:, :96], video.enlarge(clip.frames[0, 9, -1].numpy(), 4))


def test_bad_wishes_are_refused(tmp_path: Path):
    with pytest.raises(WorldError, match="seed: expected 10000 or more, got 5003"):
        run_demo(tiny_world(), tmp_path / "demo.mp4", seed=5003)
    with pytest.raises(WorldError, match="seconds: expected more than 1, got 0"):
        run_demo(tiny_world(), tmp_path / "demo.mp4", seconds=0)
    assert not list(tmp_path.iterdir())
