"""Where a command may write a world: a new folder or one of the user's own, never a bundled one."""

from __future__ import annotations

from pathlib import Path

from worldsim.core import WorldError
from worldsim.store.hub import is_address
from worldsim.worlds import ROOT, names


def destination(world: str, out: Path | None, in_place: bool) -> Path | None:
    """The folder to write to: `out`, the world's own with `in_place`, None where neither is given.

    Raises WorldError for both at once, for a folder that exists, and for a bundled world: it came
    with the package, and whoever reads its name relies on its bytes.
    """
    if out is not None and in_place:
        raise WorldError("out, in_place: expected one of them, got both; drop one")
    if out is None and not in_place:
        return None
    folder = Path(world) if out is None else out
    if out is None and is_address(world):
        raise WorldError(
            f"{world}: expected a folder of your own, got a world of the hub; write a copy with "
            "--out FOLDER, and worldsim push it"
        )
    bundled = (out is None and world in names()) or folder.resolve().is_relative_to(ROOT.resolve())
    if bundled:
        raise WorldError(
            f"{world}: expected a folder of your own, got a bundled world, which stays as it was "
            "shipped; write a copy with --out FOLDER"
        )
    if out is not None and out.exists():
        raise WorldError(f"out: expected a new folder, got {out}, which exists; name another")
    return folder
