"""A world to the Hugging Face hub."""

from __future__ import annotations

import tyro

from worldsim.hub.push import push as upload


def push(
    world: tyro.conf.Positional[str],
    repository: tyro.conf.Positional[str],
    revision: str | None = None,
    private: bool = False,
    license: str | None = None,
    message: str | None = None,
) -> None:
    """Upload a world and a model card made from its fidelity card to the Hugging Face hub.

    Log in first: hf auth login, or HF_TOKEN.

    Args:
        world: a bundled world's name or a folder.
        repository: ORG/NAME; made if it is not there.
        revision: a branch, the main one by default.
        private: whether a new repository is.
        license: an identifier of the hub's list, such as mit.
        message: of the commit.
    """
    address = upload(
        world, repository, revision=revision, private=private, license=license, message=message
    )
    print(f"{address}; next: worldsim play hf://{repository}")
