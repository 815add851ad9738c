"""The benchmark of words: what is judged is right, and, at night, the whole command in small."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import text
from benchmarks.text_captions import drawn_names
from benchmarks.text_encoders import UNSAID, drawn
from benchmarks.text_recaptions import KINDS, compared, laid, probe_of, read_right
from benchmarks.text_twins import (
    PLAIN,
    READ,
    Probe,
    Simulator,
    changing,
    overlap,
    right,
)
from benchmarks.text_weathers import CHUNK, COMBINATIONS, Drive
from tests.measured_data import stripes, stripes_data
from worldsim.data.captions import table_of
from worldsim.data.dataset import Caption
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


def test_captions_of_some_episodes_are_laid_where_a_data_set_would_have_them(
    tmp_path: Path,
) -> None:
    data = stripes_data(tmp_path, train=[stripes(i, 6) for i in range(4)]).split("train")
    few = drawn_names(data, 0.5)
    assert len(few) == 2 and few == drawn_names(data, 0.5) and few < set(data.names)
    told = {name: [Caption(first=1, stop=4, text=name)] for name in few}
    table, begin = laid(data, told), 0
    assert len(table.texts) == 2 and not table_of(data).texts
    for name, length in zip(data.names, data.lengths, strict=True):
        found = [table.texts[i] for i in table.at(begin + 1)]
        assert found == ([name] if name in few else []) and not table.at(begin)
        begin += length


def test_worlds_are_compared_on_the_same_prompts() -> None:
    right = torch.tensor([[True, True], [True, False], [True, True], [True, False]])
    found = compared(dict(zip(KINDS, (right, ~right, right), strict=True)))
    assert found[KINDS[0]]["light"] == 1 and found[KINDS[0]]["weather"] == 0.5
    assert found[KINDS[0]]["all"]["value"] == 0.75
    same, more = (found[f"recaptions less {kind}"] for kind in KINDS[:2])
    assert [*same.values()] == [0, 0, 0]
    assert more["value"] == 0.5 and more["low"] <= 0.5 <= more["high"]


def test_a_probe_of_weathers_learns_from_drives() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(90, 160, (2 * CHUNK, 96, 96, 3)).astype(np.uint8)
    one = Drive(frames, np.zeros((2, 3), np.float32), np.zeros(2, np.float32))
    probe = probe_of([one], 60)
    pairs = [("day", "clear"), ("night", "clear")]
    seen = torch.from_numpy(np.stack([one.seen(pair)[-1] for pair in pairs]))
    assert read_right(probe, seen, pairs).shape == (2, 2)
    assert read_right(probe, seen, pairs)[:, 0].all()
    assert set(COMBINATIONS) > set(pairs)


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
    text.main(rows=(*text.PARTS, "recaptions"), out=out, media=tmp_path, quick=True)
    found = json.loads(out.read_text())
    assert set(found) == {"encoders", "speed", "scenery", "captions", "recaptions"}
    assert {*KINDS} < found["recaptions"]["found"]["words alone"].keys()
    assert (tmp_path / "scenery.png").exists()
    assert len(found["speed"]["found"]) == 4
