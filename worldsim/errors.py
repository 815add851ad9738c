"""What is raised where something does not fit."""

LONGEST = 2000  # characters of a message: what it quotes may be as long as its file


class WorldError(ValueError):
    """Something handed to a world does not fit: names the field, what was expected, what came.

    A kind of error that makes its sentence of parts overrides `sentence`; whatever name of a file
    or a key is in it, no control character reaches a terminal.
    """

    def sentence(self) -> str:
        """The whole message, before it is made fit to print."""
        return super().__str__()

    def __str__(self) -> str:
        text = self.sentence()
        return printable(text if len(text) <= LONGEST else f"{text[:LONGEST]}...")


def printable(text: str) -> str:
    """`text` with an escape such as \\x1b for all that is no plain character.

    Names come from files: one with terminal controls or right-to-left marks could paint over what
    was said before, one with lone surrogates cannot be printed at all.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
