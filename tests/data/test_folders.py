"""A dataset is the folder that was opened, wherever the process goes afterwards."""

from pathlib import Path

import numpy as np
import pytest

from tests.data.films import noise, write
from tests.measured_data import stripes_data
from worldsim.data.open import open_dataset


@pytest.mark.parametrize("kind", ["native", "video"])
def test_a_relative_folder_outlives_a_change_of_place(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "data"
    if kind == "native":
        stripes_data(folder)
    else:
        write(folder / "film.mkv", noise(6, 16, 16), fps=10)
    monkeypatch.chdir(tmp_path)
    data = open_dataset("data")
    before = data.episode(0).frames[:]
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(data.episode(0).frames[:], before)
