"""A world folder: manifest, config, weights, start clips and fidelity card.

    manifest.json       format, schema version, size and SHA-256 of every file, every tensor's shape
    config.json         `WorldConfig`
    vae.safetensors     and conditioning.safetensors, dit.safetensors, heads.safetensors
    starts.npz          frames (N, K * c, H, W, 3) uint8, actions (N, K, *action), known (N, K)
                        bool; in a world that knows state vectors states (N, K, D), NaN if unknown
    latent_actions.safetensors  what infers actions from video; where `config.json` has a model
    trust.safetensors   how far its dreams can be trusted, fitted; may be missing
    card.json           fidelity figures with the command that measured them; may be missing

Loading runs no code of the folder and takes no memory before sizes and shapes are checked. Saving
is all or nothing: a new world is written beside the old one, synced, read back, and only then takes
its place. Between the two renames of an overwrite the old world lies in `.NAME.old`, where `load`
finds it, so a save killed at any moment leaves a world to load, and at worst a `.NAME.*.tmp` that
may be deleted.
"""

from __future__ import annotations

import difflib
import io
import json
import os
import warnings
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldsim import worlds
from worldsim.config import ConfigError, from_json, parse_json, short, to_json
from worldsim.data.archive import Archive, archive_of
from worldsim.data.dataset import DatasetError
from worldsim.files import atomic_folder, current_folder, resolved
from worldsim.models.latent_actions import LatentActionModel
from worldsim.nn.device import as_device
from worldsim.world.diffusion import DiffusionWorld, Starts, WorldConfig
from worldsim.world.uncertainty import BANK, Trust

from . import hub
from .manifest import (
    CARD,
    CONFIG,
    GIB,
    LATENT_ACTIONS,
    LIMITS,
    MANIFEST,
    STARTS,
    TRUST,
    WEIGHTS,
    FileEntry,
    Manifest,
    WorldFolderError,
    check_files,
    read_contents,
    read_manifest,
)
from .networks import build, by_file, check_tensors, fill, header, pack
from .tensors import FLOATS

MAX_STARTS = GIB  # unpacked
MOST_RECORDED = 2**16  # latents that trust compares with


def load(name: str | Path, device: torch.device | str = "cpu") -> DiffusionWorld:
    """Load a world; its networks compute in float32.

    name: a bundled world's name, a world folder, or "hf://ORG/NAME[@REVISION]" for one of the
        Hugging Face hub, which is fetched once and then found in its cache; write `./car-racing`
        for a folder of yours that is named like a bundled world.
    Raises WorldFolderError for anything but a whole world that this worldsim can read. Warns about
    a world without a fidelity card.
    """
    place, folder = as_device(device), folder_of(name)
    while True:
        before = _identity(folder)
        try:
            world = _read_world(current_folder(folder))
            break
        except WorldFolderError as error:
            if hub.is_address(name):  # a snapshot never changes
                remedy = f"delete {folder} and load it again, or push the world again"
                parts = error.file, error.field, error.expected, error.got
                raise WorldFolderError(*parts, remedy) from error
            if _identity(folder) == before:
                raise  # else a save put another world there meanwhile: read that one
    if world.card is None:
        message = f"{folder}: no fidelity card: nobody measured how far this world can be trusted"
        warnings.warn(message, UserWarning, stacklevel=2)
    return world.to(place)


