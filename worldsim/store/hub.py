"""Worlds of the Hugging Face hub: `hf://ORG/NAME[@REVISION]` becomes a folder of its cache.

Only the files of a world are fetched, and none of them is run: the folder is read like any other,
by the hashes of its own manifest. `huggingface_hub` (the extra `hub`) talks to the server; its
variables hold here: `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`, and `HF_HUB_OFFLINE=1`, under which what
was loaded once is found again and nothing is asked.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from worldsim.errors import WorldError

from .manifest import LIMITS, WorldFolderError

SCHEME = "hf://"
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
ADDRESS = re.compile(rf"{SCHEME}({REPOSITORY.pattern})(?:@([\w./-]+))?", re.ASCII)
EXPECTED = "a world on the hub"


def is_address(name: object) -> bool:
    """Whether `name` means a world on the hub."""
    return isinstance(name, str) and name.startswith(SCHEME)


def parse(name: str) -> tuple[str, str | None]:
    """The repository and the revision (a branch, a tag or a commit; None for the newest)."""
    found = ADDRESS.fullmatch(name)
    if found is None:
        raise WorldFolderError(
            name, "world", "hf://ORG/NAME or hf://ORG/NAME@REVISION", "another address", "mend it"
        )
    return found[1], found[2]


def client() -> Any:
    """The module `huggingface_hub`; WorldError that names the extra if it is not installed."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise WorldError(
            "huggingface_hub: expected it installed for worlds on the hub, got no such module; "
            "pip install 'worldsim[hub]'"
        ) from error
    return huggingface_hub


def download(name: str) -> Path:
    """The folder of the hub's cache that holds the world `name`, all of its files fetched.

    Raises WorldFolderError where there is none, nobody may read it, or it is neither in the cache
    nor can be fetched.
    """
    repository, revision = parse(name)
    hub = client()
    try:
        return Path(hub.snapshot_download(repository, revision=revision, allow_patterns=[*LIMITS]))
    except Exception as error:  # whatever the network, the server or the disk came up with
        got, remedy = explained(error)
        raise WorldFolderError(name, "world", EXPECTED, got, remedy) from error


def explained(error: Exception) -> tuple[str, str]:
    """What came instead of an answer from the hub, and what to do; other errors are raised on."""
    from huggingface_hub import constants, errors

    revisions = (errors.RevisionNotFoundError, errors.RevisionResolutionError)
    if isinstance(error, errors.LocalEntryNotFoundError):
        part = "only a part of it" if isinstance(error, errors.IncompleteSnapshotError) else "none"
        if constants.HF_HUB_OFFLINE:
            return f"{part} in the cache, and HF_HUB_OFFLINE is set", "load it once with it unset"
        return f"{part} in the cache, and no answer from the hub", "check the network, then retry"
    if isinstance(error, errors.GatedRepoError):
        return "one whose owner must let you in", "ask for access on its page, then hf auth login"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "no such repository, or a private one", "check its name, or hf auth login"
    if isinstance(error, revisions):
        return "no such revision", "name a branch, a tag or a commit of the repository"
    if isinstance(error, errors.HFValidationError):
        return str(error), "check the name"
    if isinstance(error, OSError) or type(error).__module__.startswith(("httpx", "httpcore")):
        return " ".join(str(error).split())[:300] or type(error).__name__, "retry later"
    raise error
