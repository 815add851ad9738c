"""Environment steps at the speed of the hardware: ours, its wrappers, and others', in one run.

    python -m benchmarks.rollout_speed --peer diamond=FOLDER --peer delta-iris=FOLDER

CPU figures are seconds of CPU time on one thread, since machines are shared; contenders take turns,
a few steps each, round after round, and matrix products are timed in the same rounds. FOLDER is a
checkout of the peer, which is no part of this repository.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
import tyro
from tqdm import tqdm

from worldsim.core import WorldError
from worldsim.flags import refuse_repeated
from worldsim.store.folder import load
from worldsim.store.provenance import provenance

from . import DOCS, RESULTS, page, speed_peers
from .speed_fidelity import drift, errors
from .speed_parts import (
    Contender,
    Ours,
    fan_out,
    horizon,
    measure,
    ours,
    roofline,
    traced,
    wrappers,
)
from .speed_report import goals, picture, table


def main(
    world: str = "car-racing",
    data: Path = Path("data/car-racing"),
    peer: tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]] = (),
    device: str = "cpu",
    batches: tuple[int, ...] = (1, 8),
    passes: tuple[int, ...] = (1, 2),
    rounds: int = 12,
    long: int = 10_000,
    out: Path | None = None,
    media: Path | None = None,
    quick: bool = False,
) -> None:
    """Measure steps a second, and where they go.

    All are measured on frames of 64 x 64, as peers are, and ours also as the world comes.

    Args:
        world: a bundled world's name or a folder.
        data: recorded episodes, whose validation clips say what narrow types cost; may be missing.
        peer: NAME=FOLDER, with diamond or delta-iris; may be repeated, and all are measured.
        device: where ours runs; peers run on the CPU.
        batches: rows stepped together; 1024 is for accelerators.
        passes: denoising passes a step.
        rounds: turns that every contender takes.
        long: the later of the two ages that are compared, in steps.
        out: the JSON file; benchmarks/results/rollout-speed.json by default.
        media: the folder of the picture; docs/media by default, or that of the JSON file.
        quick: the same in small: another file, no picture, nothing to cite.
    """
    torch.set_num_threads(1)
    named = tuple(one for several in peer for one in several)
    model = load(world, device=device)
    if quick:
        batches, passes, rounds, long = batches[:1], passes[:1], 3, 300
    cast = [
        Ours(model, 64, batch, count, fast, pixels)
        for batch in batches
        for count in passes
        for fast in (False, True)
        for pixels in (True, False)
    ]
    own = model.spec.frame_shape[0], batches[-1], model.config.sampling.num_steps
    cast += [Ours(model, *own, fast, True) for fast in (False, True)]
    rows = [ours(one) for one in tqdm(cast, desc="making ours ready")]
    rows += [c for c in tqdm(peers(named, batches), desc="making peers ready")]
    found: dict[str, Any] = {"peaks": roofline(torch.device(device))}
    found["rows"] = measure(rows, rounds, found["peaks"])
    found["traced"] = traced(model, passes)
    found["wrappers"] = wrappers()
    found["horizon"] = horizon(model, long)
    found["fan_out"] = fan_out(model)
    found["drift"] = drift(model)
    found["errors"] = errors(model, data) if data.exists() else None
    found["goals"] = goals(found)
    found["peers"] = {
        p.partition("=")[0]: speed_peers.digest(Path(p.partition("=")[2])) for p in named
    }
    name = "rollout-speed-quick.json" if quick else "rollout-speed.json"
    path = out or RESULTS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    found["provenance"] = provenance(command(named))
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    if not quick:
        picture(found, media or (DOCS / "media" if DOCS.is_dir() else path.parent))
        if out is None and (DOCS / "explanation" / "speed.md").exists():
            page.put(DOCS / "explanation" / "speed.md", table(found))
    print(f"wrote {path}")


def command(peer: tuple[str, ...]) -> str:
    """The command line, without the folders that peers lie in here."""
    words = ["python", *sys.orig_argv[1:]]
    return shlex.join(w.partition("=")[0] + "=FOLDER" if w in peer else w for w in words)


def peers(given: tuple[str, ...], batches: tuple[int, ...]) -> list[Contender]:
    """Every peer in its default and its fastest mode, DIAMOND also with a single pass."""
    found = []
    for each in given:
        name, _, folder = each.partition("=")
        at = Path(folder)
        if name not in ("diamond", "delta-iris") or not (at / "src").is_dir():
            raise WorldError(f"peer: expected diamond=FOLDER or delta-iris=FOLDER, got {each!r}")
        for batch in batches:
            counts, ways = speed_peers.ways(name, at, batch)
            for mode, steps in (("default", ways["default"]()), speed_peers.fastest(ways)):
                pairs = zip(counts, steps, strict=True)
                found += [Contender(name, batch, count, mode, step) for count, step in pairs]
    return found


if __name__ == "__main__":
    arguments = refuse_repeated(sys.argv[1:], several=("--peer",))
    tyro.cli(main, description=__doc__, args=arguments)
