"""What cannot do is refused before a step, in a sentence that says what to do."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.train.films import Films, film, films
from tests.train.test_pipeline import SMALL, short
from worldsim.core import WorldError
from worldsim.data.sized import at_size
from worldsim.pipeline import train
from worldsim.presets import sizes_of
from worldsim.train.checks import check_disk, check_processes, clip_chunks, fit_to_data

REFUSED = {
    "device: expected cpu, .* got 'gpu'": {"device": "gpu"},
    "device: expected one of this machine, got 'cuda:99'": {"device": "cuda:99"},
    "hours: expected above 0, got -1": {"hours": -1.0, "steps": None},
    "hours: expected above 0, got nan": {"hours": math.nan, "steps": None},
    "steps: expected None beside hours": {"hours": 1.0},
    "steps: expected at least 4": {"steps": 2},
    "preset: expected one of": {"preset": "huge"},
    "dim: expected a multiple": {"changed": {"dim": 33}},
    "wandb: expected the package": {"wandb": True},
    "data: expected episodes of 4 chunks": {"data": films(chunks=3)},
    "data: expected a split 'train'": {"data": films(times={"test": 2})},
    "sizes: expected pairs of sides, height and width, from 16 up": {"sizes": ((20, 24),)},
    "sizes: expected at most 16 x 24, as it was recorded, got 24 x 16": {"sizes": ((24, 16),)},
    "lengths: expected whole numbers of chunks from 1 up, each once": {"lengths": (4, 4)},
    "rewards: expected up to 4.9e\\+08 a chunk, got 1e\\+10": {"data": films(scale=1e10)},
}


@pytest.mark.parametrize("words", REFUSED)
def test_refused_before_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str):
    monkeypatch.setattr("worldsim.train.tracking.find_spec", lambda name: None)
    settings = {"data": films(), "steps": 12, "changed": SMALL, "recipe": short()}
    settings |= REFUSED[words]
    with pytest.raises(WorldError, match=words):
        train(**settings, out=tmp_path / "world", run=tmp_path / "run")
    assert not any(tmp_path.iterdir())


def test_an_output_that_exists(tmp_path: Path):
    (tmp_path / "notes.txt").touch()
    for overwrite, words in ((False, "which exists"), (True, "expected a world to overwrite")):
        with pytest.raises(WorldError, match=words):
            train(films(), out=tmp_path, run=tmp_path / "run", steps=12, overwrite=overwrite)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_every_bucket_divides_by_the_processes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("worldsim.train.distributed.world_size", lambda: 2)
    monkeypatch.setattr("worldsim.train.checks.world_size", lambda: 2)
    data, base = films(size=(32, 32), chunks=13), short()
    views = [at_size(data, (16, 16)), at_size(data, (32, 32))]
    check_processes(base, views[:1])
    words = r"vae, clips of 3 chunks at 32x32: .* divide by 2 processes, got 1; give --batch 8"
    with pytest.raises(WorldError, match=words):
        check_processes(base, views)
    judged = replace(base, distill=replace(base.distill, adversarial=0.1))
    with pytest.raises(WorldError, match="strategy: expected 'ddp' beside an adversarial term"):
        check_processes(judged, views[:1])
    fit = replace(judged.distill.fit, strategy="ddp")
    check_processes(replace(judged, distill=replace(judged.distill, fit=fit)), views[:1])


def test_short_episodes_leave_long_clips_where_lengths_are_given():
    data = films(chunks=8)
    mixed = Films(data.spec, {"train": [film(data.spec, i, n, True, 1.0)
                                        for i, n in enumerate((1, 1, 1, 1, 2, 8))]})  # fmt: skip
    with pytest.raises(WorldError, match="data: expected episodes of 4 chunks"):
        fit_to_data(films(chunks=2), sizes_of("tiny"), short(), (1,))
    _, recipe = fit_to_data(mixed, sizes_of("tiny"), short(), (1,))
    assert recipe.forced.targets == 7 and recipe.forced.lengths == recipe.vae.lengths == (1,)


def test_a_full_disk(tmp_path: Path):
    with pytest.raises(WorldError, match="free some, or choose another run folder"):
        check_disk(tmp_path / "run", 2**60)


def test_clips_are_as_long_as_the_data_allows():
    assert clip_chunks([100] * 10, 13) == 13
    assert clip_chunks([8] * 10, 13) == 8
    assert clip_chunks([100] * 9 + [5] * 10, 13) == 13  # 950 chunks, 900 of them in long ones
    assert clip_chunks([100, 30, 30], 40) == 30


def test_sizes_follow_the_data():
    data = films(chunk=4, chunks=6, scale=300.0)
    sizes, recipe = fit_to_data(data, sizes_of("tiny"), short())
    assert sizes.vae.chunk == 4 and sizes.context == 4
    assert math.expm1(sizes.heads.largest) > 300
    assert recipe.forced.targets == recipe.distill.targets == 5
    assert recipe.distill.dreamt == 0.4
    sizes, recipe = fit_to_data(films(chunks=4), sizes_of("tiny"), short())
    assert sizes.context == 2 and sizes.heads.largest == 5
    assert recipe.distill.targets == 3 and recipe.distill.dreamt == 0
    long = replace(recipe, vae=replace(recipe.vae, clip_chunks=9))
    assert fit_to_data(films(chunks=4), sizes_of("tiny"), long)[1].vae.clip_chunks == 4
