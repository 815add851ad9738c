"""Whatever is written is there whole or not at all, if it is cut short before its last step."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.measured_data import stripes, stripes_data
from tests.world_folders import CARD, tiny_world
from worldsim import files
from worldsim.agents.actor_critic import ActorCritic, AgentConfig
from worldsim.agents.training import save_agent
from worldsim.core import WorldError, row_keys
from worldsim.data.dataset import Caption, DatasetError
from worldsim.data.export import export
from worldsim.data.labelled import LatentLabels
from worldsim.data.native import NativeDataset, NativeWriter, save_episode
from worldsim.evaluate.report import write_card
from worldsim.models.latent_actions import LatentActionConfig, LatentActionModel
from worldsim.play.film import save_film, save_picture
from worldsim.shards import manifest
from worldsim.shards.plan import Plan, keep_plan
from worldsim.store.folder import save
from worldsim.store.latent_actions import save_labels, save_latent_actions
from worldsim.store.snapshot import save_state
from worldsim.store.tensors import save_tensors
from worldsim.train.captioner import CaptionerTraining, recaption
from worldsim.train.plan import StagePlan
from worldsim.train.state import RunState

WORLD = tiny_world()
PICTURE = np.zeros((16, 16, 3), np.uint8)
PLAN = Plan(source="x", fingerprint="y", episodes=1, shards=1, sink="native", packages=())
SHARD = manifest.ShardEntry(shard=0, files=(), episodes=())


def recording(folder: Path) -> Any:
    """Two episodes, made where nothing is counted."""
    shutil.rmtree(folder, ignore_errors=True)
    return stripes_data(folder, train=[stripes(1, 5), stripes(2, 5)]).split("train")


def captioned(place: Path, data: Any) -> None:
    said = tuple(Caption(first=0, stop=5, text=word) for word in ("a", "b", "c", "d"))
    told = dict.fromkeys(data.names, said)
    recaption(data, told, place / "captioned", CaptionerTraining(steps=1))


def planned(place: Path) -> None:
    RunState(place, {"a": 1}).plan("vae", StagePlan(5, False))


AGENT = ActorCritic(WORLD.spec, AgentConfig(width=4, hidden=8))
MODEL = LatentActionModel(LatentActionConfig(chunk=2, size=(8, 8)))
LABELS = LatentLabels(6, {"a": torch.ones(2, 6)}, {"a": torch.ones(2)})
WRITERS: dict[str, Callable[[Path, Any], Any]] = {
    "world": lambda p, _: save(WORLD, p / "w", card=CARD, overwrite=True),
    "snapshot": lambda p, _: save_state(p / "state", WORLD.reset(row_keys([1])), WORLD),
    "agent": lambda p, _: save_agent(AGENT, p / "agent"),
    "tensors": lambda p, _: save_tensors(p / "t", {"a": torch.zeros(3)}),
    "latent action model": lambda p, _: save_latent_actions(MODEL, p / "model"),
    "latent labels": lambda p, _: save_labels(LABELS, p / "labels"),
    "card": lambda p, _: write_card(CARD, p / "card.json"),
    "film": lambda p, _: save_film(p / "film.mp4", [PICTURE] * 3, 10),
    "picture": lambda p, _: save_picture(p / "picture.png", PICTURE),
    "episode": lambda p, _: save_episode(p / "episode.npz", stripes(1, 5)),
    "run": lambda p, _: planned(p),
    "shard": lambda p, _: manifest.write(manifest.shard_path(p, 0), SHARD),
    "plan of shards": lambda p, _: keep_plan(p, PLAN),
    "LeRobot": lambda p, data: export(data, p / "lerobot", "lerobot"),
    "films": lambda p, data: export(data, p / "films", "video"),
    "captions": captioned,
}


def there(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


EXPECTED = (KeyboardInterrupt, WorldError)  # what is there may be refused before it is touched
FOLDERS = ("LeRobot", "films", "captions")  # of which the first files are whole by then


@pytest.mark.parametrize(
    ("name", "after"), [*((n, 0) for n in WRITERS), *((n, 2) for n in FOLDERS)]
)
def test_what_is_cut_short_leaves_what_was_there(
    name: str, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, data = tmp_path / "place", recording(tmp_path / "data")
    calls, sync = 0, files.sync

    def cut(path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            raise KeyboardInterrupt
        sync(path)

    def cut_short() -> None:
        nonlocal calls
        calls = 0
        with monkeypatch.context() as patch, suppress(*EXPECTED):
            patch.setattr(files, "sync", cut)
            WRITERS[name](place, data)

    cut_short()
    assert calls > after and not there(place)
    if after == 0:
        WRITERS[name](place, data)
        before = there(place)
        cut_short()
        assert there(place) == before != {}


def test_a_copy_that_was_cut_short_is_no_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, place = recording(tmp_path / "data"), tmp_path / "copy"
    write, written = NativeWriter.write, []

    def cut(*given: Any) -> Path:
        if written:
            raise KeyboardInterrupt
        written.append(given)
        return write(*given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(NativeWriter, "write", cut)
        export(data, place)
    with pytest.raises(DatasetError, match="cut short.*run the same command again"):
        NativeDataset(place)
    with pytest.raises(DatasetError, match="a new folder, or one begun with"):
        export(stripes_data(tmp_path / "other", train=[stripes(3, 5)]), place)
    export(data, place)
    assert len(NativeDataset(place)) == 2
