"""Worlds, states and their provenance on disk."""
