"""The account's lines against the counts and devices that they are made of."""

import re
from dataclasses import replace
from math import ceil
from pathlib import Path

import pytest

from tests.worlds import CAR
from worldsim import cli
from worldsim.core import WorldError
from worldsim.costs.devices import DEVICES, Device
from worldsim.costs.flops import Networks, stages
from worldsim.costs.report import Use, serving, span, step_seconds, table
from worldsim.presets import SIZES
from worldsim.train.recipe import Recipe

NETWORKS, H200 = Networks(SIZES["small"](), (56, 64), CAR), DEVICES["h200"]


def line(text: str, name: str) -> str:
    [found] = [row for row in text.splitlines() if re.match(rf"{re.escape(name)}  ", row)]
    return found


def test_the_table_says_what_was_counted():
    use = Use(steps=1e9)
    text = table(NETWORKS, Recipe(), use, H200)
    step = sum(NETWORKS.step().values())
    total = sum(stage.flops for stage in stages(NETWORKS, Recipe()))
    assert f"{total:.3g}" in line(text, "training")
    assert f"{1e6 * step:.3g}" in line(text, "a million env steps")
    assert f"{1e9 * step:.3g}" in line(text, "1e+09 env steps")
    assert f"after {total / step:,.0f} env steps" in line(text, "crossover")
    assert f"{NETWORKS.kv_bytes:,} of them" in line(text, "memory of an env")
    for stage in stages(NETWORKS, Recipe()):
        assert f"{stage.flops:.3g}" in line(text, f"training: {stage.name}")
    for part, cost in NETWORKS.step().items():
        assert f"{cost / step:.1%}" in line(text, f"env step: {part}")


def test_the_page_shows_this_table(root: Path):
    assert (
        table(NETWORKS, Recipe(), Use(steps=1e9), H200)
        in (root / "docs/explanation/costs.md").read_text()
    )


def test_a_single_env_waits_for_the_weights_and_a_crowd_for_the_arithmetic():
    one, many = (step_seconds(NETWORKS, Use(batch=b), H200) for b in (1, 4096))
    assert one == NETWORKS.traffic(1) / H200.bandwidth
    assert many == pytest.approx(sum(NETWORKS.step().values()) / (0.4 * H200.peak))


def test_serving_is_bound_by_time_or_by_memory():
    use = Use(agents=10**7, rate=10, peak_factor=3, batch=4096)
    busy = 10**7 * 10 * 3 * step_seconds(NETWORKS, use, H200)
    assert serving(NETWORKS, use, H200) == ceil(busy)
    idle = replace(use, rate=1e-6)
    room = (H200.memory - NETWORKS.weight_bytes()) // NETWORKS.state_bytes
    assert serving(NETWORKS, idle, H200) == ceil(10**7 / room) > 1
    with pytest.raises(WorldError, match="memory: expected at least"):
        serving(NETWORKS, use, Device(peak=1, bandwidth=1, memory=1e6))


@pytest.mark.parametrize("field", ["steps", "batch", "agents", "rate"])
def test_what_does_not_fit_is_refused(field: str):
    with pytest.raises(WorldError, match=f"{field}: expected more than 0, got -1"):
        Use(**{field: -1})


def test_spans():
    spans = [span(s) for s in (3e5, 7200, 90, 2, 0.25, 2.4e-6)]
    assert spans == ["3.47 days", "2 h", "1.5 min", "2 s", "250 ms", "2.4 us"]


def test_the_command(capsys: pytest.CaptureFixture[str]):
    line_typed = "cost --preset tiny --device zen5-core --frame 32 48 --steps 1e9 --actions 0"
    assert cli.main([*line_typed.split(), "--no-pixels"]) == 0
    printed = capsys.readouterr().out
    assert "decoder" not in printed and "1e+09 env steps" in printed
    choice = replace(CAR, kind="discrete", low=(), high=(), n=7)
    step = sum(Networks(SIZES["tiny"](), (32, 48), choice).step(pixels=False).values())
    assert f"{step:.3g}" in line(printed, "env step")
