"""A file of tensors is whole or refused, however it was harmed."""

import json
import os
import random
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from worldsim.store.tensors import TensorFileError, load_tensors, save_tensors, verify_tensors

TENSORS = {
    "b": torch.arange(6.0).reshape(2, 3),
    "a": torch.tensor([True, False, True]),
    "c": torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).bfloat16().T,
}
METADATA = {"step": 3, "name": "ü", "parts": [1, None]}


def test_what_goes_out_comes_back(tmp_path: Path) -> None:
    for name in ("x", "y"):
        save_tensors(tmp_path / name, TENSORS, METADATA)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["x", "y"]
    tensors, metadata = load_tensors(tmp_path / "x", finite=True)
    assert metadata == METADATA == verify_tensors(tmp_path / "x")
    assert tensors.keys() == TENSORS.keys()
    assert all(tensors[k].equal(v) and tensors[k].dtype == v.dtype for k, v in TENSORS.items())
    assert safetensors.torch.load_file(tmp_path / "x")["b"].equal(TENSORS["b"])


def refused(path: Path, *words: str, **options: bool | int) -> None:
    start = time.process_time()
    with pytest.raises(TensorFileError) as caught:
        load_tensors(path, **options)  # type: ignore[arg-type]
    assert time.process_time() - start < 2
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_any_flipped_bit_and_any_cut_is_refused(tmp_path: Path) -> None:
    path, rng = tmp_path / "x", random.Random(0)
    save_tensors(path, TENSORS, METADATA)
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        harmed = bytearray(whole)
        harmed[place] ^= 1 << rng.randrange(8)
        path.write_bytes(harmed)
        refused(path)
    for size in (0, 7, 8, 50, len(whole) - 1):
        path.write_bytes(whole[:size])
        refused(path)
    path.write_bytes(whole + b"\0")
    refused(path, "does not fit its size")


def test_what_is_no_file_of_tensors_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "x"
    refused(path, "No such file")
    with path.open("wb") as file:
        file.truncate(3 * 2**30)
    refused(path, "header")
    refused(path, "more than", max_bytes=2**20)
    path.unlink()
    os.mkfifo(path)
    refused(path, "no regular file")
    refused(Path("/dev/zero"), "no regular file")
    link = tmp_path / "link"
    save_tensors(tmp_path / "real", TENSORS)
    link.symlink_to(tmp_path / "real")
    refused(link, "symbolic link")
    plain = tmp_path / "plain"
    safetensors.torch.save_file(dict(b=TENSORS["b"]), plain)
    refused(plain)


def test_values_that_are_not_finite_are_refused_where_asked(tmp_path: Path) -> None:
    save_tensors(tmp_path / "x", {"bad": torch.tensor([1.0, torch.inf])})
    refused(tmp_path / "x", "NaN or infinity in ['bad']", finite=True)
    assert load_tensors(tmp_path / "x")[1] is None


def test_a_save_that_fails_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tensors(tmp_path / "x", TENSORS, 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        save_tensors(tmp_path / "x", TENSORS, 2)
    assert os.listdir(tmp_path) == ["x"] and load_tensors(tmp_path / "x")[1] == 1


def test_names_of_a_file_cannot_paint_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "\x1b[31mred\u202e"
    header = json.dumps({"\x1b[2J": {"dtype": "F4", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(TensorFileError) as caught:
        load_tensors(path)
    assert str(caught.value).isprintable() and r"\x1b[31mred\u202e" in str(caught.value)
