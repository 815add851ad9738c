"""Two processes train as one: the same losses and weights, checkpoints for any number, no hang."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from benchmarks.ranks import Ranks, together
from benchmarks.scale_out_training import Job, dynamics, losses, same_everywhere, train
from worldsim.core import WorldError
from worldsim.train import stored
from worldsim.train.checkpoint import CheckpointError
from worldsim.train.distributed import check_batch

STEPS = 4


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, float]], Path]:
    """The student's training, which has all of masks, dreams, damage and Muon, in this process."""
    folder = tmp_path_factory.mktemp("alone")
    return train(Job("student", STEPS, "auto", folder)), folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """What a run's newest checkpoint holds, put together in one process."""
    path = stored.newest(folder / "student")
    assert path is not None
    found = stored.open_checkpoint(path)
    return found.read({name: torch.zeros(shape) for name, shape in found.shapes.items()})


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_are_one(alone, tmp_path: Path, strategy):
    """Losses, weights, averages and the optimiser's state; then one goes on from their folder."""
    figures, folder = alone
    both = together(2, train, Job("student", STEPS, strategy, tmp_path, until=STEPS - 1))
    for a, b, c in zip(figures, *both, strict=False):
        assert losses(a) == pytest.approx(losses(b), rel=1e-5) and b == c
    assert [p.name for p in (tmp_path / "student").glob("*checkpoint*")] == ["checkpoint-000000003"]
    rest = train(Job("student", STEPS, "auto", tmp_path))  # one process, from where two stood
    assert losses(rest[0]) == pytest.approx(losses(figures[-1]), rel=1e-5) and len(rest) == 1
    whole, resumed = tensors(folder), tensors(tmp_path)
    assert whole.keys() == resumed.keys() and len(whole) > 2 * len(dynamics().state_dict())
    assert all(torch.allclose(whole[n], resumed[n], atol=2e-5) for n in whole)
    assert not list((tmp_path / "student").glob("checkpoint-*"))
    lines = (tmp_path / "student" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]


def test_a_sharded_checkpoint_is_whole_or_refused(tmp_path: Path):
    """What a kill left has another name; a flipped bit, a missing and a foreign file are found."""
    together(2, train, Job("forced", STEPS, "fsdp2", tmp_path, until=2))
    run = tmp_path / "forced"
    [whole] = run.glob("checkpoint-*")
    shutil.copytree(whole, run / ".checkpoint-000000003.part")
    assert stored.newest(run) == whole
    [first, second] = sorted(whole.glob("*.safetensors"))
    seal = whole / "checkpoint.json"

    def refused(words: str) -> None:
        with pytest.raises(CheckpointError, match=words):
            stored.open_checkpoint(whole)

    for path in (first, second, seal):
        good = path.read_bytes()
        path.write_bytes(good[:-9] + bytes([good[-9] ^ 1]) + good[-8:])
        refused("other content|expected a training checkpoint")
        path.write_bytes(good)
    shutil.copy(first, whole / "shard-9.safetensors")
    refused("shard-9")
    (whole / "shard-9.safetensors").unlink()
    assert stored.open_checkpoint(whole).step == 2
    second.unlink()
    refused(second.name)


def test_a_lost_rank_ends_the_others_with_a_sentence(tmp_path: Path):
    ranks = Ranks(2, train, Job("forced", 100_000, "ddp", tmp_path))
    log = tmp_path / "forced" / "log.jsonl"
    ranks.until(lambda: log.exists())
    ranks.kill(1)
    ended = ranks.end(60)
    assert ended[1].code == -9
    assert "LostRankError: rank 0: expected all 2 processes to go on" in ended[0].error


def test_what_differs_between_processes_is_named():
    said = together(2, same_everywhere)
    assert all("data: expected the same in all 2 processes, got 'abc' in rank 0" in s for s in said)
    assert "'other' in rank 1" in said[0]


def test_a_batch_that_does_not_divide_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("worldsim.train.distributed.world_size", lambda: 8)
    with pytest.raises(WorldError, match="distill.fit.batch: .* by 8 processes, got 14; .* 16"):
        check_batch("distill.fit.batch", 14)
