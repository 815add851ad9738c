"""A data set of dreams made by Ray Data: every actor loads the world once and makes shards.

    python docs/examples/ray_export.py --world pendulum --episodes 1000 --out data/dreamt

Needs `pip install 'ray[data]'`, and a folder that all machines see.
"""

import sys
from pathlib import Path
from typing import Any

import ray  # pyright: ignore[reportMissingImports]
import tyro

from worldsim.flags import refuse_repeated
from worldsim.shards.export import of_world, run


class Maker:
    """An actor with a world."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.export = of_world(**settings)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Make the shards of a batch, unless they are made."""
        for shard in batch["id"]:
            run(self.export, shard=int(shard))
        return batch


def main(
    world: str, out: Path, episodes: int = 1000, shards: int = 16, actors: int = 2,
    time_limit: int | None = None,
) -> None:  # fmt: skip
    """Dream `episodes` episodes with `actors` actors of one core each."""
    settings = {"world": world, "folder": out.resolve(), "episodes": episodes, "shards": shards}
    settings["time_limit"] = time_limit
    # from_items and not range, whose reading waits for a core where actors hold all of them
    items = [{"id": shard} for shard in range(shards)]
    numbers = ray.data.from_items(items, override_num_blocks=shards)
    pool = ray.data.ActorPoolStrategy(size=actors)
    work = numbers.map_batches(
        Maker, fn_constructor_args=(settings,), batch_size=1, compute=pool
    )  # fmt: skip
    work.materialize()
    print(out / "shards.json")  # written by the actor that made the last shard


if __name__ == "__main__":
    tyro.cli(main, args=refuse_repeated(sys.argv[1:]))
