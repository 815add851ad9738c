"""States on disk: saved here, restored in another process, and the future repeats bit for bit.

A snapshot is one safetensors file. Tensors lie in it by the path of their field ("state.latents");
its one line of metadata is a JSON header: what was saved, of which world (by hash), under what
versions, device and threads, all that is not a tensor, and a SHA-256 over everything, as
safetensors itself does not notice a flipped bit. Equal states give equal bytes.

What makes a state wrong here (another kind, another world, shapes that do not fit, damage) is
refused. What makes its future differ in the last bits only (another torch, device, number of
threads, micro-batch) is warned of, or refused under `strict`.
"""

from __future__ import annotations

import io
import json
import platform
import warnings
from dataclasses import dataclass, fields, is_dataclass, replace
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any, TypeVar, get_args, get_type_hints

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from worldsim.config import ConfigError, from_json, parse_json, short, to_json, value_from_json
from worldsim.core import WorldError, WorldModel, WorldState
from worldsim.files import open_plain, read_bytes, write_bytes
from worldsim.nn.dtype import numerics
from worldsim.world.compiled import CompiledWorld
from worldsim.world.diffusion import DiffusionWorld
from worldsim.world.fixed_batch import FixedBatch

from .manifest import GIB
from .tensors import entry_bytes, read_header

T = TypeVar("T")
FORMAT, SCHEMA = "worldsim-snapshot", 5
MAX_FILE = 16 * GIB
EXACT = ("worldsim", "torch", "device", "dtype", "compiled", "numerics", "threads", "micro_batch")
"""Header fields that must agree for a future to repeat bit for bit."""


class SnapshotError(WorldError):
    """A snapshot that is damaged, foreign or of another world.

    Attributes: field, expected, got, remedy, all strings.
    """

    def __init__(self, field: str, expected: str, got: str, remedy: str) -> None:
        self.field, self.expected, self.got, self.remedy = field, expected, got, remedy
        super().__init__(field, expected, got, remedy)

    def sentence(self) -> str:
        """See `WorldError`."""
        return f"snapshot: {self.field}: expected {self.expected}, got {self.got}; {self.remedy}"


class SnapshotWarning(UserWarning):
    """The future of a snapshot will be close to the one it had, and not equal to the bit."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a snapshot is and what its bits depend on.

    Attributes:
        kind: the class that was saved.
        world: the world's name.
        world_hash: SHA-256 of its settings, weights and start clips.
        worldsim, torch: versions.
        device: kind and model.
        dtype: that its networks multiply in.
        compiled: whether programs ran in place of the networks.
        numerics: settings of the process that decide how sums are rounded (`nn.dtype.numerics`).
        threads: of the CPU.
        micro_batch: rows that are computed together, None where the batch is taken as it comes.
        sha256: over this header with an empty `sha256`, all plain values and all tensors.
    """

    format: str = FORMAT
    schema: int = SCHEMA
    kind: str
    world: str
    world_hash: str
    worldsim: str
    torch: str
    device: str
    dtype: str
    compiled: bool
    numerics: str
    threads: int
    micro_batch: int | None
    sha256: str = ""


def save_state(path: str | Path, state: Any, world: WorldModel) -> Path:
    """Save `state` (a `WorldState`, or what an environment's `get_state` gave) for `load_state`.

    All or nothing: a file that was there before stays whole until the new one is on the disk.
    """
    write_bytes(Path(path), dump(state, world))
    return Path(path)


def load_state(path: str | Path, kind: type[T], world: WorldModel, *, strict: bool = False) -> T:
    """The `kind` (`WorldState`, `EnvState`, ...) that was saved at `path`, on the world's device.

    Raises SnapshotError for damage, another kind and another world; warns with SnapshotWarning
    where the future will not be equal to the bit, or raises that too under `strict`. Runs no code
    of the file.
    """
    path = Path(path)
    try:
        with open_plain(path) as file:
            _check_size(file)
        data = read_bytes(path, MAX_FILE)
    except OSError as error:
        got = error.strerror or str(error)
        raise SnapshotError("file", "a regular file", f"{path}: {got}", _AGAIN) from error
    return parse(data, kind, world, strict=strict)


def dump(state: Any, world: WorldModel) -> bytes:
    """The bytes of a snapshot; equal states of equal worlds give equal bytes."""
    tensors: dict[str, Tensor] = {}
    plain = _take_apart(state, "", tensors)
    header = _header(type(state).__name__, world)
    header = replace(header, sha256=_seal(header, plain, tensors))
    text = json.dumps({"header": to_json(header, "header"), "plain": plain})
    return safetensors.torch.save(tensors, metadata={"snapshot": text})


