"""The usual mistakes of newcomers: each is answered by one sentence that names what to do."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import worldsim
from tests.data.films import noise, write, write_csv
from tests.world_folders import tiny_world
from worldsim.cli import main
from worldsim.collect.environment import make_environment
from worldsim.core import EnvironmentSpec, WorldError
from worldsim.data.dataset import DatasetSpec, Episode
from worldsim.data.native import NativeWriter

STEERING = tiny_world().spec.action
POINT = worldsim.PointWorld().reset(worldsim.core.row_keys([0]))
REPO = Path(__file__).resolve().parents[2]

COMMANDS = {  # what is typed -> what the answer must name
    # --- verbs and flags
    "colect CartPole-v1": "did you mean collect?",
    "info": "missing from worldsim info: WORLD",
    "info world extra": "unrecognized options: extra; see worldsim info --help",
    "eval world --data data": "--world",
    "play world --brower": "did you mean --browser?",
    "train data --out new --preset huge": "'tiny'",
    "train data --out new --hours soon": "--hours",
    "train data --out new --size 32": "--size",
    "train data --out new --hours 1 --hours 2": "give each flag once",
    "play world --threads 0": "threads: expected at least 1, got 0",
    # --- names and paths
    "info pendulm": "did you mean 'pendulum'?",
    "info nowhere": "check the path",
    "play somebody/world": "hub",
    "info file.txt": "pass a folder that worldsim.save wrote",
    "train nowhere --out new": "check its path, or record with worldsim collect",
    "train file.txt --out new": "give the folder that it lies in",
    "train films/broken.mp4 --out new": "give the folder that it lies in",
    # --- one thing given for another
    "play data": "worldsim train",
    "info films": "worldsim train",
    "train pendulum --out new": "worldsim collect pendulum",
    "train world --out new": "worldsim play world",
    "eval --world world --data world": "worldsim play world",
    "eval --world world --data other": "give recordings of the world's own kind",
    "agent --world world --data nowhere --run new": "worldsim collect",
    "dyna --world world --agent nowhere --data films --run new": "worldsim import films",
    "model-free --world world --data data --run new --steps 9999": "pass the EnvironmentSpec",
    # --- recordings
    "train empty --out new": "give another folder",
    "train films --out new": "convert it with ffmpeg, or take it out of the folder",
    "train short --out new": "write a row for each frame",
    "train mixed --out new": "give size=(height, width)",
    "train minari:no/such-v0 --out new": "minari download",
    "train data --out new --size 16 16": "leave it out",
    "export data --folder films": "choose another",
    # --- where to, and how long
    "train data --out world": "choose another, or overwrite",
    "train data --out new --hours -1": "hours: expected",
    "train data --out new --hours 0.00001": "give 0.0",
    "train data --out new --hours 1 --steps 5": "give one budget",
    "calibrate --world world --data data": "name where to write",
    "calibrate --world pendulum --data data --in-place": "write a copy with --out FOLDER",
    "collect CartPole-v1 --folder file.txt --size 8 8": "file.txt",
    # --- environments
    "collect CartPol-v1 --folder new": "Did you mean: `CartPole`?",
    "collect CartPole-v1 --folder new --size 30 30": "such as (32, 32)",
    "collect CartPole-v1 --folder new --episodes -3": "episodes: expected",
    "collect CartPole-v1 --folder new --episodes 0": "episodes: expected 1 or more",
    "collect CartPole-v1 --folder new --policy mine:act": "run from the folder that holds",
    "collect CartPole-v1 --folder data --size 16 24 --episodes 1": "choose another folder",
    # --- stages, files of others, devices, ports
    "agent --world world": "data/tiny",
    "eval --world world --data data --run nowhere": "worldsim train DATA --out WORLD --run nowhere",
    "eval --world world --data data --only-trust": "worldsim eval --world world --data data",
    "eval --world world --data data --noise-floor file.txt": "python -m benchmarks.noise_floor",
    "play world --agent nowhere": "train it with worldsim agent",
    "play world --device cuda": "use 'cpu'",
    "play world --device gpu": "device: expected one of cpu",
    "play world --port 99999 --no-browser": "--port 0 takes a free one",
    "play world --host 0.0.0.0 --no-browser": "keep 127.0.0.1 and tunnel",
    "cost --device h300": "expected one of a100, h100",
    "demo --seconds 0": "seconds: expected more than 1",
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a newcomer types: a world, its recordings, films, and what is neither."""
    desk = tmp_path_factory.mktemp("desk")
    worldsim.save(tiny_world(), desk / "world")
    shape, count = (16, 24, 3), 12
    for name, action in (("data", STEERING), ("other", worldsim.ActionSpec(kind="none"))):
        spec = DatasetSpec(name=name, frame_shape=shape, fps=12.5, chunk=2, action=action)
        actions = None if action.kind == "none" else np.zeros((count, 2), np.float32)
        for split in ("train", "val", "test"):
            episode = Episode(
                name=split, frames=noise(2 * count), chunk=2, fps=12.5, actions=actions,
                truncated=True,
            )  # fmt: skip
            NativeWriter(desk / name, spec).write(split, episode)
    (desk / "file.txt").write_text("no world, no film")
    (desk / "empty").mkdir()
    (desk / "films").mkdir()
    (desk / "films" / "broken.mp4").write_text("no film")
    write(desk / "short" / "a.mkv", noise(9))
    write_csv(desk / "short" / "a.csv", action=[0, 1, 0])
    for side in (16, 32):
        write(desk / "mixed" / f"{side}.mkv", noise(9, side, side))
    return desk


