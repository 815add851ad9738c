"""Uploading a world to the Hugging Face hub, in one commit."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from worldsim.store import hub
from worldsim.store.folder import folder_of, load, save
from worldsim.store.manifest import LIMITS, MANIFEST, WorldFolderError, read_manifest
from worldsim.world.diffusion import DiffusionWorld

from .card import model_card

README = "README.md"


def push(
    world: DiffusionWorld | str | Path,
    repository: str,
    *,
    revision: str | None = None,
    private: bool = False,
    license: str | None = None,
    message: str | None = None,
) -> str:
    """Upload `world` and a model card to the hub; returns the commit's own address, to load it by.

    The files of a folder go as they are, so that their hashes are the same there; an object is
    saved first, as `worldsim.save` does. All is one commit: who loads the world meanwhile gets the
    old one or the new one, whole. A repository that is not there is made.

    world: an object, a bundled name, or a folder; it is loaded first, so a damaged one never goes
        up. repository: "ORG/NAME". revision: a branch, the main one if None. private: of a new
        repository. license: an identifier of the hub's list. message: of the commit.
    Raises WorldFolderError for a world that does not load, a name that is none, and where the hub
    refuses: log in with `hf auth login`, or set `HF_TOKEN`.
    """
    name = f"{hub.SCHEME}{repository}"
    if not hub.REPOSITORY.fullmatch(repository):
        raise WorldFolderError(repository, "repository", "ORG/NAME", "another name", "mend it")
    if not isinstance(world, DiffusionWorld):
        return _push(folder_of(world), load(world), name, revision, private, license, message)
    with TemporaryDirectory() as place:
        folder = save(world, Path(place) / "world")
        return _push(folder, world, name, revision, private, license, message)


def _push(
    folder: Path, world: DiffusionWorld, name: str, revision: str | None, private: bool,
    license: str | None, message: str | None,
) -> str:  # fmt: skip
    api, repository = hub.client().HfApi(library_name="worldsim"), name.removeprefix(hub.SCHEME)
    card = model_card(world, repository, license)
    try:
        api.create_repo(repository, private=private or None, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        made = api.create_commit(
            repository, _changes(api, folder, card, repository, revision), revision=revision,
            commit_message=message or f"worldsim: {world.spec.name}",
        )  # fmt: skip
    except Exception as error:  # whatever the network or the server came up with
        got, remedy = hub.explained(error)
        raise WorldFolderError(name, "repository", "one to write to", got, remedy) from error
    return f"{name}@{made.oid}"


def _changes(api: Any, folder: Path, card: str, repository: str, revision: str | None) -> list[Any]:
    """The files of the world and its page; what an older one had and this one lacks goes."""
    kinds = hub.client()
    names = {entry.name for entry in read_manifest(folder).files} | {MANIFEST}
    there = set(api.list_repo_files(repository, revision=revision))
    adds = {README: card.encode(), **{n: str((folder / n).resolve()) for n in sorted(names)}}
    return [
        *(kinds.CommitOperationAdd(n, data) for n, data in adds.items()),
        *(kinds.CommitOperationDelete(n) for n in sorted(there & (LIMITS.keys() - names))),
    ]
