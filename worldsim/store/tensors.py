"""Tensors in a safetensors file that knows its own hash: whole, or refused.

safetensors checks the structure of a file and not its contents (of 1,000 flipped bits 994 load in
silence), so the header's metadata holds a SHA-256 of the whole file, taken with that hash's own 64
characters masked. Use it for whatever outlives a process: weights, optimizer states, latents.

    save_tensors(path, {"weight": x}, {"step": 3})
    tensors, metadata = load_tensors(path)
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import IO, Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from worldsim.config import ConfigError, from_json, parse_json, short
from worldsim.errors import WorldError
from worldsim.files import atomic_path, open_plain

from .manifest import GIB, MIB, TensorEntry

M = TypeVar("M", bound=nn.Module)
V = TypeVar("V")
MAX_HEADER = 4 * MIB
MAX_FILE = 64 * GIB
MOST_TENSORS = 2**14  # of a file
FLOATS = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
DTYPES = {**FLOATS, "F64": torch.float64, "I64": torch.int64, "I32": torch.int32,
          "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool}  # fmt: skip
MASK = b"sha256 of this file with these characters".ljust(64, b".")
PIECE = 4 * MIB


class TensorFileError(WorldError):
    """A file of tensors that is damaged, foreign or too large; `load_tensors` raises it."""


def save_tensors(path: Path | str, tensors: Mapping[str, Tensor], metadata: Any = None) -> None:
    """Write a safetensors file with its own SHA-256, all or nothing; equal input, equal bytes.

    metadata: any JSON value. Raises OSError where the disk fails.
    """
    stored = {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
    # one key: safetensors writes several in any order
    text = json.dumps({"sha256": MASK.decode(), "data": metadata}, allow_nan=False)
    with atomic_path(Path(path)) as part:
        safetensors.torch.save_file(stored, part, metadata={"worldsim": text})
        with part.open("r+b") as file:
            raw = _raw_header(file)
            digest = _digest(file, raw, raw)
            file.seek(8)
            file.write(raw.replace(MASK, digest.encode(), 1))


def load_tensors(
    path: Path | str, *, max_bytes: int = MAX_FILE, finite: bool = False
) -> tuple[dict[str, Tensor], Any]:
    """Tensors on the CPU and the metadata that `save_tensors` wrote.

    max_bytes: of the file; a larger one is refused before it is read.
    finite: refuse floating-point tensors with NaN or infinity.
    Raises TensorFileError for anything but a whole file of `save_tensors`, a missing one included.
    """
    path = Path(path)
    metadata = verify_tensors(path, max_bytes=max_bytes)
    try:
        tensors = safetensors.torch.load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise refusal(path, str(error)) from error
    wrong = [n for n, x in tensors.items() if x.is_floating_point() and not x.isfinite().all()]
    if finite and wrong:
        raise refusal(path, f"NaN or infinity in {short(wrong)}")
    return tensors, metadata


def load_weights(path: Path | str, network: M, *, max_bytes: int = MAX_FILE) -> M:
    """`network` with the weights that `save_tensors` wrote of one like it.

    Raises TensorFileError, `network` being as it was, for any others; see `load_tensors`.
    """
    tensors, _ = load_tensors(path, max_bytes=max_bytes, finite=True)
    check_kinds(Path(path), network, tensors)
    network.float().load_state_dict(tensors)  # whatever the default dtype is just now
    return network


def check_kinds(path: Path, network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Raise TensorFileError unless names, types and shapes are the network's, also on "meta"."""
    wanted = {name: _kind(x, ours=True) for name, x in network.state_dict().items()}
    found = {name: _kind(x) for name, x in tensors.items()}
    if differ := sorted(n for n in wanted.keys() | found if wanted.get(n) != found.get(n)):
        name = differ[0]
        more = f", and {len(differ) - 1} others" if differ[1:] else ""
        raise TensorFileError(
            f"{path}: expected {wanted.get(name, 'no tensor')} for {short(name)}, got "
            f"{found.get(name, 'none')}{more}; give the sizes and the data that it was made with"
        )


def _kind(x: Tensor, *, ours: bool = False) -> str:
    """Type and shape; ours: of a network, which becomes float32 whatever the default was."""
    dtype = torch.float32 if ours and x.is_floating_point() else x.dtype
    return f"{str(dtype).removeprefix('torch.')} {tuple(x.shape)}"


