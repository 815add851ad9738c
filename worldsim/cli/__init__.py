"""The command line: `worldsim VERB`, one file a verb."""

from .frame import main

__all__ = ["main"]
