from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import compute_pictures as pictures
from tests.worlds import CAR
from worldsim.costs.flops import Networks
from worldsim.play import film as video
from worldsim.presets import SIZES

NETWORKS = Networks(SIZES["tiny"](), (32, 32), CAR)


def test_every_way_down_is_cheaper_and_moves_the_crossover_out():
    cached = [way for way in pictures.WAYS if way.cached]
    costs = [pictures.costs(NETWORKS, way) for way in cached]
    assert [way.passes for way in cached] == [250, 32, 4, 2, 1, 1]
    for (dear, early), (cheap, late) in zip(costs[:-1], costs[1:], strict=True):
        assert cheap < dear and late > early
        assert np.isclose(cheap * late, dear * early)  # their product is what training cost
    times = [pictures.seconds(NETWORKS, cached[-1], batch, "h200") for batch in (1, 2, 4, 4096)]
    assert times == sorted(times, reverse=True)


def test_longer_bars_mean_more():
    picture = pictures.column("head", [(1.0, "1"), (10.0, "10"), (None, ""), (1000.0, "1000")])
    assert picture.shape[0] == 5 * pictures.LINE + 4 * video.GAP
    rows = [i * (pictures.LINE + video.GAP) + pictures.LINE // 2 for i in range(1, 5)]
    inked = [(picture[r, : pictures.BAR] == video.AMBER).all(-1).sum() for r in rows]
    assert 0 == inked[2] < inked[0] < inked[1] < inked[3] == pictures.BAR


@pytest.mark.nightly
def test_the_command_and_the_page(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page, some = (root / "docs/explanation/costs.md").read_text(), ("tiny", "small")
    lines = pictures.preset_table((56, 64), some).splitlines()
    assert len(lines) == 4 and not [line for line in lines if line not in page]
    monkeypatch.setattr(pictures, "preset_table", lambda _: "")
    pictures.main(presets=("tiny",), out=tmp_path)
    drawn = np.asarray(Image.open(tmp_path / "compute.png"))
    assert (drawn == video.AMBER).all(-1).any()
