"""What a world is."""

from __future__ import annotations

import tyro

from worldsim.evaluate.describe import describe
from worldsim.store.folder import load


def info(world: tyro.conf.Positional[str]) -> None:
    """Print what a world is and its fidelity card.

    Args:
        world: a bundled world's name or a folder.
    """
    print((loaded := load(world)).spec)
    if sizes := loaded.config.sizes:
        print("sizes ", ", ".join("{}x{}".format(*size) for size in sizes))
    parts = {"vae": loaded.vae, "dit": loaded.dynamics.dit, "heads": loaded.dynamics.heads}
    for name, part in parts.items():
        print(f"{name:6} {sum(p.numel() for p in part.parameters()) / 1e6:6.2f}M parameters")
    fitted = loaded.trust is not None
    known = "as it is drawn from" if loaded.calibrated else "for another sampling" * fitted
    print(f"trust  calibrated {known}" if fitted else "trust  unknown: not calibrated")
    print(describe(loaded.card) if loaded.card else "no fidelity card")
