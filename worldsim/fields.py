"""Metadata of the fields of settings, as `worldsim.config` reads them."""

ABSENT = {"absent": True}
"""Of a field that JSON leaves out where it has its default: "without", for good."""
