"""Reality under actions that belong to another track: what the card's long dreams are held to."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("Box2D")

from benchmarks.offtrack_reference import Drive, drive, drives, summarise
from worldsim.data import Dataset
from worldsim.evaluate.plan import EvaluationPlan
from worldsim.recipes.car_racing.settings import car_racing

pytestmark = pytest.mark.nightly  # it drives the real environment


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder: Path = tmp_path_factory.mktemp("data")
    recipe = replace(car_racing(), seeds={"test": range(5000, 5002)}).seen(max_frames=120)
    return recipe.collect(folder, workers=1)


def test_what_is_seen_is_what_was_recorded_there(data: Dataset):
    """Under its own actions the drive shows the episode itself, from its middle on."""
    (one, *_) = drives(data, EvaluationPlan(episodes=2, dreams=2, dream_steps=20))
    episode, middle = one.job.episode, len(one.job.episode.actions) // 2
    seen = drive(Drive(one.job, episode.actions[middle : middle + 12])).numpy()
    real = episode.frames[:].reshape(-1, 2, *episode.frames.shape[1:])[middle + 3 : middle + 12 : 4]
    assert np.array_equal(seen, real)


def test_drives_take_the_cards_own_actions_to_other_tracks(data: Dataset):
    made = drives(data, EvaluationPlan(episodes=2, dreams=4, dream_steps=30))
    test = data.split("test")
    own = [test.episode(i) for i in range(len(test))]
    assert [len(one.actions) for one in made] == [30, 30]
    for one in made:
        source = own[1].actions  # rows 1 and 3 of the card's dreams have the second episode's
        assert all((action == source).all(1).any() for action in one.actions)
        assert one.job.episode.seed == own[0].seed


def test_an_end_stops_the_drive_and_figures_count_what_was_seen(data: Dataset):
    (one,) = drives(data, EvaluationPlan(episodes=2, dreams=2, dream_steps=100))
    seen = drive(one)
    assert seen.shape[1:] == (2, 56, 64, 3) and 20 < len(seen) <= 25
    figures = summarise([seen, seen])
    assert figures["looks"] == 2 * len(seen) and figures["drives"] == 2
    assert 0 <= figures["road"] <= 1 and figures["car"] > 0.9
