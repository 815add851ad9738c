"""Edit a data set by words."""

from __future__ import annotations

from pathlib import Path

import tyro

from worldsim.core import WorldError
from worldsim.store.folder import load
from worldsim.video import edit_dataset
from worldsim.world.edit import STRENGTH

from .collect import summary


def edit(
    data: tyro.conf.Positional[str],
    *,
    text: str,
    out: Path,
    world: str,
    strength: float = STRENGTH,
    guidance: float | None = None,
    seed: int = 0,
    keep_all: bool = False,
) -> None:
    """Make a data set of a data set: the same episodes as they would look in other words.

    Actions, rewards and ends are kept; episodes in which the world no longer sees what happened
    are dropped, and named. Typed again, it goes on where it was stopped.

    Args:
        data: a folder of episodes, or what else `worldsim.open` takes.
        text: what is to be seen.
        out: the folder to write.
        world: a world that was trained with captions: a name or a folder.
        strength: above 0 to 1, the noise level that is drawn from; 1 keeps only the actions.
        guidance: from 1 up, how much more strongly than in the recording the words are followed.
        seed: names the randomness.
        keep_all: keep episodes that disagree, too.
    """
    if not 0 < strength <= 1:
        raise WorldError(f"strength: expected above 0 to 1, got {strength}")
    made = edit_dataset(
        data, text, world=load(world), out=out, strength=strength, guidance=guidance, seed=seed,
        keep_all=keep_all,
    )  # fmt: skip
    print(summary(made, out) if len(made) else f"{out}: nothing agreed, no episode was kept")
