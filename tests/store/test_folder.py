"""A world comes back as it went out, and saving one is all or nothing."""

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.world_folders import (
    CARD,
    STEERING,
    Payload,
    forge,
    fresh,
    refused,
    same,
    tensors,
    tiny_world,
)
from worldsim import worlds
from worldsim.cli.info import info
from worldsim.config import to_json
from worldsim.core import ActionSpec, WorldError, row_keys
from worldsim.models.heads import HeadsConfig
from worldsim.store import folder as checkpoint
from worldsim.store.folder import load, save
from worldsim.store.manifest import CONFIG, STARTS, FileEntry, WorldFolderError
from worldsim.world.diffusion import DiffusionWorld, Starts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fresh(tmp_path)


# --- what goes out comes back ---------------------------------------------------------------------


def test_sizes_are_told_where_a_world_has_several(tmp_path: Path, capsys) -> None:
    """Folders from before say nothing of them; its own size comes first."""
    world = tiny_world()
    assert "sizes" not in to_json(world.config)
    own = world.spec.frame_shape[:2]
    world.config = replace(world.config, sizes=(own, (48, 80)))
    assert load(save(world, tmp_path / "any")).config.sizes == (own, (48, 80))
    info(str(tmp_path / "any"))
    assert f"sizes  {own[0]}x{own[1]}, 48x80" in capsys.readouterr().out
    for wrong in (((48, 80), own), (own, (50, 80))):
        with pytest.raises(WorldError, match="sizes: .* does not fit"):
            replace(world.config, sizes=wrong)


@pytest.mark.parametrize(
    ("action", "dtype"),
    [(STEERING, torch.bfloat16), (ActionSpec(kind="discrete", n=3), torch.float32)],
)
def test_a_world_comes_back(tmp_path: Path, action: ActionSpec, dtype: torch.dtype) -> None:
    world = tiny_world(action=action)
    back = load(save(world, tmp_path / "a" / "b", dtype=dtype, card=CARD))
    assert back.config == world.config and back.card == CARD
    for name, value in tensors(world).items():
        stored = value.to(dtype).float() if value.is_floating_point() and value.ndim > 1 else value
        assert tensors(back)[name].equal(stored) or name == "actions", name
        assert tensors(back)[name].dtype == value.dtype
    assert tensors(back)["actions"].equal(tensors(world)["actions"])
    assert back.vae.encoder.body[0].weight.stride() == world.vae.encoder.body[0].weight.stride()
    again = save(back, tmp_path / "again", dtype=dtype)
    for path in (tmp_path / "a" / "b").iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()


def test_a_loaded_world_steps_as_the_saved_one(tmp_path: Path) -> None:
    world = tiny_world()
    back = load(save(world, tmp_path / "w", dtype=torch.float32, card=CARD))
    for a, b in zip(step(world), step(back), strict=True):
        assert a.equal(b)


def step(world: DiffusionWorld) -> tuple[torch.Tensor, ...]:
    state, prediction = world.step(world.reset(row_keys([1, 2])), torch.full((2, 2), 0.5))
    return state.latents, prediction.reward, prediction.continue_prob, world.decode(state)


def test_loading_leaves_the_global_randomness_alone(folder: Path) -> None:
    before = torch.get_rng_state()
    load(folder)
    assert torch.get_rng_state().equal(before)


def test_a_world_without_a_card_warns(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    save(tiny_world(), tmp_path / "w")
    with pytest.warns(UserWarning, match="no fidelity card"):
        assert load(tmp_path / "w").card is None
    save(tiny_world(), tmp_path / "w", card=CARD, overwrite=True)
    assert load(tmp_path / "w").card == CARD
    assert not recwarn.list


def test_bundled_worlds_load_by_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worlds, "ROOT", folder.parent)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert worlds.names() == ["world"]
    assert load("world").spec.name == "tiny0"
    for name, words in {
        "wrold": "did you mean 'world'?",
        "org/name": "a world of the Hugging Face hub is hf",
        "/no/such/folder": "a bundled world (world)",
        "": "manifest.json",
    }.items():
        with pytest.raises(WorldFolderError) as caught:
            load(name)
        assert words in str(caught.value)


# --- saving is all or nothing ---------------------------------------------------------------------


