"""Resuming and stopping: nothing is lost, nothing that anybody made is deleted."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import worldsim
from tests.collect.fakes import Shows, make
from worldsim.collect import CollectError, workers
from worldsim.collect.source import source_of
from worldsim.collect.workers import Job, collect_jobs
from worldsim.data.dataset import DatasetError

FEW: dict[str, Any] = {"episodes": 3, "val": 0, "test": 0, "size": (8, 8)}


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_is_whole_is_kept_and_what_is_damaged_is_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worldsim.collect(make, out=tmp_path, **FEW)
    whole = files(tmp_path)
    kept, broken, flipped = sorted((tmp_path / "train").iterdir())
    stamp = kept.stat().st_mtime_ns, kept.stat().st_ino
    broken.write_bytes(whole[broken.name][:-9])
    data = bytearray(whole[flipped.name])
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)

    worldsim.collect(make, out=tmp_path, **(FEW | {"episodes": 4}))

    assert (kept.stat().st_mtime_ns, kept.stat().st_ino) == stamp
    after = files(tmp_path)
    assert {name: after[name] for name in whole} == whole and len(after) == len(whole) + 3
    assert after[f"{broken.name}.damaged"] == whole[broken.name][:-9]
    assert after[f"{flipped.name}.damaged"] == data
    assert f"set aside as {broken.name}.damaged" in capsys.readouterr().err
    kept.write_bytes(b"")
    workers.set_aside(kept)
    kept.write_bytes(b"again")
    assert workers.set_aside(kept).name == f"{kept.name}.damaged-2"


def test_what_cannot_be_read_just_now_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worldsim.collect(make, out=tmp_path, **FEW)
    before = files(tmp_path)

    def broken_disk(path: Path) -> Any:
        raise DatasetError("cannot be read") from OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(workers, "load_episode", broken_disk)
    with pytest.raises(CollectError, match="Input/output error.*left as it is"):
        worldsim.collect(make, out=tmp_path, **FEW)
    monkeypatch.undo()
    first = tmp_path / "train" / "train-000000.npz"
    first.rename(tmp_path / "elsewhere.npz")
    first.symlink_to(tmp_path / "elsewhere.npz")
    with pytest.raises(CollectError, match="left as it is"):
        worldsim.collect(make, out=tmp_path, **FEW)
    first.unlink()
    (tmp_path / "elsewhere.npz").rename(first)
    assert files(tmp_path) == before


def test_a_failing_policy_leaves_only_whole_episodes(tmp_path: Path) -> None:
    actions = [0] * 6  # 4 chunks an episode: used up inside the second
    with pytest.raises(IndexError) as error:
        worldsim.collect(make, policy=lambda obs: actions.pop(), noise=0, out=tmp_path, **FEW)
    assert error.value.__notes__ == ["while recording train-000001, seed 3"]
    assert sorted(files(tmp_path)) == ["dataset.json", "train-000000.npz"]


def test_a_full_disk_is_named_and_leaves_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worldsim.collect(make, out=tmp_path, **(FEW | {"episodes": 1}))
    before = files(tmp_path)

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("numpy.lib.format.write_array", full)
    with pytest.raises(CollectError, match=r"train-000001.npz: could not .*No space left.*again"):
        worldsim.collect(make, out=tmp_path, **FEW)
    assert files(tmp_path) == before


class Marks(Shows):
    """Leaves a file in `folder` for each episode that begins."""

    def __init__(self, folder: str, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.folder = Path(folder)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        (self.folder / str(seed)).touch()
        return super().reset(seed=seed, options=options)


def slow(obs: Any) -> int:
    time.sleep(0.02)
    return 0


@pytest.mark.nightly
def test_an_error_stops_all_that_is_queued(tmp_path: Path) -> None:
    (begun := tmp_path / "begun").mkdir()
    seen = source_of(
        Marks, env_kwargs={"folder": str(begun), "length": 400}, wrappers=(), source=None, image="",
        state=None, size=(8, 8),
    )  # fmt: skip
    both = [
        workers.CollectPolicy(name="slow", make=lambda env, rng: slow),
        workers.CollectPolicy(name="wrong", make=lambda env, rng: lambda obs: 99),
    ]
    jobs = [
        Job(split="train", name=str(i), seed=i, policy="wrong" if i == 1 else "slow")
        for i in range(100)
    ]
    start = time.monotonic()
    with pytest.raises(CollectError, match="action: expected whole numbers") as error:
        collect_jobs(seen, tmp_path / "data", jobs, both, workers=2)
    assert "while recording 1, seed 1" in error.value.__notes__
    assert {p.name for p in begun.iterdir()} <= {"0", "1", "2"}  # of a hundred
    assert list(files(tmp_path / "data")) == ["dataset.json"]  # nor is an episode of 4 s finished
    assert time.monotonic() - start < 60


SCRIPT = """
import gymnasium, sys, time, worldsim
from tests.collect.fakes import Shows
class Mine(Shows): pass
gymnasium.register("Mine-v0", Mine)
def slow(obs):
    time.sleep(0.01)
    return 0
worldsim.collect("Mine-v0", policy=slow, noise=0, out=sys.argv[1], size=(8, 8), episodes=50,
                 val=0, test=0, env_kwargs={"length": 60}, workers=int(sys.argv[2]))
"""
gymnasium.register("Mine-v0", Shows)


def heed_interrupts() -> None:
    """A shell's background commands ignore Ctrl-C, and so does what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("sent", "processes"),
    [pytest.param(signal.SIGINT, 2, marks=pytest.mark.nightly), (signal.SIGKILL, 1)],
)
def test_stopped_at_any_moment_it_goes_on(
    tmp_path: Path, root: Path, sent: signal.Signals, processes: int
) -> None:
    script = tmp_path / "mine.py"  # without `if __name__ == "__main__":`, which workers do not need
    script.write_text(SCRIPT)
    child = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "data"), str(processes)],
        env={**os.environ, "PYTHONPATH": str(root)}, stderr=subprocess.DEVNULL,
        preexec_fn=heed_interrupts,
    )  # fmt: skip
    train, begun = tmp_path / "data" / "train", time.monotonic()
    while len(list(train.glob("*.npz"))) < 3 and time.monotonic() - begun < 60:
        time.sleep(0.02)
    child.send_signal(sent)
    child.wait(timeout=30)
    there = {p.name: p.read_bytes() for p in train.glob("*.npz")}
    assert 3 <= len(there) < 30

    def quick(obs: Any) -> int:
        return 0

    quick.__name__ = "slow"
    data = worldsim.collect(
        "Mine-v0", policy=quick, noise=0, out=tmp_path / "data", size=(8, 8),
        episodes=len(there) + 2, val=0, test=0, workers=1, env_kwargs={"length": 60},
    )  # fmt: skip
    assert len(data) == len(there) + 2
    assert all((train / name).read_bytes() == content for name, content in there.items())
    assert not list(train.glob(".*"))
    assert all(np.asarray(data.episode(i).frames[0:60]).shape[0] == 60 for i in range(len(data)))