def verify_tensors(path: Path | str, *, max_bytes: int = MAX_FILE) -> Any:
    """The metadata of a file whose hash is right, read in pieces; raises as `load_tensors`."""
    path = Path(path)
    try:
        with open_plain(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise ConfigError(f"{size} bytes, more than {max_bytes}")
            entries, about = read_header(file)
            if size != file.tell() + sum(map(entry_bytes, entries.values())):
                raise ConfigError("a header that does not fit its size")
            told = parse_json(about.get("worldsim", ""), "metadata")
            file.seek(0)
            raw = _raw_header(file)
            if raw.count(str(told["sha256"]).encode()) != 1:
                raise ConfigError("no SHA-256 of its own")
            masked = raw.replace(told["sha256"].encode(), MASK)
            if _digest(file, masked, raw) != told["sha256"]:
                raise ConfigError("other contents than its SHA-256 says")
            return told["data"]
    except OSError as error:
        raise refusal(path, error.strerror or str(error)) from error
    except (ConfigError, LookupError, TypeError) as error:
        raise refusal(path, str(error)[:200]) from error


def under(entries: Mapping[str, V], prefix: str) -> dict[str, V]:
    """Entries whose names begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in entries.items() if k.startswith(prefix)}


def read_header(file: IO[bytes]) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    """Tensors and metadata that a safetensors file declares; leaves `file` where its data begin.

    Raises ConfigError for anything but a header of up to `MAX_HEADER` bytes whose tensors lie one
    after the other.
    """
    raw = _raw_header(file)
    try:
        declared = dict(parse_json(raw, "header"))
        metadata = declared.pop("__metadata__", None) or {}
        if len(declared) > MOST_TENSORS:
            raise ConfigError(f"{len(declared)} tensors, more than {MOST_TENSORS}")
        rows = {n: {"name": n, "dtype": r["dtype"], "shape": r["shape"]}
                for n, r in declared.items()}  # fmt: skip
        entries = {name: from_json(TensorEntry, row, name) for name, row in rows.items()}
        spans = sorted((*r["data_offsets"], n) for n, r in declared.items())
        end = 0
        for first, last, name in spans:
            if first != end or last - first != entry_bytes(entries[name]):
                raise ConfigError(f"{short(name)}: offsets that do not fit its shape")
            end = last
        if not all(isinstance(value, str) for value in dict(metadata).values()):
            raise ConfigError("metadata: expected strings")
        return entries, metadata
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(str(error)[:300]) from error


def entry_bytes(entry: TensorEntry) -> int:
    """Bytes of a tensor; raises ConfigError for types and shapes that no file of ours holds."""
    sides = (0, *entry.shape)
    if entry.dtype not in DTYPES or len(sides) > 17 or not 0 <= min(sides) <= max(sides) < 2**62:
        raise ConfigError(f"{short(entry.name)}: no tensor of ours, {short(entry)}")
    return prod(entry.shape) * DTYPES[entry.dtype].itemsize


def refusal(path: Path, got: str) -> TensorFileError:
    """The error for a file that does not hold what `save_tensors` wrote."""
    return TensorFileError(
        f"{path}: expected a whole file of tensors, got {got}; make it again, or copy it again "
        "from where it came from"
    )


def _raw_header(file: IO[bytes]) -> bytes:
    """The header's text; leaves `file` where the data begin."""
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or not 2 <= length <= MAX_HEADER:
        kind = "a pickle" if start[:1] == b"\x80" else "a zip file" if start[:2] == b"PK" else None
        got = kind or f"one of {length} bytes"
        raise ConfigError(f"expected a safetensors header up to {MAX_HEADER} bytes, got {got}")
    raw = file.read(length)
    if len(raw) < length:
        raise ConfigError(f"a header of {length} bytes cut after {len(raw)}")
    return raw


def _digest(file: IO[bytes], masked: bytes, raw: bytes) -> str:
    """SHA-256 of the file with `masked` for its header `raw`; reads on from the data's begin."""
    whole = sha256(len(raw).to_bytes(8, "little") + masked)
    file.seek(8 + len(raw))
    while piece := file.read(PIECE):
        whole.update(piece)
    return whole.hexdigest()