def test_only_a_world_is_overwritten_and_only_when_asked(tmp_path: Path) -> None:
    old, new = tiny_world(0), tiny_world(1)
    path = save(old, tmp_path / "w", dtype=torch.float32, card=CARD)
    with pytest.raises(WorldFolderError, match="overwrite=True"):
        save(new, path)
    assert same(load(path), old)
    (path / "notes.txt").write_text("mine")
    with pytest.raises(WorldFolderError, match="notes.txt"):
        save(new, path, overwrite=True)
    assert same(load(path), old) and (path / "notes.txt").exists()
    (path / "notes.txt").unlink()
    save(new, path, dtype=torch.float32, card=CARD, overwrite=True)
    assert same(load(path), new) and os.listdir(tmp_path) == ["w"]
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(WorldFolderError, match="a file"):
        save(new, file, overwrite=True)
    assert file.read_text() == "mine"


def test_what_would_not_load_is_not_saved(tmp_path: Path) -> None:
    def spoil(world: DiffusionWorld) -> None:
        world.vae.encoder.body[0].weight.data[0, 0, 0, 0] = float("nan")

    def mismatch(world: DiffusionWorld) -> None:
        world.config = replace(world.config, heads=HeadsConfig(hidden=9, bins=5))

    def overflow(world: DiffusionWorld) -> None:
        world.starts.actions[1, 1, 0] = 2.0

    def no_clip(world: DiffusionWorld) -> None:
        world.starts = Starts(*(x if x is None else x[:0] for x in vars(world.starts).values()))

    path = save(tiny_world(), tmp_path / "w", dtype=torch.float32, card=CARD)
    for harm in (spoil, mismatch, overflow, no_clip):
        world = tiny_world(1)
        harm(world)
        with pytest.raises(WorldFolderError, match="nothing was saved"):
            save(world, path, overwrite=True)
        assert same(load(path), tiny_world()) and os.listdir(tmp_path) == ["w"]
    for card in ({"psnr": float("nan")}, {"path": tmp_path}):
        with pytest.raises(WorldFolderError, match=r"card\.json"):
            save(tiny_world(1), path, overwrite=True, card=card)
    with pytest.raises(ValueError, match="dtype: expected one of"):
        save(tiny_world(1), path, overwrite=True, dtype=torch.int8)
    assert same(load(path), tiny_world()) and os.listdir(tmp_path) == ["w"]


