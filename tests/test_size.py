"""The house stays small enough to know at a glance, and opens no file that could run code."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.sources import LIBRARY, files, nodes

ALL = (*LIBRARY, "tests")
FILE_LINES = 400
FUNCTION_LINES = 40
UNSAFE_MODULES = {"pickle", "_pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}
# Collecting hands the caller's own policy to its worker processes; nothing of it touches a disk.
ALLOWED = {("worldsim/collect/workers.py", "cloudpickle")}


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first statement after the docstring to the end."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def long_functions(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if body_lines(node) > FUNCTION_LINES:
                yield f"{node.lineno}: {node.name} has {body_lines(node)} lines"


def complaint(node: ast.AST) -> str | None:
    """The unsafe thing that one syntax node does, or None."""
    match node:
        case ast.Import(names=names):
            found = {alias.name.split(".")[0] for alias in names} & UNSAFE_MODULES
            return ", ".join(sorted(found)) or None
        case ast.ImportFrom(module=str(module), names=names):
            if module.split(".")[0] in UNSAFE_MODULES:
                return module.split(".")[0]
            return "torch.load" if module == "torch" and "load" in {a.name for a in names} else None
        case ast.Attribute(value=ast.Name(id="torch"), attr="load"):
            return "torch.load"
        case ast.Call(func=ast.Name(id="eval" | "exec" | "compile" as name)):
            return name
        case ast.keyword(arg="allow_pickle", value=value):
            return None if isinstance(value, ast.Constant) and not value.value else "allow_pickle"
        case ast.Constant(value="_target_") | ast.Name(id="_target_") | ast.keyword(arg="_target_"):
            return "_target_"
    return None


def unsafe(nodes: Iterable[ast.AST]) -> list[str]:
    return [found for node in nodes if (found := complaint(node))]


def test_files_are_short(root: Path) -> None:
    lengths = {p: len(p.read_text().splitlines()) for p in files(root, ALL)}
    assert len(lengths) > 10
    long = [f"{p.relative_to(root)}: {n} lines" for p, n in lengths.items() if n > FILE_LINES]
    assert not long, "\n".join(long)


def test_functions_are_short(root: Path) -> None:
    long = [
        f"{p.relative_to(root)}:{found}"
        for p in files(root, ALL)
        for found in long_functions(nodes(p))
    ]
    assert not long, "\n".join(long)


def test_no_room_is_a_drawer(root: Path) -> None:
    names = [p for p in files(root, ALL) if "util" in p.stem or "misc" in p.stem]
    assert not names, f"name the file for its one idea: {names}"


def test_the_library_runs_no_stored_code(root: Path) -> None:
    found = [
        (path.relative_to(root).as_posix(), what)
        for path in files(root)
        for what in unsafe(nodes(path))
    ]
    assert set(found) <= ALLOWED, set(found) - ALLOWED


def test_planted_stored_code_is_found_and_harmless_namesakes_pass() -> None:
    planted = "torch.load(path)\nimport os, dill as d\nnp.load(path, allow_pickle=True)\nexec(text)"
    harmless = "model.eval(); worldsim.load(x); np.load(x, allow_pickle=False); re.compile(x)"
    assert sorted(unsafe(ast.walk(ast.parse(planted)))) == ["allow_pickle", "dill", "exec",
                                                            "torch.load"]  # fmt: skip
    assert unsafe(ast.walk(ast.parse(f"{harmless}\nx = 'no _target_ here'"))) == []
