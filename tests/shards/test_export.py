"""A shard's bytes follow from the plan and its number: whoever makes it, and however often."""

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

import worldsim
from tests.worlds import SPEED, tiny_world
from worldsim.cli import main
from worldsim.core import WorldError
from worldsim.data import DatasetError, NativeDataset
from worldsim.data.video import VideoDataset
from worldsim.shards.export import Export, of_recordings, of_world, run
from worldsim.shards.plan import own_shards

SINKS = ("native", "lerobot", "webdataset")
Make = Callable[..., Export]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.set_num_threads(1)
    return str(worldsim.save(tiny_world(), tmp_path_factory.mktemp("world") / "tiny"))


@pytest.fixture
def make(world: str, tmp_path: Path) -> Make:
    def export(name: str = "out", **more: object) -> Export:
        settings = {"episodes": 7, "shards": 3, "time_limit": 3, "seed": 5, **more}
        return of_world(world, tmp_path / name, **settings)  # type: ignore[arg-type]

    return export


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize("sink", SINKS)
def test_shards_are_the_same_in_any_order_and_after_damage(make: Make, sink: str) -> None:
    one = make("one", sink=sink)
    assert run(one) == one.folder / "shards.json"
    other = make("other", sink=sink)
    assert [run(other, shard=n) for n in (2, 0)] == [None, None]
    assert run(other, shard=1)
    assert hashes(other.folder) == hashes(one.folder)

    entry = one.made(1)
    assert entry is not None
    file = one.folder / entry.files[0].path
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert one.made(1) and not one.made(1, contents=True)
    run(one, verify=True)
    assert hashes(other.folder) == hashes(one.folder)


def test_episodes_do_not_depend_on_the_number_of_shards(make: Make) -> None:
    a, b = make("a", shards=1), make("b", shards=7)
    run(a)
    run(b)
    data, same = NativeDataset(a.folder), NativeDataset(b.folder)
    assert data.fingerprint() == same.fingerprint() and len(data) == 7
    assert sorted(data.names) == [f"dream-{n:09d}" for n in range(7)]


def test_an_episode_is_what_an_environment_lives(make: Make, world: str) -> None:
    """Episode n is the n-th after `reset(seed=seed)`, under the same actions."""
    export = make(time_limit=3)
    (episode,) = export.source.episodes([2])
    env = gymnasium.make("WorldSim-v0", world=world, observation="chunk", actions="native",
                         time_limit=3, micro_batch=8)  # fmt: skip
    env.reset(seed=5)
    env.reset()
    shown = [env.reset()[0]]
    assert episode.actions is not None and episode.rewards is not None
    rewards = [0.0]
    for action in episode.actions[1:]:
        seen, reward, *_ = env.step(action)
        shown.append(seen)
        rewards.append(float(reward))
    assert np.array_equal(np.concatenate(shown), episode.frames[:])
    assert np.allclose(rewards, episode.rewards, rtol=1e-6)
    assert episode.known is None and episode.truncated and len(episode) == 4


@pytest.mark.parametrize("sink", SINKS)
def test_what_is_written_can_be_read(make: Make, sink: str) -> None:
    export = make(sink=sink, episodes=3, shards=2)
    run(export)
    (first, *_) = export.source.episodes([0])
    if sink == "webdataset":
        with tarfile.open(export.folder / "shard-000000.tar") as tar:
            held = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]
            assert not any(m.mtime for m in tar.getmembers())
        actions = np.load(io.BytesIO(held["dream-000000000.actions.npy"]))
        assert first.actions is not None and np.array_equal(actions, first.actions)
        assert json.loads(held["dream-000000000.json"])["truncated"]
        (export.folder / "films").mkdir()
        (export.folder / "films/a.mp4").write_bytes(held["dream-000000000.mp4"])
        frames = VideoDataset(export.folder / "films", chunk=2).episode(0).frames[:]
        grey = [x.mean(3).ravel() for x in (frames, first.frames[:])]  # noise, by x264
        assert np.corrcoef(*grey)[0, 1] > 0.8
        return
    data = worldsim.open(export.folder)
    episodes = {e.name: e for e in map(data.episode, range(len(data)))}
    assert len(episodes) == 3 and data.spec.action.shape == export.source.spec.action.shape
    if sink == "lerobot":
        info = json.loads((export.folder / "meta/info.json").read_text())
        assert (info["total_episodes"], info["total_frames"]) == (3, 24)
        from pyarrow import parquet

        tables = sorted((export.folder / "data").rglob("*.parquet"))
        index = [i for path in tables for i in parquet.read_table(path)["index"].to_pylist()]
        assert index == list(range(24))


