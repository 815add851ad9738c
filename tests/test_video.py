"""Video from words, and clips that are made to show something else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import worldsim
from tests.measured_data import stored
from tests.worlds import CAR, tiny_world
from worldsim.cli import main
from worldsim.core import WorldError
from worldsim.data.dataset import Caption, DatasetSpec, Episode
from worldsim.data.encode import write_film
from worldsim.store.folder import save
from worldsim.video import edit_dataset
from worldsim.world.edit import agreement, encoded, noise_levels
from worldsim.world.point import PointWorld

WORLD = tiny_world(CAR, text=True)
CLIP = torch.randint(0, 256, (9, 24, 32, 3), generator=torch.Generator().manual_seed(0)).byte()


def test_words_alone_begin_a_video_of_any_size_and_length() -> None:
    night = worldsim.generate("at night", world=WORLD, seconds=0.18)
    assert night.shape == (9, 24, 32, 3) and night.dtype == torch.uint8
    assert torch.equal(worldsim.generate("at night", world=WORLD, frames=9), night)
    for other in (
        worldsim.generate("in the rain", world=WORLD, frames=9),
        worldsim.generate("at night", world=WORLD, frames=9, guidance=4),
        worldsim.generate("at night", world=WORLD, frames=9, seed=1),
    ):
        assert not torch.equal(other, night)
    large = worldsim.generate("at night", world=WORLD, frames=3, size=(17, 40))
    assert large.shape == (3, 17, 40, 3)
    led = worldsim.generate("at night", [(large[0], 0)], world=WORLD, frames=6, size=(17, 40))
    assert torch.equal(led[:1], large[:1]) and led.shape == (6, 17, 40, 3)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"size": (8, 32)}, "size: expected two whole numbers from 16"),
        ({"size": (24.0, 32)}, "size: expected two whole numbers from 16"),
        ({"size": "large"}, "size: expected two whole numbers from 16"),
        ({"seconds": float("nan")}, "seconds: expected a number above 0"),
        ({"seconds": None}, "frames, seconds: expected one of them"),
        ({"text": ""}, "text: expected words, got ''"),
        ({"text": "по снегу"}, "in Latin letters"),
        ({"world": None}, "world: expected a world"),
        ({"world": tiny_world()}, "was trained without words"),
        ({"world": PointWorld()}, "expected None, as point-world"),
        ({"given": [(CLIP, 40)]}, "expected to end before frame"),
        ({"guidance": 0.0}, "guidance: expected 1 to 20"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options: dict[str, Any], expected: str) -> None:
    given = {"text": "night", "world": WORLD, "seconds": 0.2, **options}
    with pytest.raises(WorldError, match=expected):
        worldsim.generate(given.pop("text"), **given)


def test_an_edit_goes_through_the_actions_from_a_level_lower_where_there_is_motion() -> None:
    actions = torch.rand(5, 3)
    close, far = (
        worldsim.edit(CLIP, "night", world=WORLD, strength=s, actions=actions) for s in (0.05, 1.0)
    )
    assert close.shape == CLIP.shape
    assert not torch.equal(close, far)
    still = noise_levels(CLIP[:1].expand(8, -1, -1, -1), 2, 0.6)
    moving = noise_levels(CLIP[:8], 2, 0.6)  # noise changes by far more than a fast clip
    assert still == pytest.approx([0.6] * 4)
    assert moving == pytest.approx([0.6, 0.51, 0.501, 0.5001])
    assert not torch.equal(
        worldsim.edit(CLIP, "night", world=WORLD, strength=1.0, actions=1 - actions), far
    )
    latents = encoded(WORLD, torch.cat([CLIP, CLIP[-1:]]))
    same = agreement(WORLD, latents, latents, actions)
    assert same.reward == same.end == 0 and np.isfinite(same.action)
    assert agreement(WORLD, latents, latents.flip(1), actions).reward > 0
    for wrong, told in (
        ({"strength": 0}, "strength"), ({"clip": CLIP[:, :16]}, "clip: expected frames"),
    ):  # fmt: skip
        with pytest.raises(WorldError, match=told):
            worldsim.edit(**{"clip": CLIP, "text": "night", "world": WORLD, **wrong})


def test_an_edited_data_set_keeps_all_but_frames_and_captions(tmp_path: Path) -> None:
    spec = DatasetSpec(
        name="day", frame_shape=(24, 32, 3), fps=50.0, chunk=2, action=CAR, has_rewards=True,
        has_text=True,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    episode = Episode(
        name="a", frames=rng.integers(0, 256, (12, 24, 32, 3), np.uint8), chunk=2, fps=50.0,
        actions=rng.random((6, 3), np.float32), rewards=np.ones(6, np.float32), terminated=True,
        captions=(Caption(first=0, stop=6, text="by day"),),
    )  # fmt: skip
    data = stored(tmp_path / "day", spec, train=[episode])
    made = edit_dataset(data, "night", world=WORLD, out=tmp_path / "night", keep_all=True)
    with pytest.raises(WorldError, match="a new folder, or one begun with 'dawn'"):
        edit_dataset(data, "dawn", world=WORLD, out=tmp_path / "night", keep_all=True)
    after = made.episode(0)
    assert (after.text, after.captions, after.terminated) == ("night", (), True)
    assert np.array_equal(after.actions, episode.actions)  # type: ignore[arg-type]
    assert np.array_equal(after.rewards, episode.rewards)  # type: ignore[arg-type]
    assert not np.array_equal(after.frames[:], episode.frames[:])
    with pytest.raises(WorldError, match="frame_shape: expected"):
        edit_dataset(data, "night", world=tiny_world(text=True, size=(32, 32)), out=tmp_path / "x")


@pytest.mark.filterwarnings("ignore:.*no fidelity card")
def test_the_command_line_draws_from_words_and_pictures(tmp_path: Path, capsys: Any) -> None:
    world, film, out = tmp_path / "tiny", tmp_path / "clip.mp4", tmp_path / "out.mp4"
    save(WORLD, world)
    write_film(film, iter(np.asarray(CLIP[:8])), 50.0)
    for flags in (["night"], ["--from", str(film), "--back"], ["night", "--from", str(film),
                  "--to", str(film)], ["--from", str(film), "--loop"]):  # fmt: skip
        call = ["generate", *flags, "--world", str(world), "--seconds", "0.4", "--out", str(out)]
        assert main(call) == 0, flags
        assert "20 frames of 24x32" in capsys.readouterr().out
        out.unlink()
    for flags, told in (([], "expected words"), (["night", "--loop"], "with --from"),
                        (["night", "--size", "8", "8"], "from 16")):  # fmt: skip
        assert main(["generate", *flags, "--world", str(world), "--out", str(out)]) == 2
        assert told in capsys.readouterr().err and not out.exists()
