"""Training checkpoints of many processes: a folder of shards, whole or not there.

PyTorch's distributed checkpoint (DCP) writes and reads them, so that any number of processes loads
what any other number saved. Each process writes one safetensors file; when all have, the main one
seals the folder: hashes every file, writes `checkpoint.json`, and gives the folder its name. What a
kill leaves behind has another name and is never read; the checkpoint before goes only then.
"""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from concurrent.futures import Future
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.tensor import DTensor

from worldsim.config import read_json
from worldsim.files import open_plain, sync

from .checkpoint import Settings, check_header, damaged, not_finite
from .distributed import is_main, rank, side_group, world_size
from .stored import sealed

SEAL = "checkpoint.json"

logging.getLogger("torch.distributed.checkpoint").setLevel(logging.ERROR)


class SealingWriter(HuggingFaceStorageWriter):
    """Writes shards into `.NAME.part` beside `path`, and seals them as `path`."""

    def __init__(self, path: Path, step: int, settings: Settings) -> None:
        self.target, self.part = path, path.with_name(f".{path.name}.part")
        self._run = {"step": step, "settings": settings}
        super().__init__(str(self.part), save_distributed=True)

    def finish(self, metadata: Any, results: list[list[Any]]) -> None:
        """Called by DCP on the main process, when every process has written and synced its file."""
        super().finish(metadata, results)
        files = {p.name: _hash(p) for p in sorted(self.part.glob("*.safetensors"))}
        seal = self._run | {"files": files}
        seal["sha256"] = _digest(seal)
        (self.part / SEAL).write_text(json.dumps(seal, indent=1) + "\n", encoding="utf-8")
        sync(self.part / SEAL)
        sync(self.part)
        self.part.rename(self.target)
        sync(self.target.parent)
        for older in sealed(self.target.parent)[:-1]:
            shutil.rmtree(older, ignore_errors=True)
        (self.target.parent / "checkpoint").unlink(missing_ok=True)  # of a single process


def begin_save(folder: Path, step: int, settings: Settings, tensors: dict[str, Tensor]) -> Future:
    """Copy the tensors aside and write them while training goes on; `result()` is when all have.

    tensors: by name; those that are no DTensors are the same on all processes.
    """
    path = folder / f"checkpoint-{step:09d}"
    writer = SealingWriter(path, step, settings)
    if is_main():
        shutil.rmtree(writer.part, ignore_errors=True)
    started = async_save(
        {name: _at_least_1d(x) for name, x in tensors.items()},
        storage_writer=writer, process_group=side_group(), no_dist=side_group() is None,
    )  # fmt: skip
    assert isinstance(started, Future)
    return started


def read_seal(path: Path) -> tuple[int, Settings, dict[str, tuple[int, ...]]]:
    """Step, settings and the tensors' shapes; each process verifies its share of the files.

    Raises CheckpointError, on all processes, unless every byte is as it was sealed.
    """
    try:
        seal = read_json(path / SEAL)
        digest = seal.pop("sha256")
        step, settings, files = seal["step"], seal["settings"], dict(seal["files"].items())
        fault = None if digest == _digest(seal) else "other content than its SHA-256 says"
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        step, settings, files, fault = 0, {}, {}, str(error)[:200]
    _agree_on(path, fault or _differing(path, files))
    check_header(path, step, settings)
    known = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    return step, settings, {name: tuple(entry.size) for name, entry in known.items()}  # type: ignore[union-attr]


def _differing(path: Path, files: dict[str, str]) -> str | None:
    """What is other than it was sealed, in this process's share of the files."""
    there = sorted(p.name for p in path.glob("*.safetensors"))
    mine = sorted(files)[rank() :: world_size()]
    try:
        wrong = [n for n in mine if n not in there or _hash(path / n) != files[n]]
    except OSError as error:
        return error.strerror or str(error)
    wrong += sorted(set(there) - set(files))
    return f"other content in {wrong[:5]}" if wrong else None


def read_tensors(path: Path, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a sealed checkpoint, sharded as those of `like` are.

    Raises CheckpointError, on all processes, for values that are not finite.
    """
    found = {name: torch.empty_like(_at_least_1d(x)) for name, x in like.items()}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # so it is
        load(
            dict(found), storage_reader=HuggingFaceStorageReader(str(path)),
            process_group=side_group(), no_dist=side_group() is None,
        )  # fmt: skip
    local = {name: x.to_local() if isinstance(x, DTensor) else x for name, x in found.items()}
    wrong = not_finite(local)
    _agree_on(path, f"values that are not finite in {wrong}" if wrong else None)
    return {name: x if like[name].ndim else x[0] for name, x in found.items()}


def _agree_on(path: Path, fault: str | None) -> None:
    """Raise CheckpointError on all processes where one has found a fault."""
    if world_size() > 1:
        found: list[str | None] = [None] * world_size()
        dist.all_gather_object(found, fault, side_group())
        fault = next((x for x in found if x), None)
    if fault:
        raise damaged(path, fault)


def _at_least_1d(x: Tensor) -> Tensor:
    """Slices of what has no axis cannot be read from safetensors."""
    return x.detach() if x.ndim else x.detach().reshape(1)


def _hash(path: Path) -> str:
    with open_plain(path) as file:
        return file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _digest(seal: dict[str, Any]) -> str:
    return sha256(json.dumps(seal, sort_keys=True).encode()).hexdigest()
