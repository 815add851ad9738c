"""The house's own source, parsed once for all tests that read it."""

import ast
from functools import cache
from pathlib import Path

LIBRARY = ("worldsim", "envs", "agents", "benchmarks")


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of a file's syntax tree."""
    return tuple(ast.walk(ast.parse(path.read_text(), str(path))))


@cache
def files(root: Path, tops: tuple[str, ...] = LIBRARY) -> tuple[Path, ...]:
    """Every Python file once: rglob does not follow the links within worldsim/."""
    return tuple(sorted(p for top in tops for p in (root / top).rglob("*.py")))
