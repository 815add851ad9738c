"""A damaged or foreign world folder is refused, and the error names what is wrong."""

import os
import pickle
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.world_folders import forge_manifest, fresh, refused
from worldsim.store.folder import load
from worldsim.store.manifest import CONFIG, MANIFEST, STARTS, WEIGHTS, WorldFolderError
from worldsim.store.manifest import read_manifest as read


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fresh(tmp_path)


def test_any_flipped_bit_and_any_truncation_is_refused(folder: Path) -> None:
    rng = random.Random(0)
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        places = [7, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(2))]
        for place in places:
            flipped = bytearray(whole)
            flipped[place] ^= 1 << rng.randrange(8)
            path.write_bytes(flipped)
            refused(folder, path.name)
            path.write_bytes(whole[:place])
            refused(folder, path.name)
        path.write_bytes(whole + b"\0")
        refused(folder, path.name)
        path.write_bytes(whole)
    load(folder)


def test_missing_and_foreign_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    for name in (CONFIG, *WEIGHTS, STARTS):
        (folder / name).rename(tmp_path / "kept")
        refused(folder, name, "No such file")
        (tmp_path / "kept").rename(folder / name)
    refused(tmp_path / "none", "world folder")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(empty, "manifest.json")
    for text in ('{"format": "other"}', '{"model_type": "llama"}', "[]", "3"):
        (empty / MANIFEST).write_text(text)
        refused(empty, "format", "worldsim-world")
    refused(folder / CONFIG, "manifest.json")


def test_links_pipes_and_folders_are_not_files(folder: Path, tmp_path: Path) -> None:
    for name in (MANIFEST, CONFIG, WEIGHTS[0], STARTS):
        path, kept = folder / name, tmp_path / "kept"
        path.rename(kept)
        path.symlink_to(kept)
        refused(folder, name, "symbolic link", "cp -rL")
        path.unlink()
        os.mkfifo(path)
        refused(folder, name, "a regular file")
        path.unlink()
        path.mkdir()
        refused(folder, name, "a regular file")
        path.rmdir()
        kept.rename(path)
    load(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw.update(schema=99, worldsim="9.0"), ("version 4", "got 99", "'9.0'")),
        (lambda raw: raw.update(schema=True), ("version 4", "got True")),
        (lambda raw: raw.update(extra=1), ("unknown key 'extra'",)),
        (lambda raw: raw.pop("files"), ("missing keys ['files']",)),
        (lambda raw: raw.update(worldsim="0.1.1"), ("sha256", "changed by hand")),
        (lambda raw: raw["files"][0].update(sha="x"), ("files[0]: unknown key 'sha'", "sha256")),
        (lambda raw: raw["files"][1]["tensors"][0].update(shape="x"), ("shape: expected a list",)),
    ],
)
def test_a_changed_manifest_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], None], words: tuple[str, ...]
) -> None:
    forge_manifest(folder, change)
    refused(folder, MANIFEST, *words)


def test_a_manifest_of_other_files_is_refused(folder: Path) -> None:
    good = read(folder)
    for files in (good.files[1:], (*good.files, good.files[0]), (
        *good.files, replace(good.files[0], name="../secret")
    )):  # fmt: skip
        (folder / MANIFEST).write_bytes(replace(good, files=files).sealed().dump())
        refused(folder, MANIFEST, "files", "each once")
    uncarded = tuple(entry for entry in good.files if entry.name != "card.json")
    (folder / MANIFEST).write_bytes(replace(good, files=uncarded).sealed().dump())
    refused(folder, "card.json", "as the manifest says")
    text = good.dump().decode()
    (folder / MANIFEST).write_text(text.replace('"schema": 4,', '"schema": 4, "schema": 4,'))
    refused(folder, MANIFEST, "repeated key 'schema'")
    (folder / MANIFEST).write_text(" " * (5 * 2**20))
    refused(folder, MANIFEST, "a regular file of at most")


def test_the_error_survives_a_process_boundary() -> None:
    error = WorldFolderError(Path("w"), "size", "3 bytes", "2 bytes")
    back = pickle.loads(pickle.dumps(error))
    assert str(back) == str(error) and back.field == "size" and isinstance(back, ValueError)
