"""Worlds go to a hub and come back: the real client against a server on the loopback interface."""

import json
import os
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import gymnasium
import pytest
import torch

import worldsim
from benchmarks.hub_server import Hub, serve
from tests.worlds import tiny_world
from worldsim.cli import main
from worldsim.store.manifest import WorldFolderError

constants = pytest.importorskip("huggingface_hub.constants")
NAME = "hf://lab/tiny"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """What HF_ENDPOINT, HF_HUB_CACHE, HF_TOKEN and HF_HUB_DISABLE_XET set; the module has read
    them already. (Xet is a protocol of its own, between binaries; this is Git LFS.)"""
    with serve() as served:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, served.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", served.address)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_loopback")
        yield served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return worldsim.save(tiny_world(), tmp_path / "tiny", card=card())


def card() -> dict[str, object]:
    line = {"figure": "VAE: test frames", "value": 30.4, "unit": "dB", "goal": 30, "most": False,
            "above": False, "interval": [29.8, 31.2], "passed": True, "note": ""}  # fmt: skip
    return {"lines": [line], "data": {"episodes": 3, "split": "test", "sha256": "ab" * 32}}


def hashes(folder: Path) -> dict[str, str]:
    return {p.name: sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_a_world_comes_back_as_it_went(hub: Hub, folder: Path) -> None:
    address = worldsim.push(folder, "lab/tiny", license="mit")
    there = hub.files("lab/tiny") or {}
    assert {k: v for k, v in there.items() if k != "README.md"} == hashes(folder)

    page = hub.objects[there["README.md"]].decode()
    front = page.split("---")[1]
    assert "library_name: worldsim" in front and "license: mit" in front and "30.4" in front
    assert "VAE: test frames" in page and "worldsim play hf://lab/tiny" in page

    key = torch.tensor([[1, 2]])
    state, same = (worldsim.load(name).reset(key) for name in (folder, address))
    assert torch.equal(state.latents, same.latents)
    env = gymnasium.make("WorldSim-v0", world=NAME)
    assert env.reset(seed=0)[0].shape == (24, 32, 3)


def test_another_commit_replaces_all_of_the_old_one(hub: Hub, folder: Path) -> None:
    old = worldsim.push(folder, "lab/tiny")
    assert main(["push", str(worldsim.save(tiny_world(steps=2), folder / "b")), "lab/tiny"]) == 0
    assert "card.json" not in (hub.files("lab/tiny") or {})
    with pytest.warns(UserWarning, match="no fidelity card"):
        assert worldsim.load(NAME).config.sampling.num_steps == 2
    assert worldsim.load(old).config.sampling.num_steps == 1


def test_offline_it_is_found_again_and_nothing_is_asked(
    hub: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worldsim.push(folder, "lab/tiny")
    worldsim.load(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.asked)
    worldsim.load(NAME)
    with pytest.raises(WorldFolderError, match="hf://lab/other: .*HF_HUB_OFFLINE is set"):
        worldsim.load("hf://lab/other")
    snapshot = next((tmp_path / "cache").glob("models--*/snapshots/*"))
    (snapshot / "dit.safetensors").unlink()
    with pytest.raises(WorldFolderError, match="only a part of it in the cache"):
        worldsim.load(NAME)
    assert len(hub.asked) == asked


@pytest.mark.parametrize("where", ["hub", "cache"])
def test_a_tampered_file_is_refused_by_name(
    hub: Hub, folder: Path, tmp_path: Path, where: str
) -> None:
    """One byte, on the server or in the cache; sizes and the hub's own names all fit."""
    worldsim.push(folder, "lab/tiny")
    name = (hub.files("lab/tiny") or {})["dit.safetensors"]
    data = bytearray(hub.objects[name])
    data[-1] ^= 1
    if where == "hub":
        hub.objects[name] = bytes(data)
    else:
        worldsim.load(NAME)
        next((tmp_path / "cache").glob(f"models--*/blobs/{name}")).write_bytes(data)
    with pytest.raises(WorldFolderError, match="dit.safetensors: contents: .*push") as caught:
        worldsim.load(NAME)
    assert caught.value.file.endswith("dit.safetensors") and caught.value.field == "contents"


@pytest.mark.parametrize("end", ["outside", "link"])
def test_links_of_the_cache_lead_to_its_blobs_alone(
    hub: Hub, folder: Path, tmp_path: Path, end: str
) -> None:
    worldsim.push(folder, "lab/tiny")
    worldsim.load(NAME)
    link = next((tmp_path / "cache").glob("models--*/snapshots/*/config.json"))
    blob = link.resolve()
    shutil.copy(blob, tmp_path / "config.json")
    if end == "outside":
        link.unlink()
        link.symlink_to(os.path.relpath(tmp_path / "config.json", link.parent))
    else:
        blob.unlink()
        blob.symlink_to(tmp_path / "config.json")
    with pytest.raises(WorldFolderError, match="config.json: file: .*symbolic link"):
        worldsim.load(link.parent)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("hf://lab/none", "no such repository"),
        ("hf://lab/tiny@nowhere", "no such revision"),
        ("hf://tiny", "hf://ORG/NAME"),
        ("hf://../../etc", "hf://ORG/NAME"),
    ],
)
def test_what_is_not_there_is_said(hub: Hub, folder: Path, name: str, told: str) -> None:
    worldsim.push(folder, "lab/tiny")
    with pytest.raises(WorldFolderError, match=told):
        worldsim.load(name)


def test_a_damaged_world_never_goes_up(hub: Hub, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({}))
    with pytest.raises(WorldFolderError, match="config.json"):
        worldsim.push(folder, "lab/tiny")
    assert not hub.asked