def save(
    world: DiffusionWorld,
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    card: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Save `world` as a world folder, all or nothing, and return where.

    dtype: of weights of two and more dimensions; biases, gains and statistics stay float32, since
        they are few and everything passes through them.
    card: the fidelity card, any JSON object; `world.card` if None.
    overwrite: replace the world that lies there. Anything but a world is never replaced.
    Raises WorldFolderError, and OSError where the disk fails; what lay there is then still there.
    """
    if dtype not in FLOATS.values():
        raise ValueError(f"dtype: expected one of {list(FLOATS.values())}, got {dtype}")
    folder = resolved(folder)
    _check_target(folder, overwrite)
    files = _pack(world, dtype, world.card if card is None else card)
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        for name, data in files.items():
            (temporary / name).write_bytes(data)
        _read_back(temporary, folder)
    return folder


# --- finding and replacing folders ----------------------------------------------------------------


def folder_of(name: str | Path) -> Path:
    """The folder that `name` means; see `load`. A world of the hub is fetched if need be."""
    if isinstance(name, str) and hub.is_address(name):
        return hub.download(name)
    bundled = worlds.names()
    if not isinstance(name, str | os.PathLike):
        remedy = f"such as {bundled[0]!r}" if bundled else "save one with worldsim.save"
        raise WorldFolderError("load", "world", "a name or a folder", type(name).__name__, remedy)
    if isinstance(name, str) and name in bundled:
        return worlds.ROOT / name
    folder = resolved(name)
    if current_folder(folder).exists():
        return folder
    got, remedy = "nothing there", "check the path"
    close = difflib.get_close_matches(str(name), bundled, n=1)
    if close:
        remedy = f"did you mean {close[0]!r}?"
    elif isinstance(name, str) and hub.REPOSITORY.fullmatch(name):
        remedy = f"check the path; a world of the Hugging Face hub is hf://{name}"
    expected = f"a world folder or a bundled world ({', '.join(bundled) or 'there are none'})"
    raise WorldFolderError(name, "world", expected, got, remedy)


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        info = folder.stat()
    except OSError:
        return None
    return info.st_ino, info.st_ctime_ns


def _check_target(folder: Path, overwrite: bool) -> None:
    """There is nothing at `folder`, or a world and nothing else that may be overwritten."""
    there = current_folder(folder)
    if not there.exists():
        return
    if not there.is_dir():
        raise WorldFolderError(there, "folder", "a folder", "a file", "choose another path")
    names = {path.name for path in there.iterdir()}
    if not names:
        return
    if MANIFEST not in names or not names <= LIMITS.keys():
        strays = short(sorted(names - LIMITS.keys()))
        got = f"a folder with {strays}" if names - LIMITS.keys() else "files but no manifest.json"
        remedy = "choose another path, or move these files away"
        raise WorldFolderError(there, "folder", "nothing but a world", got, remedy)
    if not overwrite:
        remedy = "pass overwrite=True to replace it"
        raise WorldFolderError(there, "folder", "nothing", "a world", remedy)


def _read_back(temporary: Path, folder: Path) -> None:
    """What would not load must not take the place of what does."""
    try:
        _read_world(temporary)
    except WorldFolderError as error:
        path, remedy = folder / Path(error.file).name, "nothing was saved; mend the world first"
        raise WorldFolderError(path, error.field, error.expected, error.got, remedy) from error


# --- packing and reading a whole world ------------------------------------------------------------


def _pack(
    world: DiffusionWorld, dtype: torch.dtype, card: dict[str, Any] | None
) -> dict[str, bytes]:
    """Contents of all files, by name; equal worlds give equal bytes."""
    files = {CONFIG: _dump(to_json(world.config), CONFIG)}
    for name, network in by_file(world.vae, world.dynamics).items():
        files[name] = pack(network, dtype)
    if world.trust is not None:
        files[TRUST] = pack(world.trust, dtype)
    if world.latent_actions is not None:
        files[LATENT_ACTIONS] = pack(world.latent_actions, torch.float32)
    starts = io.BytesIO()
    arrays = {name: x for name, x in vars(world.starts).items() if x is not None}
    np.savez_compressed(starts, **{k: v.cpu().numpy() for k, v in arrays.items()})  # type: ignore[arg-type]
    files[STARTS] = starts.getvalue()
    if card is not None:
        files[CARD] = _dump(card, CARD)
    entries = tuple(_entry(name, data) for name, data in files.items())
    manifest = Manifest(worldsim=_version(), files=entries)
    return {**files, MANIFEST: manifest.sealed().dump()}


def _dump(value: Any, name: str) -> bytes:
    try:
        return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        remedy = "nothing was saved; keep to JSON's values, without NaN and infinity"
        raise WorldFolderError(name, "contents", "JSON", str(error), remedy) from error


def _entry(name: str, data: bytes) -> FileEntry:
    listed = name in (*WEIGHTS, TRUST, LATENT_ACTIONS)
    tensors = header(Path(name), io.BytesIO(data)) if listed else {}
    digest = sha256(data).hexdigest()
    return FileEntry(name=name, bytes=len(data), sha256=digest, tensors=tuple(tensors.values()))


def _version() -> str:
    try:
        return version("worldsim")
    except PackageNotFoundError:  # run from a source tree
        return "unknown"


def _read_world(folder: Path) -> DiffusionWorld:
    """Check and read everything; what is cheap to refuse comes first."""
    manifest = read_manifest(folder)
    files = check_files(folder, manifest)
    try:
        raw = parse_json(read_contents(folder, files[CONFIG]), CONFIG)
        config = from_json(WorldConfig, raw)
    except ConfigError as error:
        expected = "a config that this worldsim knows"
        raise WorldFolderError(folder / CONFIG, "config", expected, str(error)) from error
    for name, network in by_file(*build(folder, config, files, "meta")).items():
        check_tensors(folder / name, network, files[name])
    starts = _read_starts(folder, files[STARTS], config)
    card = _read_card(folder, files[CARD]) if CARD in files else None
    vae, dynamics = build(folder, config, files, "cpu")
    for name, network in by_file(vae, dynamics).items():
        fill(folder, files[name], network)
    trust = _read_trust(folder, files[TRUST], config) if TRUST in files else None
    inferring = _read_latent_actions(folder, files.get(LATENT_ACTIONS), config)
    return DiffusionWorld(config, vae, dynamics, starts, card, trust, inferring)


def _read_latent_actions(
    folder: Path, entry: FileEntry | None, config: WorldConfig
) -> LatentActionModel | None:
    if (entry is None) != (config.latent_actions is None):
        expected = f"{LATENT_ACTIONS} just where {CONFIG} has its settings"
        got = "settings alone" if entry is None else "the file alone"
        raise WorldFolderError(folder / LATENT_ACTIONS, "file", expected, got)
    if entry is None or config.latent_actions is None:
        return None
    with torch.device("meta"):
        check_tensors(folder / LATENT_ACTIONS, LatentActionModel(config.latent_actions), entry)
    model = LatentActionModel(config.latent_actions)
    fill(folder, entry, model)
    return model


def _read_trust(folder: Path, entry: FileEntry, config: WorldConfig) -> Trust:
    told = [tensor.shape[0] for tensor in entry.tensors if tensor.name == "bank" and tensor.shape]
    bank = min(told[0], MOST_RECORDED) if told else BANK  # it has grown since the first worlds
    with torch.device("meta"):
        check_tensors(folder / TRUST, Trust(config.spec, bank), entry)
    trust = Trust(config.spec, bank)
    fill(folder, entry, trust)
    return trust


def _read_card(folder: Path, entry: FileEntry) -> dict[str, Any]:
    try:
        card = parse_json(read_contents(folder, entry), CARD)
    except ConfigError as error:
        raise WorldFolderError(folder / CARD, "card", "JSON", str(error)) from error
    if not isinstance(card, dict):
        raise WorldFolderError(folder / CARD, "card", "a JSON object", short(card))
    return card


# --- start clips ----------------------------------------------------------------------------------


def _read_starts(folder: Path, entry: FileEntry, config: WorldConfig) -> Starts:
    """The start clips; pickles are never opened and sizes are checked before unpacking."""
    path, spec = folder / STARTS, config.spec
    action = "i8" if spec.action.is_discrete else "f4"
    wanted = {
        "frames": ("u1", (spec.context * spec.chunk, *spec.frame_shape)),
        "actions": (action, (spec.context, *spec.action.shape)),
        "known": ("?", (spec.context,)),
    }
    if spec.state is not None:
        wanted["states"] = ("f4", (spec.context, len(spec.state)))
    try:
        with archive_of(path, read_contents(folder, entry)) as archive:
            if sorted(archive.members) != sorted(wanted):
                names = short(sorted(archive.members))
                raise WorldFolderError(path, "arrays", f"{sorted(wanted)}", names)
            found = [_array(archive, path, name, *wanted[name]) for name in wanted]
    except DatasetError as error:
        raise WorldFolderError(path, "contents", "a .npz file", str(error)[:300]) from error
    starts = Starts(*map(torch.from_numpy, found))
    _check_starts(path, starts, config)
    return starts


def _array(
    archive: Archive, path: Path, name: str, dtype: str, row: tuple[int, ...]
) -> NDArray[Any]:
    """An array `(N, *row)` of just this type."""
    array = archive.read(name, np.dtype(dtype).kind, len(row) + 1, MAX_STARTS)
    if array.dtype != np.dtype(dtype) or array.shape[1:] != row:
        expected = f"{np.dtype(dtype)} (N, {', '.join(map(str, row))})"
        raise WorldFolderError(path, name, expected, f"{array.dtype} {array.shape}")
    return array


def _check_starts(path: Path, starts: Starts, config: WorldConfig) -> None:
    frames, actions, action = starts.frames, starts.actions, config.spec.action
    counts = {name: len(x) for name, x in vars(starts).items() if x is not None}
    if len(set(counts.values())) > 1 or not len(frames):
        got = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise WorldFolderError(path, "frames", "as many clips as lists of actions", got)
    known = actions[starts.known]
    try:
        action.check(known, (len(known),))
    except ValueError as error:
        raise WorldFolderError(path, "actions", "actions of the world", str(error)[:200]) from error
