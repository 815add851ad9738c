"""How far a world can be trusted: its dreams measured against real episodes it never saw.

`evaluate` gives the fidelity card; `python -m benchmarks.fidelity` prints and writes it.
"""

from .card import evaluate, renew_trust

__all__ = ["evaluate", "renew_trust"]
