"""What a world folder holds, and reading its files without trusting them.

Sizes are checked before memory is taken and hashes before contents are used. Hashes find damage;
they do not say who made the folder.
"""

from __future__ import annotations

import json
import mimetypes
import os
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import IO

from worldsim.config import ConfigError, from_json, parse_json, short, to_json
from worldsim.core import WorldError
from worldsim.files import open_plain

FORMAT, SCHEMA = "worldsim-world", 4
MIB, GIB = 2**20, 2**30
MANIFEST, CONFIG, STARTS, CARD = "manifest.json", "config.json", "starts.npz", "card.json"
TRUST = "trust.safetensors"
LATENT_ACTIONS = "latent_actions.safetensors"
WEIGHTS = (
    "vae.safetensors",
    "conditioning.safetensors",
    "dit.safetensors",
    "heads.safetensors",
)
LIMITS = {  # bytes that this worldsim is willing to read of each file
    MANIFEST: 4 * MIB,
    CONFIG: MIB,
    **{name: 16 * GIB for name in WEIGHTS},
    STARTS: 256 * MIB,
    CARD: 4 * MIB,
    TRUST: 256 * MIB,
    LATENT_ACTIONS: 256 * MIB,
}
OPTIONAL = (CARD, TRUST, LATENT_ACTIONS)
RECORDINGS = ("dataset.json", "meta/info.json", "data/main_data.hdf5", "main_data.hdf5")
AGAIN = "copy the folder again from where it came from, or save the world again"


class WorldFolderError(WorldError):
    """A folder that is not a whole, consistent world, or one that cannot be written.

    Attributes: file, field, expected, got, remedy, all strings.
    """

    def __init__(
        self, file: Path | str, field: str, expected: str, got: str, remedy: str = AGAIN
    ) -> None:
        self.file, self.field, self.expected = str(file), field, expected
        self.got, self.remedy = got, remedy
        super().__init__(self.file, field, expected, got, remedy)  # args as given: it pickles

    def sentence(self) -> str:
        """See `WorldError`."""
        return f"{self.file}: {self.field}: expected {self.expected}, got {self.got}; {self.remedy}"


@dataclass(frozen=True, kw_only=True)
class TensorEntry:
    """One tensor of a file; safetensors' name of its dtype."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file of a world folder; `tensors` only of safetensors files."""

    name: str
    bytes: int
    sha256: str
    tensors: tuple[TensorEntry, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All files of a world folder; `sha256` is the hash of this manifest with an empty `sha256`."""

    format: str = FORMAT
    schema: int = SCHEMA
    worldsim: str
    sha256: str = ""
    files: tuple[FileEntry, ...]

    def dump(self) -> bytes:
        """The one way in which these contents are written."""
        return (json.dumps(to_json(self, "manifest"), indent=1) + "\n").encode()

    def sealed(self) -> Manifest:
        """The same with its own hash filled in."""
        return replace(self, sha256=sha256(replace(self, sha256="").dump()).hexdigest())


def open_file(path: Path) -> IO[bytes]:
    """A regular file of a world; raises WorldFolderError, also for one over its limit."""
    try:
        file = open_plain(_blob(path))
    except OSError as error:
        got = error.strerror or str(error)
        raise WorldFolderError(path, "file", "a regular file", got) from error
    size = os.fstat(file.fileno()).st_size
    if size <= LIMITS[path.name]:
        return file
    file.close()
    expected = f"a regular file of at most {LIMITS[path.name]} bytes"
    raise WorldFolderError(path, "file", expected, f"{size} bytes")


def _films(folder: Path) -> bool:
    """Whether what lies in the folder looks like video files."""
    files = folder.iterdir() if folder.is_dir() else ()
    return any((mimetypes.guess_type(file)[0] or "").startswith("video/") for file in files)


def _blob(path: Path) -> Path:
    """Where the contents of a file of the Hugging Face cache lie; any other path as it is.

    REPOSITORY/snapshots/COMMIT/NAME is a link to REPOSITORY/blobs/HASH there: that link alone is
    followed, and the file at its end must be a plain one in just that folder.
    """
    if path.is_symlink() and path.parent.parent.name == "snapshots":
        blobs = path.parent.parent.parent.resolve() / "blobs"
        end = Path(os.path.normpath(path.parent.resolve() / os.readlink(path)))
        if end.parent == blobs:
            return end
    return path


def read_manifest(folder: Path) -> Manifest:
    """The folder's manifest, if it is whole and of a version that this worldsim reads."""
    path, remedy = folder / MANIFEST, "pass a folder that worldsim.save wrote"
    if any((folder / mark).exists() for mark in RECORDINGS) or _films(folder):
        remedy = f"these are recordings: make a world of them with worldsim train {folder} --out W"
    if not os.path.lexists(path):
        got = "a folder without one" if folder.is_dir() else "no folder"
        raise WorldFolderError(folder, "folder", f"one with a {MANIFEST}", got, remedy)
    with open_file(path) as file:
        data = file.read()
    try:
        raw = parse_json(data, MANIFEST)
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            got = short(raw.get("format", "none") if isinstance(raw, dict) else raw)
            raise WorldFolderError(path, "format", repr(FORMAT), got, remedy)
        if type(raw.get("schema")) is not int or raw["schema"] != SCHEMA:
            got = f"{short(raw.get('schema'))}, written by worldsim {short(raw.get('worldsim'))}"
            remedy = "load it with the worldsim that wrote it, or a newer one"
            raise WorldFolderError(path, "schema", f"version {SCHEMA}", got, remedy)
        manifest = from_json(Manifest, raw, "manifest")
    except ConfigError as error:
        raise WorldFolderError(path, "contents", "a whole manifest", str(error)) from error
    if manifest.sealed().dump() != data:
        expected = f"sha256 {manifest.sealed().sha256} and nothing changed by hand"
        raise WorldFolderError(path, "contents", expected, short(manifest.sha256))
    return manifest


def check_files(folder: Path, manifest: Manifest) -> dict[str, FileEntry]:
    """The files by name: just those of a world, each there with its declared size."""
    path, known = folder / MANIFEST, {CONFIG, *WEIGHTS, STARTS}
    files = {entry.name: entry for entry in manifest.files}
    if not known <= files.keys() <= known | {*OPTIONAL} or len(files) < len(manifest.files):
        expected = f"{sorted(known)} and maybe {CARD!r} and {TRUST!r}, each once"
        raise WorldFolderError(path, "files", expected, short([f.name for f in manifest.files]))
    for name in OPTIONAL:
        if name not in files and os.path.lexists(folder / name):
            remedy = "add it with worldsim.save(world, folder, overwrite=True)"
            expected = "none, as the manifest says"
            raise WorldFolderError(folder / name, "file", expected, "one", remedy)
    for name, entry in files.items():
        with open_file(folder / name) as file:
            size = os.fstat(file.fileno()).st_size
        if size != entry.bytes:
            expected, got = f"{entry.bytes} bytes", f"{size} bytes"
            raise WorldFolderError(folder / name, "size", expected, got)
    return files


def read_contents(folder: Path, entry: FileEntry) -> bytes:
    """A whole file, if its hash is the manifest's."""
    with open_file(folder / entry.name) as file:
        data = file.read(entry.bytes)
    got = sha256(data).hexdigest()
    if got != entry.sha256:
        expected = f"sha256 {short(entry.sha256)}"
        raise WorldFolderError(folder / entry.name, "contents", expected, got)
    return data
