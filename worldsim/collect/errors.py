"""What is raised where a recording cannot be made."""

from worldsim.core import WorldError


class CollectError(WorldError):
    """A recording that was asked for and cannot be made: names the setting and what to do."""