def parse(data: bytes, kind: type[T], world: WorldModel, *, strict: bool = False) -> T:
    """What `dump` made; see `load_state`."""
    header, plain = _read_header(data)
    here = _header(kind.__name__, world)
    for name, remedy in (
        ("kind", "load it into what it was saved from"),
        ("world", "load the world that it was saved from"),
        ("world_hash", "this is another version of that world: load the one it was saved from"),
    ):
        if getattr(header, name) != getattr(here, name):
            raise SnapshotError(name, getattr(here, name), getattr(header, name), remedy)
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise SnapshotError("tensors", "safetensors", str(error), _AGAIN) from error
    if header.sha256 != _seal(replace(header, sha256=""), plain, tensors):
        raise SnapshotError("sha256", "that of what was saved", "another", _AGAIN)
    _compare(header, here, strict)
    left = {name: tensor.to(world.device) for name, tensor in tensors.items()}
    try:
        state = _put_together(kind, plain, "", left)
    except ConfigError as error:
        raise SnapshotError("contents", f"a {kind.__name__}", str(error), _AGAIN) from error
    if left:
        raise SnapshotError("tensors", f"those of a {kind.__name__}", short(sorted(left)), _AGAIN)
    if isinstance(state, WorldState):
        check_fits(state, world)
    return state  # type: ignore[return-value]


def check_fits(state: WorldState, world: WorldModel, like: WorldState | None = None) -> None:
    """Raise `WorldError` unless `state` could be one of the world's: types, shapes, counts.

    like: a state of that world, to save making one.
    """
    if like is None:
        like = world.reset(torch.zeros(1, 2, dtype=torch.int64, device=world.device))
    rows = len(state)
    for field in fields(like):
        want, got = getattr(like, field.name), getattr(state, field.name)
        if (rows, want.shape[1:], want.dtype) != (len(got), got.shape[1:], got.dtype):
            expected = f"{field.name} {want.dtype} of shape {(rows, *want.shape[1:])}"
            raise WorldError(f"saved: expected {expected}, got {got.dtype} of {tuple(got.shape)}")
    counts = {"filled": (1, world.spec.context), "age": (0, 2**62)}
    for name, (least, most) in counts.items():
        value = getattr(state, name)
        if not bool(((value >= least) & (value <= most)).all()):
            raise WorldError(f"saved: expected {name} {least} to {most}, got {value.tolist()}")


def world_hash(world: WorldModel) -> str:
    """SHA-256 of what a world is: its settings and, where it has them, weights and start clips.

    A tensor is hashed once and its hash kept for as long as it lives and is not written to, so that
    saving a state costs no pass over the weights.
    """
    world, seal = _inner(world), sha256()
    if isinstance(world, DiffusionWorld):
        seal.update(json.dumps(to_json(world.config)).encode())
        tensors = {name: x for name, x in vars(world.starts).items() if x is not None}
        parts = (world.vae, world.dynamics, world.trust)
        for part in filter(None, parts):
            state = part.state_dict(keep_vars=True)
            tensors |= {f"{type(part).__name__}.{k}": v for k, v in state.items()}
        for name in sorted(tensors):
            seal.update(f"{name} {_tensor_hash(tensors[name])}\n".encode())
    else:  # a world in closed form says all in its settings; where it runs is no part of it
        seal.update(repr(world.spec).encode())
        if is_dataclass(world):
            names = sorted(f.name for f in fields(world) if f.name != "device")
            seal.update(repr([(name, getattr(world, name)) for name in names]).encode())
    return seal.hexdigest()


_HASHES = WeakTensorKeyDictionary()
"""Tensor -> (its version when hashed, its SHA-256)."""


def _tensor_hash(x: Tensor) -> str:
    version = None if x.is_inference() else (x._version, x.data_ptr())
    known, digest = _HASHES[x] if x in _HASHES else (None, "")
    if version is None or known != version:
        whole = sha256()
        _feed(whole, {"": x})
        digest = whole.hexdigest()
        _HASHES[x] = version, digest
    return digest


# --- Headers --------------------------------------------------------------------------------------

_AGAIN = "the file is damaged or no snapshot: save the state again"


def _header(kind: str, world: WorldModel) -> Header:
    device, inner = world.device, _inner(world)
    model = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    if device.type != "cpu":
        model = torch.get_device_module(device).get_device_name(device)
    return Header(
        kind=kind,
        world=world.spec.name,
        world_hash=world_hash(world),
        worldsim=_version(),
        torch=str(torch.__version__),
        device=f"{device.type} {model}",
        dtype=_dtype(world),
        compiled=isinstance(inner, CompiledWorld),
        numerics=numerics(device),
        threads=torch.get_num_threads(),
        micro_batch=world.rows if isinstance(world, FixedBatch) else None,
    )


