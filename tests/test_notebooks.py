"""The notebooks of docs/notebooks run from top to bottom, and are kept with what they showed."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parent.parent / "docs" / "notebooks"
SHORTER = {
    "1-step-through-a-world": {},
    "2-plan-with-cem": {
        "range(100)": "range(25)",
        "candidates=20, elites=5": "candidates=6, elites=3",
    },
    "3-train-in-the-dream": {"EPISODES = 120, 128, 5": "EPISODES = 2, 8, 1"},
}
"""What makes them quick here: text -> text."""


def pictures(book: Any) -> int:
    outputs = [o for cell in book.cells for o in cell.get("outputs", [])]
    return sum("image/png" in o.get("data", {}) for o in outputs)


def test_every_notebook_is_tried() -> None:
    assert sorted(SHORTER) == sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("name", SHORTER)
def test_a_notebook_runs_and_shows_what_it_showed(
    name: str, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(root))
    book = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    nbformat.validate(book)
    shown = pictures(book)
    assert shown >= 1, "run it and keep its outputs: jupyter nbconvert --execute --inplace"
    for old, new in SHORTER[name].items():
        holding = [cell for cell in book.cells if old in cell.source]
        assert len(holding) == 1, old
        holding[0].source = holding[0].source.replace(old, new)
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert pictures(book) == shown
