"""Command lines that drop nothing in silence: a flag that is given twice is refused."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence


def refuse_repeated(arguments: Sequence[str], *, several: Iterable[str] = ()) -> list[str]:
    """The arguments, if no flag is among them twice; else exit with status 2, as parsers do.

    tyro and argparse keep the last of repeated flags and forget the others. `several` names flags,
    such as "--peer", that collect what each occurrence brings. `--no-x` counts as `--x`, and
    underscores as hyphens, as tyro reads them. What follows a bare `--` is no flag.
    """
    words = list(arguments)
    flags = words[: words.index("--")] if "--" in words else words
    counts = Counter(_name(word) for word in flags if re.match(r"--?[A-Za-z]", word))
    repeated = sorted(name for name, count in counts.items() if count > 1 and name not in several)
    if repeated:
        print(f"{', '.join(repeated)}: expected once, got more; give each flag once, with all of "
              "its values", file=sys.stderr)  # fmt: skip
        raise SystemExit(2)
    return words


def _name(word: str) -> str:
    name = word.partition("=")[0].replace("_", "-")
    return re.sub(r"^--no-|\.no-", lambda found: found.group().replace("no-", ""), name)
