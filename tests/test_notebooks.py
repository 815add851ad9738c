"""The notebooks of docs/notebooks run from top to bottom, and are kept with what they showed."""

import ast
from pathlib import Path
from typing import Any

import nbformat
import pytest
from PIL.Image import Image

NOTEBOOKS = Path(__file__).parent.parent / "docs" / "notebooks"
SHORTER = {
    "1-step-through-a-world": {},
    "2-plan-with-cem": {
        "range(100)": "range(25)", "at = len(seen) - 25": "at = 0",
        "candidates=20, elites=5": "candidates=4, elites=4", "every=3": "every=13",
        "(50)": "(2)", "expand(50,": "expand(2,",
    },
    "3-train-in-the-dream": {
        "EPISODES = 120, 128, 5": "EPISODES = 1, 4, 1", "for t in range(100)": "for t in range(96)",
    },
    "4-actions-from-video": {"16, 200, 1000": "2, 48, 3", "test=3": "test=2"},
}  # fmt: skip
"""What makes them quick here: text -> text."""


def run(source: str, names: dict[str, Any]) -> Any:
    """A cell, in this process: a kernel would import torch again. What its last line shows."""
    *lines, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        lines, last = [*lines, last], None
    exec(compile(ast.Module(lines, []), "cell", "exec"), names)
    return last and eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_every_notebook_is_tried() -> None:
    assert sorted(SHORTER) == sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("name", SHORTER)
def test_a_notebook_runs_and_shows_what_it_showed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    book = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    nbformat.validate(book)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    for old, new in SHORTER[name].items():
        [holding] = [cell for cell in cells if old in cell.source]
        holding.source = holding.source.replace(old, new)
    names: dict[str, Any] = {}
    kept = [any("image/png" in o.get("data", {}) for o in cell.outputs) for cell in cells]
    assert any(kept), "run it and keep its outputs: jupyter nbconvert --execute --inplace"
    assert kept == [isinstance(run(cell.source, names), Image) for cell in cells]