def test_recordings_become_shards(make: Make, tmp_path: Path) -> None:
    run(export := make())
    out, again = tmp_path / "tars", tmp_path / "again"
    given = ["export", str(export.folder), "--format", "webdataset", "--shards", "2", "--out"]
    assert main([*given, str(out)]) == 0
    assert [p.name for p in sorted(out.glob("*.tar"))] == ["shard-000000.tar", "shard-000001.tar"]
    run(of_recordings(NativeDataset(export.folder), again, shards=2))
    assert hashes(again) == hashes(out)


@pytest.mark.parametrize("policy", ["none", "tests.shards.test_export:still"])
def test_policies_act(make: Make, policy: str) -> None:
    (episode,) = make(policy=policy).source.episodes([0])
    if policy == "none":
        assert episode.actions is None and len(episode) == 4
    else:
        assert episode.actions is not None and (episode.actions[1:] == 0.5).all()


def still(world: object) -> Callable[..., torch.Tensor]:
    return lambda state: torch.full_like(state.actions[:, -1], 0.5)


def test_random_actions_fill_their_range(make: Make) -> None:
    dreams = make(episodes=24, time_limit=8).source.episodes(range(24))
    actions = np.concatenate([e.actions[1:] for e in dreams if e.actions is not None])
    spec = tiny_world().spec.action
    low, high = np.array(spec.low), np.array(spec.high)
    share = (actions - low) / (high - low)
    assert 0 <= share.min() and share.max() <= 1 and 0.05 < (share == 1).mean() < 0.3
    held = (actions[1:] == actions[:-1]).all(1).mean()
    assert 0.3 < held < 0.9


@pytest.mark.parametrize(
    ("environment", "shards"),
    [
        ({}, range(10)),
        ({"RANK": "1", "WORLD_SIZE": "4"}, range(1, 10, 4)),
        ({"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_COUNT": "3"},
         range(2, 10, 3)),
        ({"RANK": "1", "WORLD_SIZE": "2", "SLURM_ARRAY_TASK_ID": "1",
          "SLURM_ARRAY_TASK_COUNT": "2"}, range(3, 10, 4)),
    ],
)  # fmt: skip
def test_processes_share_the_shards(environment: dict[str, str], shards: range) -> None:
    assert own_shards(10, environment) == shards


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 6}, "plan.json: seed: expected 5"),
        ({"shards": 8}, "at most one an episode"),
        ({"shards": 0}, "shards: expected a whole number"),
        ({"policy": "nobody"}, "policy: expected random"),
        ({"trust_threshold": 0.5}, "trust: expected a calibrated world"),
    ],
)
def test_what_does_not_fit_is_refused(make: Make, change: dict[str, object], told: str) -> None:
    make()
    with pytest.raises(WorldError, match=told):
        make(**change)


def test_a_folder_with_other_files_is_refused(make: Make, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(DatasetError, match="files in it"):
        make()


@pytest.mark.nightly
def test_two_processes_make_what_one_makes(make: Make, world: str, tmp_path: Path) -> None:
    """Under torchrun's variables, through the command."""
    run(one := make("one", shards=4, sink="webdataset"))
    command = [sys.executable, "-m", "worldsim", "export", world, "--episodes", "7", "--shards",
               "4", "--time-limit", "3", "--seed", "5", "--format", "webdataset", "--out",
               str(tmp_path / "out")]  # fmt: skip
    base = os.environ | {"WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    ranks = [subprocess.Popen(command, env=base | {"RANK": str(n)}) for n in range(2)]
    assert [rank.wait() for rank in ranks] == [0, 0]
    assert hashes(tmp_path / "out") == hashes(one.folder)


def test_dreams_hold_the_state_vector(tmp_path: Path) -> None:
    folder = str(worldsim.save(tiny_world(state=SPEED), tmp_path / "tiny"))
    run(of_world(folder, tmp_path / "out", episodes=2, time_limit=3))
    data = NativeDataset(tmp_path / "out")
    state = data.episode(0).state
    assert data.spec.state == SPEED.names and state is not None and state.shape == (4, 2)
    assert (np.abs(np.diff(state, axis=0)) > 0).all()