def _inner(world: WorldModel) -> WorldModel:
    return world.world if isinstance(world, FixedBatch) else world


def _dtype(world: WorldModel) -> str:
    world = _inner(world)
    if isinstance(world, CompiledWorld):
        return world.dtype
    dtype = torch.float32
    if isinstance(world, DiffusionWorld):
        dtype = next(world.dynamics.parameters()).dtype
    return str(dtype).removeprefix("torch.")


def _version() -> str:
    try:
        return version("worldsim")
    except PackageNotFoundError:  # run from a source tree
        return "unknown"


def _check_size(file: IO[bytes]) -> dict[str, str]:
    """The metadata, if the file is as long as its header says; before the rest is read."""
    try:
        entries, metadata = read_header(file)
    except ConfigError as error:
        raise SnapshotError("header", "a snapshot", short(str(error)), _AGAIN) from error
    expected = file.tell() + sum(map(entry_bytes, entries.values()))
    if (size := file.seek(0, io.SEEK_END)) != expected:
        raise SnapshotError("tensors", f"{expected} bytes in all", f"{size}", _AGAIN)
    return metadata


def _read_header(data: bytes) -> tuple[Header, Any]:
    metadata = _check_size(io.BytesIO(data))
    try:
        both = parse_json(metadata["snapshot"], "header")
        about = both["header"]
        found = (about.get("format"), about.get("schema"))
        if found != (FORMAT, SCHEMA):
            raise ConfigError(f"expected {FORMAT} {SCHEMA}, got {short(found)}")
        return from_json(Header, about, "header"), both["plain"]
    except (AttributeError, ConfigError, LookupError, TypeError) as error:
        raise SnapshotError("header", f"{FORMAT} {SCHEMA}", short(str(error)), _AGAIN) from error


def _compare(saved: Header, here: Header, strict: bool) -> None:
    """Say where the bits of the future will not be those it had."""
    differ = [name for name in EXACT if getattr(saved, name) != getattr(here, name)]
    if not differ:
        return
    got, expected = ({name: getattr(h, name) for name in differ} for h in (saved, here))
    if strict:
        remedy = "restore where it was saved, or pass strict=False for a future that is close"
        raise SnapshotError(", ".join(differ), str(expected), str(got), remedy)
    warnings.warn(
        f"saved under {got}, restored under {expected}: the future will be close, not bit-equal",
        SnapshotWarning,
        stacklevel=4,
    )


def _seal(header: Header, plain: Any, tensors: dict[str, Tensor]) -> str:
    seal = sha256(json.dumps([to_json(header, "header"), plain]).encode())
    _feed(seal, tensors)
    return seal.hexdigest()


def _feed(seal: Any, tensors: dict[str, Tensor]) -> None:
    for name in sorted(tensors):
        x = tensors[name].detach().cpu().contiguous()
        seal.update(f"{name} {x.dtype} {tuple(x.shape)}".encode())
        seal.update(x.reshape(-1).view(torch.uint8).numpy())


# --- Frozen dataclasses of tensors and plain values -----------------------------------------------


def _take_apart(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """The plain values of a dataclass as JSON; its tensors go into `tensors` by their path."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach().to("cpu", copy=True).contiguous()
        return "tensor"
    if is_dataclass(value) and not isinstance(value, type):
        named = ((f.name, getattr(value, f.name)) for f in fields(value))
        return {name: _take_apart(x, f"{path}.{name}".lstrip("."), tensors) for name, x in named}
    return to_json(value, path)


def _put_together(kind: Any, data: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """The `kind` that `_take_apart` took apart; takes its tensors out of `tensors`."""
    if kind is Tensor or (Tensor in get_args(kind) and data is not None):
        if data != "tensor" or path not in tensors:
            raise ConfigError(f"{path}: expected a tensor, got {short(data)}")
        return tensors.pop(path)
    if Tensor in get_args(kind):
        return None
    if not is_dataclass(kind):
        return value_from_json(kind, data, path)
    assert isinstance(kind, type)
    hints, names = get_type_hints(kind), [f.name for f in fields(kind)]
    if not isinstance(data, dict) or sorted(data) != sorted(names):
        raise ConfigError(f"{path}: expected an object with keys {names}, got {short(data)}")
    parts = {n: _put_together(hints[n], data[n], f"{path}.{n}".lstrip("."), tensors) for n in names}
    try:
        return kind(**parts)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
