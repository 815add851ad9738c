"""Measurements, each a command; `results/` holds JSON with hardware, versions and command."""

from pathlib import Path

RESULTS = Path("benchmarks/results")
"""Where commands write, in the folder they are called from; a checkout keeps the published ones."""

DOCS = Path("docs")
"""Where a checkout keeps the pages and pictures that show results."""
