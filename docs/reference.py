"""A hook of MkDocs: the reference lists every command and every public name, by itself."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from worldsim.cli.frame import VERBS

ROOT = Path(__file__).resolve().parent.parent / "worldsim"
PACKAGES = ("", "collect", "data", "envs", "evaluate")
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
        homes = {name: home for package in PACKAGES for name, home in public_names(package).items()}
        rest = [home for name, home in homes.items() if f".{name}\n" not in markdown + "\n"]
        return markdown + ("\n## More\n" + "".join(f"\n::: {home}\n" for home in rest)) * bool(rest)
    return markdown


def public_names(package: str) -> dict[str, str]:
    """Public name of worldsim or of one of its packages -> where it is defined.

    Read from `__all__` and the imports of its `__init__.py`, those for type checkers among them.
    """
    tree = ast.parse((ROOT / package / "__init__.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    homes = {
        alias.asname or alias.name: f"{_module(package, node)}.{alias.name}"
        for node in imports
        for alias in node.names
    }
    listed = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
    )
    return {name: homes[name] for name in listed if name in homes}


def _module(package: str, node: ast.ImportFrom) -> str:
    return f"worldsim.{package}.{node.module}" if node.level else str(node.module)
