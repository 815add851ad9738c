"""What only a CUDA machine can show, in ten minutes: `make gpu`, or

    python -m benchmarks.gpu

CUDA tests, the speed rows of docs/explanation/speed.md's goals for an H200, a training step of each
preset with its share of the device's peak, and two processes by NCCL where there are two devices.
Each part is a process of its own with a limit; what fails or is missing is told in its place.
`--device cpu --quick` runs to the end anywhere, which shows that it can, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from worldsim.flags import refuse_repeated

from . import RESULTS, parts
from .parts import Part

PRESETS = ("tiny", "small", "medium", "base", "xl")


def main(device: str = "cuda", out: Path | None = None, quick: bool = False) -> None:
    """Measure all parts and write them; of what worldsim needs, only torch need be there.

    out: the JSON file; benchmarks/results/gpu.json by default, gpu-quick.json if it is no GPU.
    """
    cited = device == "cuda" and not quick
    path = out or RESULTS / ("gpu.json" if cited else "gpu-quick.json")
    found: dict[str, Any] = {}
    for part in list_parts(device, quick):
        found[part.name] = parts.run(part)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"parts": found, **hardware()}, indent=1) + "\n")
    print(parts.table(found))
    print(f"wrote {path}")


def list_parts(device: str, quick: bool) -> list[Part]:
    """The parts, with limits that sum up to some ten minutes where each does as expected."""
    small = ("--quick",) if quick else ()
    rows = f"{__package__}.gpu_rows"

    def row(name: str, what: str, limit: float, *more: str) -> Part:
        return Part(name, ("python", "-m", rows, what, "--device", device, *more, *small), limit)

    found = [row("tests", "tests", 240)]
    found += [row(f"speed {name}", "speed", 180, "--name", name) for name in ("eager", "compiled")]
    found.append(row("memory", "memory", 90))
    presets = PRESETS[:2] if quick else PRESETS
    found += [row(f"train {name}", "train", 180, "--name", name) for name in presets]
    return [*found, row("two processes", "two", 180)]


def hardware() -> dict[str, Any]:
    """The machine, the versions, the commit; as much of it as can be told."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    try:
        from worldsim.store.provenance import provenance  # needs gymnasium

        return {"device": device, "provenance": provenance()}
    except ImportError as error:
        return {"device": device, "torch": torch.__version__, "lacking": str(error)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu: to try it")
    parser.add_argument("--out", type=Path, help="the JSON file")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes")
    main(**vars(parser.parse_args(refuse_repeated(sys.argv[1:]))))
