"""The speed benchmark on a small world and on made-up figures; speed itself is never tested."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tyro
from PIL import Image

from benchmarks import rollout_speed, speed_parts, speed_peers, speed_report
from tests.worlds import tiny_world
from worldsim.core import WorldError, row_keys
from worldsim.play import film as video


def row(name: str, mode: str, batch: int, passes: int, ms: float) -> dict[str, Any]:
    return {
        "name": name, "mode": mode, "batch": batch, "passes": passes, "pixels": True, "side": 64,
        "cpu_ms_per_env_step": ms, "env_steps_per_cpu_second": 1e3 / ms, "cpu_ms_p50": ms * batch,
        "cpu_ms_p99": ms * batch, **({"share_of_gemm_peak": 0.4} if name == "worldsim" else {}),
    }  # fmt: skip


FOUND = {
    "rows": [
        row("worldsim", "eager float32", 1, 1, 9.0),
        row("worldsim", "compiled bfloat16", 1, 1, 3.0),
        row("worldsim", "compiled bfloat16", 8, 1, 2.0),
        row("diamond", "default", 1, 3, 150.0),
        row("diamond", "best", 1, 1, 15.0),
    ],
    "horizon": {"early": 100, "late": 10_000, "ratio": 1.01, "state_bytes_grown": 0},
    "wrappers": {"gymnasium": 90.0, "vector": 160.0, "torchrl": 100.0},
}


def test_goals_are_judged_by_the_cheapest_way_and_open_where_nothing_was_measured():
    lines = {g["name"]: g for g in speed_report.goals(FOUND)}
    assert lines["times DIAMOND, default, batch 1, 1-pass student"]["figure"] == 50
    assert lines["times DIAMOND, default, batch 1, 1-pass student"]["met"]
    assert not lines["times DIAMOND, best mode, one pass each, batch 1, 1-pass student"]["met"]
    assert lines["times DIAMOND, default, batch 8, 1-pass student"]["met"] is None
    assert lines["share of bf16 GEMM peak, batch 8, 1-pass, 64 x 64 pixels"]["met"] is False
    assert (
        lines["step 10000 over step 100"]["met"]
        and not lines["vector face, us above the step"]["met"]
    )
    text = speed_report.table({**FOUND, "goals": list(lines.values())})
    assert "| worldsim | compiled bfloat16 | 8 | 1 | 64 x 64 | 2.00 | 500 |" in text
    assert "| not measured | >= 100 | open |" in text and "| 160 | <= 150 | **no** |" in text


def test_the_picture_shows_more_for_more(tmp_path: Path):
    speed_report.picture(FOUND, tmp_path)
    drawn = np.asarray(Image.open(tmp_path / "speed.png"))
    assert (drawn == video.AMBER).all(-1).any()


@pytest.mark.nightly
def test_contenders_step_and_peaks_are_measured_between_them():
    world = tiny_world()
    one = speed_parts.ours(speed_parts.Ours(world, 32, 2, 1, False, True))
    parts = speed_parts.networks(speed_parts.sized(world, 32)).step(1)
    assert one.flops == sum(parts.values())
    peaks: dict[str, Any] = {"float32": lambda: 1e9, "bfloat16": lambda: 2e9}
    (line,) = speed_parts.measure([one], 2, peaks)
    assert peaks["float32"] == 1e9 and line["steps"] == 4
    assert line["share_of_gemm_peak"] == pytest.approx(
        one.flops * line["env_steps_per_cpu_second"] / 1e9
    )
    (count,) = speed_parts.traced(world, (1,))
    assert count["step"] > count["picture"] > 10 and count["syncs"] == 0


def test_another_height_is_the_same_world_on_padded_frames():
    world = tiny_world()
    taller = speed_parts.sized(world, 40)
    frames = taller.decode(taller.reset(row_keys([1])))
    assert frames.shape == (1, 2, 40, 32, 3) and speed_parts.sized(world, 24) is world
    assert torch.equal(taller.starts.frames[:, :, 8:32], world.starts.frames)


def test_fanned_candidates_hold_less():
    found = speed_parts.fan_out(tiny_world(), candidates=4, plan=2)
    assert all(
        a < b for a, b in zip(found["shared"]["bytes"], found["copied"]["bytes"], strict=True)
    )


def test_a_peer_is_imported_from_its_checkout_and_leaves_no_trace(tmp_path: Path):
    (tmp_path / "src/models").mkdir(parents=True)
    (tmp_path / "src/models/__init__.py").write_text("import wandb\nfrom utils import told\n")
    before = dict(sys.modules)
    with speed_peers.checkout(tmp_path, {"told": 7}):
        assert speed_peers.import_module("models").told == 7
    assert sys.modules == before and str(tmp_path / "src") not in sys.path
    with pytest.raises(WorldError, match="peer: expected diamond=FOLDER"):
        rollout_speed.peers((f"iris={tmp_path}",), (1,))


@pytest.mark.parametrize("line", ["--peer diamond=a --peer iris=b", "--peer diamond=a iris=b"])
def test_all_repeated_peers_are_measured(line: str, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(rollout_speed, "load", lambda *_, **__: tiny_world())
    monkeypatch.setattr(rollout_speed, "ours", lambda one: None)
    monkeypatch.setattr(rollout_speed, "peers", lambda named, _: asked.append(named) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tyro.cli(rollout_speed.main, args=line.split())
    assert asked == [("diamond=a", "iris=b")]


def busy(seconds: float) -> None:
    begun = time.process_time()
    while time.process_time() - begun < seconds:
        pass


def test_the_best_mode_is_the_fastest_measured():
    def way(name: str, seconds: float):
        return lambda: [lambda: name, lambda: busy(seconds) or name]

    ways = {"default": way("default", 0), "best bfloat16": way("slow", 0.05)}
    for name in ("best float32", "best bfloat16"):
        mode, steps = speed_peers.fastest(ways | {name: way("fast", 0.001)})
        assert mode == "best" and steps[0]() == "fast"


def test_the_page_shows_the_results(root: Path):
    found = json.loads((root / "benchmarks/results/rollout-speed.json").read_text())
    assert speed_report.table(found) in (root / "docs/explanation/speed.md").read_text()
