"""Measurements, each a command; `results/` holds JSON with hardware, versions and command."""
