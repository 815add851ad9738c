"""How rows of the reliability table are tried and kept; and, at night, each at its short count."""

import json
from pathlib import Path

import pytest

from tests.reliability.nightly import __main__ as nightly
from tests.reliability.nightly.rows import Outcome, Row, main, measure

ROWS = [(m, row) for m, rows in nightly.modules().items() for row in rows if row.ci]


@pytest.mark.nightly
@pytest.mark.parametrize("row", [r for _, r in ROWS], ids=[f"{m}-{r.name}" for m, r in ROWS])
def test_the_promise_holds(row: Row) -> None:
    line = measure(row, row.ci)
    assert line["passed"], "\n".join(line["failures"])
    json.dumps(line)


def test_every_row_has_a_name_of_its_own() -> None:
    names = [row.name for _, row in ROWS]
    assert len(set(names)) == len(names)


def broken(count: int) -> Outcome:
    return Outcome(failures=[f"case {i}" for i in range(count)], figures={"worst": 0.5})


FAULTY = Row(name="X1", promise="holds", unit="tries", ci=2, full=30, attempt=broken)


def test_a_broken_promise_fails_the_command(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["x", "--full"])
    with pytest.raises(SystemExit) as status:
        main((FAULTY,))
    line = json.loads(capsys.readouterr().out)
    assert status.value.code and line["failed"] == 30 and len(line["failures"]) == 20


def test_results_and_page_are_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n" + "stale".join(nightly.MARKS) + "after\n")
    monkeypatch.setattr(nightly, "RESULTS", tmp_path / "nightly.json")
    monkeypatch.setattr(nightly, "PAGE", page)
    for count in (3, 1):
        nightly.keep(measure(FAULTY, count))
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "stale" not in text
    assert "| X1 | holds | 1 tries | 1 | worst 0.5 |" in text and "3 tries" not in text
    assert nightly.known()["X1"]["count"] == 1
