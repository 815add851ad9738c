"""Past one machine: what must be equal whatever number of processes do the work, in one table.

    python -m benchmarks.scale_out

Each row is a process of its own (`benchmarks.scale_out_rows`, `benchmarks.scale_out_training`).
Ray pins another gymnasium than ours, so it may lie in an environment beside: `--ray-python`.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tyro

from worldsim.flags import refuse_repeated
from worldsim.store.provenance import provenance

from . import RESULTS, parts
from .parts import Part

HOME = __package__  # benchmarks, or worldsim.benchmarks
ROWS = f"{HOME}.scale_out_rows"
TRAINING = f"{HOME}.scale_out_training"


def main(
    only: tuple[str, ...] = (),
    ray_python: Path = Path(sys.executable),
    out: Path | None = None,
    quick: bool = False,
) -> None:
    """Measure the rows, print them, and write them; rows measured before stay where not asked for.

    Args:
        only: names of rows: collector, rllib, shards, shards-ray, hub, training.
        ray_python: an interpreter with ray, and with what worldsim needs.
        out: the JSON file; benchmarks/results/scale-out.json by default.
        quick: the same in small: another file, nothing to cite.
    """
    path = out or RESULTS / ("scale-out-quick.json" if quick else "scale-out.json")
    found: dict[str, Any] = json.loads(path.read_text())["rows"] if path.exists() else {}
    for part in rows(str(ray_python), quick):
        if not only or part.name in only:
            found[part.name] = parts.run(part) | {"provenance": provenance()}
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"rows": found}, indent=1) + "\n")
    print(parts.table({name: _short(row) for name, row in found.items()}))
    print(f"wrote {path}")


def _short(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k != "provenance"}


def rows(ray: str, quick: bool) -> list[Part]:
    """The rows; training's only where its module is there."""
    small = ("--quick",) if quick else ()
    one = (("OMP_NUM_THREADS", "1"), ("RL_WARNINGS", "0"))

    def row(name: str, limit: float, python: str = "python") -> Part:
        return Part(name, (python, "-m", ROWS, name, *small), limit, one)

    found = [row("collector", 900), row("rllib", 1800, ray), row("shards", 1800)]
    found += [row("shards-ray", 600, ray), row("hub", 300)]
    if find_spec(TRAINING) is not None:
        found.append(Part("training", ("python", "-m", TRAINING), 7200, one))
    return found


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, args=refuse_repeated(sys.argv[1:]))
