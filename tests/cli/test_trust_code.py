"""What a data folder names is imported where the user says so, and only then."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torchrl")

from tests.worlds import tiny_world
from worldsim import cli
from worldsim.agents.actor_critic import ActorCritic, AgentConfig
from worldsim.agents.training import save_agent
from worldsim.core import ActionSpec, EnvironmentSpec
from worldsim.data import DatasetSpec, Episode, NativeWriter
from worldsim.store.folder import save
from worldsim.world.diffusion import DiffusionWorld

CHOICES = ActionSpec(kind="discrete", n=2)
PAYLOAD = "print('executed')\n"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A world, an agent, and data whose environment names a module that lies beside them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "named_by_data.py").write_text(PAYLOAD)
    world = tiny_world(CHOICES)
    save_agent(ActorCritic(world.spec, AgentConfig(width=4, hidden=8)), tmp_path / "agent")
    spec = world.spec
    environment = EnvironmentSpec(
        id="named_by_data:X-v0", size=spec.frame_shape[:2], chunk=spec.chunk
    )
    parts = replace(world.config, environment=environment), world.vae, world.dynamics, world.starts
    save(DiffusionWorld(*parts), tmp_path / "world")
    writer = NativeWriter(tmp_path / "data", DatasetSpec(
        name="data", frame_shape=spec.frame_shape, fps=spec.fps, chunk=spec.chunk, action=CHOICES,
        environment=environment,
    ))  # fmt: skip
    frames = np.zeros((4 * spec.chunk, *spec.frame_shape), np.uint8)
    writer.write("train", Episode(name="a", frames=frames, chunk=spec.chunk, fps=spec.fps,
                                  actions=np.zeros(4, np.int64)))  # fmt: skip
    yield tmp_path
    sys.modules.pop("named_by_data", None)


VERBS = {
    "dyna": "dyna --world world --agent agent --data data --run run",
    "model-free": "model-free --world world --data data --run run --steps 4000",
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_module_that_data_names_is_imported_only_if_the_user_says_so(
    folders: Path, verb: str, capsys: Any
):
    line = VERBS[verb].split()
    assert cli.main(line) == 2
    shown = capsys.readouterr()
    assert "--trust-code" in shown.err and "executed" not in shown.out
    assert "named_by_data" not in sys.modules
    assert cli.main([*line, "--trust-code"]) == 2  # imported: it registers no such environment
    shown = capsys.readouterr()
    assert "executed" in shown.out and "named_by_data" in sys.modules and "X-v0" in shown.err


@pytest.mark.parametrize(
    "line",
    ["info world", "export data --out films --format video", "export data --out copy",
     "export world --out dreams --episodes 1 --time-limit 4"],
)  # fmt: skip
def test_what_makes_no_environment_imports_nothing(folders: Path, line: str, capsys: Any):
    assert cli.main(line.split()) == 0
    assert "executed" not in capsys.readouterr().out and "named_by_data" not in sys.modules
