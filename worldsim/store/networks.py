"""The networks of a world folder: what a config builds, what a file holds, and that they agree."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from worldsim.config import ConfigError, short
from worldsim.models.dynamics import Dynamics
from worldsim.models.vae import SpacetimeVAE
from worldsim.world.diffusion import WorldConfig

from .manifest import (
    CONFIG,
    WEIGHTS,
    FileEntry,
    TensorEntry,
    WorldFolderError,
    open_file,
    read_contents,
)
from .tensors import DTYPES, FLOATS, read_header

MAX_TENSORS = 10_000  # of one world


def pack(network: nn.Module, dtype: torch.dtype) -> bytes:
    """A safetensors file of the network, its weights of two and more dimensions in `dtype`."""
    tensors = {name: _stored(value, dtype) for name, value in network.state_dict().items()}
    return safetensors.torch.save(tensors, metadata={"format": "pt"})


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if tensor.is_floating_point():
        dtype = dtype if tensor.ndim > 1 else torch.float32
    else:
        dtype = tensor.dtype
    return tensor.detach().to("cpu", dtype, copy=True, memory_format=torch.contiguous_format)


def build(
    folder: Path, config: WorldConfig, files: dict[str, FileEntry], device: str
) -> tuple[SpacetimeVAE, Dynamics]:
    """The world's networks; on "meta" without memory, since a config may ask for too much."""
    listed = sum(len(files[name].tensors) for name in WEIGHTS)
    limit = min(listed, MAX_TENSORS)
    try:
        with torch.device(device), torch.random.fork_rng([]), _at_most(limit):
            vae = SpacetimeVAE(config.vae)
            channels = config.vae.channels
            return vae, Dynamics(config.dit, config.heads, channels, config.conditioning)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        expected, got = f"networks of the {listed} tensors listed", str(error)[:200]
        raise WorldFolderError(folder / CONFIG, "config", expected, got) from error


def by_file(vae: SpacetimeVAE, dynamics: Dynamics) -> dict[str, nn.Module]:
    """Which network lies in which file."""
    networks = (vae, dynamics.conditioning, dynamics.dit, dynamics.heads)
    return dict(zip(WEIGHTS, networks, strict=True))


@contextmanager
def _at_most(count: int) -> Iterator[None]:
    """Stop this thread from building modules of more than `count` parameters.

    Even without memory a million blocks take minutes to build.
    """
    thread, left = threading.get_ident(), count

    def hook(module: nn.Module, name: str, value: Any) -> None:
        nonlocal left
        if value is None or threading.get_ident() != thread:
            return
        left -= 1
        if left < 0:
            raise ValueError(f"networks of more than {count} tensors")

    handle = register_module_parameter_registration_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def header(path: Path, file: IO[bytes]) -> dict[str, TensorEntry]:
    """The tensors that a safetensors file declares; leaves `file` where the data begins."""
    try:
        return read_header(file)[0]
    except ConfigError as error:
        raise WorldFolderError(path, "header", "safetensors", str(error)[:200]) from error


def check_tensors(path: Path, network: nn.Module, entry: FileEntry) -> None:
    """The file's header, the manifest and the network agree on the tensors."""
    listed = {tensor.name: tensor for tensor in entry.tensors}
    with open_file(path) as file:
        found, start = header(path, file), file.tell()
    if found != listed or len(listed) != len(entry.tensors):
        differ = [n for n in found.keys() | listed.keys() if found.get(n) != listed.get(n)]
        got = f"others: {short(sorted(differ))}"
        raise WorldFolderError(path, "header", "the tensors of the manifest", got)
    wanted = network.state_dict()
    if wanted.keys() != listed.keys():
        missing, extra = sorted(wanted.keys() - listed), sorted(listed.keys() - wanted)
        got = f"missing {short(missing)}, extra {short(extra)}"
        raise WorldFolderError(path, "tensors", f"those of the network in {CONFIG}", got)
    for name, tensor in wanted.items():
        dtype, shape = DTYPES.get(listed[name].dtype), listed[name].shape
        fits = dtype in FLOATS.values() if tensor.is_floating_point() else dtype == tensor.dtype
        if not fits or shape != tuple(tensor.shape):
            expected, got = f"{tensor.dtype} {tuple(tensor.shape)}", short(listed[name])
            raise WorldFolderError(path, name, expected, got)
    size = start + sum(prod(t.shape) * DTYPES[t.dtype].itemsize for t in entry.tensors)
    if size != entry.bytes:
        raise WorldFolderError(path, "size", f"{size} bytes", f"{entry.bytes} bytes")


def fill(folder: Path, entry: FileEntry, network: nn.Module) -> None:
    """Give the network the file's weights."""
    path = folder / entry.name
    try:
        tensors = safetensors.torch.load(read_contents(folder, entry))
    except SafetensorError as error:
        raise WorldFolderError(path, "tensors", "safetensors", str(error)) from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise WorldFolderError(path, name, "finite weights", "NaN or infinity")
    network.float().load_state_dict(tensors)  # whatever the default dtype is just now
