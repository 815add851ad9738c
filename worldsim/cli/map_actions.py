"""Map an environment's own actions to a world's latent ones."""

from __future__ import annotations

from pathlib import Path

import tyro

from worldsim.data.open import open_dataset
from worldsim.latent_actions.mapping import map_actions as map_world
from worldsim.store.folder import load

from .flags import use_threads


def map_actions(
    world: tyro.conf.Positional[str],
    data: str,
    out: Path,
    count: int | None = None,
    card: bool = True,
    seconds: float | None = None,
    seed: int = 0,
    threads: int | None = None,
    overwrite: bool = False,
) -> None:
    """Make a world on latent actions take an environment's own actions, from few labelled ones.

    Args:
        world: a world that infers actions.
        data: a recording with actions, of the same picture: some hundred transitions.
        out: the world folder to write.
        count: transitions to use; all by default.
        card: fit trust and measure the mapped world on these data.
        seconds: about how long to measure; in full by default.
        seed: of the draw of transitions.
        threads: CPU threads; all by default.
        overwrite: replace a world that is there.
    """
    use_threads(threads)
    map_world(
        load(world), open_dataset(data), out=out, count=count, card=card, seconds=seconds,
        overwrite=overwrite, seed=seed,
    )  # fmt: skip
    print(f"saved {out}; step through it: worldsim play {out}")