@pytest.mark.filterwarnings("ignore:.*no fidelity card")
@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_that_does_not_fit(
    words: str, desk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(desk)
    before = set(desk.rglob("*"))
    assert main(words.split()) == 2
    told = capfd.readouterr().err
    said = [line for line in told.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and "Traceback" not in told and len(said[0]) < 600, told
    assert COMMANDS[words] in said[0]
    made = {path for path in desk.rglob("*")} - before
    assert not {path for path in made if "runs" not in path.parts}, "nothing is written"


@pytest.mark.parametrize(
    ("package", "words", "extra"),
    [
        ("uvicorn", "play world", "worldsim[web]"),
        ("pyarrow", "export data --folder new", "worldsim[lerobot]"),
        ("h5py", "train minari:hdf5 --out new", "worldsim[minari]"),
        ("tensorboard", "train data --out new --steps 999 --tensorboard", "worldsim[tensorboard]"),
        ("wandb", "train data --out new --steps 999 --wandb", "worldsim[wandb]"),
        ("pygame", "play world --window", "worldsim[play]"),
        ("Box2D", "collect CarRacing-v3 --folder new", "worldsim[box2d]"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*no fidelity card")
def test_a_missing_extra_is_named(
    package: str, words: str, extra: str, desk: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if package == "Box2D":
        pytest.importorskip("Box2D")
    ours = ("worldsim.play", "worldsim.cli.play", "gymnasium.envs.box2d")
    for name in [n for n in sys.modules if n.startswith((package, *ours))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    monkeypatch.chdir(desk)
    (desk / "hdf5" / "data").mkdir(parents=True, exist_ok=True)
    (desk / "hdf5" / "data" / "main_data.hdf5").touch()
    assert main(words.split()) == 2
    said = capfd.readouterr().err.splitlines()[-1]
    assert said.startswith("error: ") and extra in said and not (desk / "new").exists()


def make(**settings: Any) -> Any:
    return gymnasium.make("WorldSim-v0", world="worldsim.world.point:PointWorld", **settings)


def begun(**settings: Any) -> Any:
    env = make(**settings)
    env.reset(seed=0)
    return env


def rows(**settings: Any) -> Any:
    envs = gymnasium.make_vec("WorldSim-v0", 2, world=worldsim.PointWorld(), **settings)
    envs.reset(seed=0)
    return envs


def start(clip: Any) -> Any:
    return make().reset(options={"frames": clip})


PYTHON: dict[str, tuple[Callable[[], Any], str]] = {
    "the action is of another shape": (lambda: begun().step(np.zeros(3)), "one is like [0.0, 0.0]"),
    "out of range": (lambda: begun().step([5, 0]), "np.clip(action, space.low, space.high)"),
    "one row for two": (lambda: rows().step(np.zeros(2, np.float32)), "expected shape (2, 2)"),
    "a step before reset": (lambda: make().step(np.zeros(2)), "call env.reset() before env.step()"),
    "a clip of another size": (lambda: start(np.zeros((2, 8, 8, 3), np.uint8)), "resize or crop"),
    "colours first": (lambda: start(np.zeros((2, 3, 40, 40), np.uint8)), "colours come last"),
    "floats as a picture": (lambda: start(np.zeros((2, 40, 40, 3))), "(255 * frames).round()"),
    "a class for a world": (
        lambda: gymnasium.make("WorldSim-v0", world=worldsim.PointWorld),
        'expected a bundled name, a folder, "hf://ORG/NAME", "module:function" or an object',
    ),
    "a seed for keys": (lambda: worldsim.PointWorld().reset(0), "row_keys([0])"),  # type: ignore[arg-type]
    "an environment for a state": (
        lambda: worldsim.replay(tiny_world(), begun(), torch.zeros(1, 2, 2)),
        "env.unwrapped.get_state().episode.state",
    ),
    "a state of another world": (lambda: tiny_world().step(POINT), "not another world's"),
    "a picture of another world's state": (
        lambda: tiny_world().decode(POINT),
        "not another world's",
    ),
    "a name for a loaded world": (
        lambda: worldsim.imagine("pendulum", POINT, lambda state: state.latent, 1),  # type: ignore[arg-type]
        "worldsim.load('pendulum')",
    ),
    "a stage that was not trained": (
        lambda: worldsim_stage("vae"),
        "train it first: worldsim train DATA --out WORLD --run run",
    ),
    "a number for an environment": (lambda: worldsim.collect(3, out="new"), "env: expected an id"),
    "an id that imports": (
        lambda: make_environment(EnvironmentSpec(id="os:Name-v0", size=(8, 8), chunk=1)),
        "trust_code=True",
    ),
}


def worldsim_stage(name: str) -> Any:
    from worldsim.models.vae import SpacetimeVAE
    from worldsim.train.final import load_final

    return load_final(SpacetimeVAE(tiny_world().config.vae), Path("run") / name)


@pytest.mark.parametrize("mistake", PYTHON)
def test_a_call_that_does_not_fit(mistake: str) -> None:
    call, remedy = PYTHON[mistake]
    with pytest.raises((WorldError, gymnasium.error.Error)) as caught:
        call()
    told = str(caught.value)
    assert remedy in told and "\n" not in told and len(told) < 500


def test_names_of_ours_are_suggested() -> None:
    with pytest.raises(AttributeError, match="did you mean 'load'"):
        worldsim.laod  # noqa: B018  # type: ignore[attr-defined]
    with pytest.raises(gymnasium.error.NameNotFound, match="Did you mean: `WorldSim`"):
        gymnasium.make("Worldsim-v0")


def test_an_old_python_is_told_so(tmp_path: Path) -> None:
    """By make, and by pip, which reads what the project asks for."""
    old = tmp_path / "python3.10"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.10.4\nexit 1\n')
    old.chmod(0o755)
    command = ["make", "setup", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 2
    assert f"needs Python 3.11 or newer; {old} is Python 3.10.4. Try: make PYTHON" in done.stderr
    assert re.search(r'^requires-python = ">=3.11"', (REPO / "pyproject.toml").read_text(), re.M)
