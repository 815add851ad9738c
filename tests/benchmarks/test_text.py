"""The benchmark of words: what is judged is right, and, at night, the whole command in small."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import text
from benchmarks.text_encoders import UNSAID, drawn
from benchmarks.text_twins import (
    PLAIN,
    READ,
    Probe,
    Simulator,
    changing,
    overlap,
    right,
)
from worldsim.models.text import TextConfig
from worldsim.recipes.car_racing.captions import ATTRIBUTES, caption, values_in
from worldsim.recipes.registry import RECIPES


def test_what_a_caption_says_is_read_back_from_it() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        truth = {k: str(rng.choice(v)) for k, v in ATTRIBUTES.items()}
        told, says = caption(rng, truth)
        found = values_in(told)
        assert found.keys() >= says and all(found[k] == truth[k] for k in says), told


def test_held_out_combinations_are_in_no_training_caption() -> None:
    config = TextConfig(kind="words")
    seen, held = (drawn(300, "train", 1, config, held_out) for held_out in (False, True))
    names = list(ATTRIBUTES)
    snow = [ATTRIBUTES["ground"].index("jungle"), ATTRIBUTES["weather"].index("snowfall")]
    both = [names.index("ground"), names.index("weather")]
    for data, expected in ((seen, False), (held, True)):
        assert (data.truth[:, both] == torch.tensor(snow)).all(1).any().item() is expected
    assert (seen.truth == UNSAID).any() and (held.truth[:, both] != UNSAID).all(1).any()


def test_a_share_is_of_what_is_true_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attribute that is not clear in a frame counts neither way."""
    read = {"ground": ["snow", "snow"], "ahead": ["left", "left"]}
    read |= {name: ["", ""] for name in READ if name not in read}
    probe = Probe((40, 48, 3))
    monkeypatch.setattr(probe, "read", lambda frames: read)
    truth = [{"ground": "snow", "ahead": "left"}, {"ground": "desert"}]
    found = right(probe, torch.zeros(2, 40, 48, 3), truth)
    assert found == {"ground": 0.5, "ahead": 1.0, "all": pytest.approx(2 / 3)}


def test_roads_overlap_as_masks_do() -> None:
    a, b = torch.zeros(2, 1, 1, 4, dtype=torch.bool)
    a[..., :2], b[..., 1:3] = True, True
    assert overlap(a, b).tolist() == pytest.approx([1 / 3])
    assert overlap(a, a).tolist() == [1.0]


def test_a_probe_reads_every_attribute_of_a_frame_and_where_the_road_is() -> None:
    probe = Probe((40, 48, 3))
    read = probe.read(torch.zeros(2, 40, 48, 3, dtype=torch.uint8))
    assert all(value in ATTRIBUTES[name] for name in READ for value in read[name])
    assert probe.road(torch.zeros(2, 40, 48, 3, dtype=torch.uint8)).shape == (2, 40, 48)


@pytest.mark.nightly
def test_twins_are_the_same_drive_in_another_scenery() -> None:
    environment = RECIPES["scenery"]().environment
    simulator, look = Simulator(environment), changing(3, 2)
    plain = simulator.drive(5, lambda t: PLAIN, 4)
    twin = simulator.twin(5, look, plain.actions)
    assert [t["ground"] for t in twin.truth] == [look(t)["ground"] for t in range(4)]
    assert torch.equal(simulator.twin(5, lambda t: PLAIN, twin.actions).frames, plain.frames)
    assert not torch.equal(twin.frames, plain.frames)


@pytest.mark.nightly
def test_the_whole_command_in_small(tmp_path: Path) -> None:
    pytest.importorskip("wordllama", reason="the extra text")
    out = tmp_path / "text.json"
    text.main(out=out, media=tmp_path, quick=True)
    found = json.loads(out.read_text())
    assert set(found) == {"encoders", "speed", "scenery", "captions"}
    assert (tmp_path / "scenery.png").exists()
    assert len(found["speed"]["found"]) == 4
