"""A hook of MkDocs: the reference lists every command and every public name, by itself."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from worldsim.cli.frame import VERBS

PACKAGE = Path(__file__).resolve().parent.parent / "worldsim" / "__init__.py"
COMMAND = """
## {name}

::: worldsim.cli.{home}
    options: {{show_root_heading: false, show_root_toc_entry: false}}
"""


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Add the commands to their page, and public names that have no place yet to theirs."""
    name = page.file.src_uri
    if name == "reference/commands.md":
        return markdown + "".join(COMMAND.format(name=v, home=VERBS[v].home) for v in VERBS)
    if name == "reference/python.md":
        homes = public_names(PACKAGE.read_text())
        rest = [home for name, home in homes.items() if f".{name}\n" not in markdown + "\n"]
        return markdown + ("\n## More\n" + "".join(f"\n::: {home}\n" for home in rest)) * bool(rest)
    return markdown


def public_names(source: str) -> dict[str, str]:
    """Public name -> where it is defined, as `if TYPE_CHECKING:` says to type checkers."""
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in imports
        if (node.module or "").startswith("worldsim.")
        for alias in node.names
    }
