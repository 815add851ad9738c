"""What is said of stretches of an episode."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.data.test_native import SPEC, episode
from worldsim.data import DatasetError
from worldsim.data.captions import by_chunk
from worldsim.data.dataset import Caption
from worldsim.data.episode import check_episode
from worldsim.data.native import load_episode, save_episode


def test_captions_of_stretches_come_back_and_must_fit(tmp_path: Path) -> None:
    captions = (Caption(first=0, stop=2, text="größer"), Caption(first=1, stop=3, text="a\nb"))
    whole = replace(episode(), captions=captions)
    save_episode(tmp_path / "a.npz", whole)
    assert load_episode(tmp_path / "a.npz").captions == captions
    assert by_chunk(replace(whole, text="")) == ["größer", "größer", "a\nb"] + [""] * (
        len(whole) - 3
    )
    wrong = replace(whole, captions=(Caption(first=1, stop=len(whole) + 1, text="x"),))
    with pytest.raises(DatasetError, match="captions: expected words about chunks from 0"):
        check_episode(wrong, SPEC)
