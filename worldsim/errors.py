"""What is raised where something does not fit."""


class WorldError(ValueError):
    """Something handed to a world does not fit: names the field, what was expected, what came."""