class Disk:
    """Fails at the n-th write, sync, rename, creation or removal, and from then on if it dies."""

    def __init__(self, patch: pytest.MonkeyPatch, good: int, *, dies: bool) -> None:
        self.left, self.dies, self.failed = good, dies, 0
        self.done: list[str] = []
        for place, name in ((os, "fsync"), (os, "rename"), (os, "mkdir"), (shutil, "rmtree")):
            patch.setattr(place, name, self.counted(getattr(place, name), name))
        patch.setattr(Path, "write_bytes", lambda path, data: self.torn_write(path, data))

    def tick(self) -> bool:
        self.left -= 1
        fails = self.left < 0 if self.dies else self.left == -1
        self.failed += fails
        return fails

    def counted(self, real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not self.tick():
                self.done.append(name)
                return real(*args, **kwargs)
            if not kwargs.get("ignore_errors"):
                raise OSError(28, f"no space left: {name}")

        return call

    def torn_write(self, path: Path, data: bytes) -> None:
        fails = self.tick()
        path.open("wb").write(data[: len(data) // 2] if fails else data)
        if fails:
            raise OSError(28, "no space left: write")
        self.done.append("write")


@pytest.mark.nightly
@pytest.mark.parametrize("dies", [False, True], ids=["once", "for-good"])
@pytest.mark.parametrize("overwrite", [True, False], ids=["overwrite", "first"])
def test_a_save_that_fails_anywhere_leaves_a_world(
    tmp_path: Path, dies: bool, overwrite: bool
) -> None:
    old, new, seen = tiny_world(0), tiny_world(1), []
    save(old, tmp_path / "old", dtype=torch.float32, card=CARD)
    for good in count():
        path = tmp_path / str(good) / "w"
        if overwrite:
            shutil.copytree(tmp_path / "old", path)
        else:
            path.parent.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch, good, dies=dies)
            try:
                save(new, path, dtype=torch.float32, card=CARD, overwrite=overwrite)
                raised = False
            except OSError:
                raised = True
        if not disk.failed:
            break
        seen.append(found_there(path, old, new))
        assert raised or seen[-1] == "new"  # what was acknowledged is there
        if dies:  # what the dead left behind does not stop the next
            save(new, path, dtype=torch.float32, card=CARD, overwrite=True)
            assert same(load(path), new)
        else:
            assert path.exists() == (seen[-1] != "none")
            assert set(os.listdir(path.parent)) <= {"w", ".w.old"}
    # the first mkdir, of the parent, may fail: it is there
    before = "old" if overwrite else "none"
    written = ["mkdir", "mkdir", *8 * ["write"], *9 * ["fsync"]]
    renamed = ["rmtree", "rename", "rename"] if overwrite else ["rename"]
    assert disk.done == [*written, *renamed, "fsync", "rmtree"]
    assert seen[1:17] == [before] * 16 and seen[-1] == "new" and set(seen) == {before, "new"}


def found_there(path: Path, old: DiffusionWorld, new: DiffusionWorld) -> str:
    try:
        world = load(path)
    except WorldFolderError as error:
        assert "nothing there" in str(error)
        return "none"
    return "old" if same(world, old) else "new" if same(world, new) else "neither"


def test_a_load_during_an_overwrite_reads_the_new_world(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, new = checkpoint.check_files, tiny_world(1)

    def swapped(place: Path, manifest: Any) -> dict[str, FileEntry]:
        monkeypatch.setattr(checkpoint, "check_files", real)
        save(new, folder, dtype=torch.float32, card=CARD, overwrite=True)
        return real(place, manifest)

    monkeypatch.setattr(checkpoint, "check_files", swapped)
    assert same(load(folder), new)


def test_the_config_of_a_folder_is_readable(folder: Path) -> None:
    assert json.loads((folder / CONFIG).read_text()) == to_json(tiny_world().config)


# --- start clips and card ---


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def bzipped(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_BZIP2) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.save(file, array)
    return stream.getvalue()


def test_hostile_start_clips_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    with np.load(folder / STARTS) as file:
        frames, actions, known = file["frames"], file["actions"], file["known"]
    lying = npz(frames=frames, actions=actions, known=known)

    def changed(**arrays: np.ndarray) -> bytes:
        return npz(**{"frames": frames, "actions": actions, "known": known, **arrays})

    stored = io.BytesIO()
    np.savez(stored, frames=frames, actions=actions, known=known)  # type: ignore[arg-type]
    for data, words in (
        (npz(frames=frames), ("arrays", "'actions'")),
        (npz(frames=frames, actions=actions, known=known, more=known), ("arrays", "'more'")),
        (changed(frames=np.array([Payload()])), ("frames", "object")),
        (changed(frames=frames.astype(np.int16)), ("frames", "int16")),
        (changed(frames=frames[:, :4]), ("frames", "(4, 4, 16, 24, 3)")),
        (changed(frames=frames[:3]), ("3 frames", "4 actions")),
        (changed(frames=frames[:0], actions=actions[:0], known=known[:0]), ("0 frames",)),
        (changed(actions=actions.astype(np.float64)), ("actions", "float64")),
        (changed(actions=actions + 5), ("actions", "from (-1.0, 0.0)")),
        (changed(actions=actions * np.inf), ("actions", "inf")),
        (changed(known=known * 1), ("known", "int64")),
        (changed(known=known[1:]), ("4 frames", "3 known")),
        (stored.getvalue().replace(b"(4, 6, 16", b"(9, 6, 16"), ("frames", "(9, 6, 16")),
        (bzipped(frames=frames, actions=actions, known=known), ("stored or deflated",)),
        (lying[:-30], ("npz",)),
        (lying[:200] + bytes([lying[200] ^ 255]) + lying[201:], ("npz",)),
        (b"", ("npz",)),
        (pickle.dumps(Payload()), ("npz",)),
    ):
        forge(folder, STARTS, data)
        refused(folder, STARTS, *words)
    forge(folder, STARTS, lying)
    monkeypatch.setattr(checkpoint, "MAX_STARTS", frames.nbytes - 1024)
    refused(folder, STARTS, "unpacked")
    assert os.listdir() == ["world"]


@pytest.mark.parametrize("text", ["[]", "{", '{"a": NaN}', '{"a": 1, "a": 2}'])
def test_a_card_is_a_json_object(folder: Path, text: str) -> None:
    forge(folder, "card.json", text.encode())
    refused(folder, "card.json")
