"""Forged weights and absurd configs, whose hashes fit, are refused before they take memory."""

import io
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from tests.world_folders import Payload, forge, forge_config, forge_weights, fresh, refused
from worldsim.store.folder import load
from worldsim.store.manifest import MANIFEST, WEIGHTS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fresh(tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("dit.depht", 2, ("config.dit: unknown key 'depht'", "did you mean 'depth'?")),
        ("vae.widths", [8, "x"], ("config.vae.widths[1]: expected int, got 'x'",)),
        ("dit.depth", 10**9, ("networks of the", "networks of more than")),
        ("vae.blocks", [10**9, 1], ("networks of more than",)),
        ("vae.decoder_blocks", [10**9, 1], ("networks of more than",)),
        ("vae.decoder_reach", 2, ("config.vae", "decoder_reach: expected 1 or 3, got 2")),
        ("dit.depth", 1, ("config.dit", "time_every")),
        ("dit.depth", -5, ("config.dit", "depth: expected at least 1")),
        ("dit.heads", 0, ("config.json",)),
        ("dit.dim", 10**9, ("config.json",)),
        ("heads.hidden", 10**9, ("heads.safetensors", "1000000000")),
        ("heads.hidden", 10**30, ("config.json",)),
        ("heads.bins", 10**12, ("heads.safetensors", "1000000000000")),
        ("vae.channels", -1, ("config.json",)),
        ("vae.channels", 10**7, ("config.json", "latent_shape")),
        ("spec.context", 10**9, ("starts.npz",)),
        ("spec.frame_shape", [10**6, 10**6, 3], ("config.json", "latent_shape")),
        ("sampling.num_steps", 10**9, ("config.sampling: num_steps: expected 1 to 1000",)),
        ("spec.fps", 1e999, ("config.json", "Infinity")),
    ],
)
def test_an_absurd_config_is_refused(
    folder: Path, path: str, value: Any, words: tuple[str, ...]
) -> None:
    forge_config(folder, path, value)
    refused(folder, *words)


@pytest.mark.parametrize("name", WEIGHTS)
def test_other_tensors_are_refused(folder: Path, name: str) -> None:
    whole, manifest = (folder / name).read_bytes(), (folder / MANIFEST).read_bytes()
    key = next(iter(safetensors.torch.load(whole)))
    for change, words in (
        (lambda state: state.pop(key), ("tensors", f"missing ['{key}']")),
        (lambda state: state.update(more=torch.ones(2)), ("tensors", "extra ['more']")),
        (lambda state: state.update({key: state[key][None]}), (key, f"{state_shape(whole, key)}")),
        (lambda state: state.update({key: state[key].double()}), (key, "F64")),
        (lambda state: state.update({key: state[key].long()}), (key, "I64")),
        (lambda state: state.update({key: state[key] * float("nan")}), (key, "NaN")),
        (lambda state: state.update({key: state[key] + float("inf")}), (key, "infinity")),
    ):
        forge_weights(folder, name, change)
        refused(folder, name, *words)
        (folder / name).write_bytes(whole)
        (folder / MANIFEST).write_bytes(manifest)
    load(folder)


def state_shape(data: bytes, key: str) -> tuple[int, ...]:
    return tuple(safetensors.torch.load(data)[key].shape)


def with_header(raw: dict[str, Any] | bytes, data: bytes) -> bytes:
    text = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
    return len(text).to_bytes(8, "little") + text + data


def hostile_weights(whole: bytes) -> Iterator[tuple[bytes, str]]:
    length = int.from_bytes(whole[:8], "little")
    raw, data = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    yield pickle.dumps(Payload()), "a pickle"
    stream = io.BytesIO()
    torch.save({"a": Payload()}, stream)
    yield stream.getvalue(), "a zip file"
    yield b"", "header"
    yield with_header(b" " * 100_000_000, b""), "header"
    yield (2**60).to_bytes(8, "little") + whole[8:], "header"
    yield with_header(b"[" * 100_000, data), "header"
    yield with_header(b"\xff\xfe", data), "header"
    yield with_header([], data), "header"  # type: ignore[arg-type]
    first, second = [name for name in raw if name != "__metadata__"][:2]
    text = json.dumps(raw)
    again = f'"{first}": {json.dumps(raw[first])}, "{first}"'
    yield with_header(text.replace(f'"{first}"', again, 1).encode(), data), "repeated key"
    overlap = {**raw, second: {**raw[second], "data_offsets": raw[first]["data_offsets"]}}
    yield with_header(overlap, data), "tensors"
    yield with_header(raw, data + bytes(64)), "size"
    yield with_header({**raw, first: {**raw[first], "shape": [2**40]}}, data), "header"
    yield with_header({**raw, first: {**raw[first], "dtype": "F4"}}, data), "header"


def test_hostile_weights_are_refused_and_run_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    name, manifest = WEIGHTS[1], (folder / MANIFEST).read_bytes()
    for data, word in hostile_weights((folder / name).read_bytes()):
        forge(folder, name, data, list_tensors=False)
        refused(folder, name, word)
        (folder / MANIFEST).write_bytes(manifest)
    assert os.listdir() == ["world"]
