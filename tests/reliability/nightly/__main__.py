"""The long rows of the reliability table, in full: `python -m tests.reliability.nightly`.

Every row runs in a process of its own. What came of it goes into `benchmarks/results/nightly.json`
as soon as it is known, and the table of `docs/explanation/reliability.md` is written anew from that
file. Rows that passed at the present commit are not run again, so a night that was cut short goes
on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tests.reliability.nightly.rows import Row
from worldsim.flags import refuse_repeated
from worldsim.store.provenance import provenance

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "benchmarks" / "results" / "nightly.json"
PAGE = ROOT / "docs" / "explanation" / "reliability.md"
MARKS = "<!-- nightly -->\n", "<!-- /nightly -->\n"


def modules() -> dict[str, tuple[Row, ...]]:
    """The rows of every module of this folder that declares some."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if not path.stem.startswith("__") and not path.stem.endswith("_child"):
            rows = getattr(import_module(f"tests.reliability.nightly.{path.stem}"), "ROWS", None)
            if rows:
                found[path.stem] = rows
    return found


def run(module: str, row: Row, short: bool) -> dict[str, Any]:
    """A row in a process of its own: its line, or one that says how the process ended."""
    command = [sys.executable, "-m", f"tests.reliability.nightly.{module}", "--row", row.name]
    command += [] if short else ["--full"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    lines = done.stdout.splitlines()
    if lines and done.returncode in (0, 1):
        return json.loads(lines[-1])
    broken = {"row": row.name, "passed": False, "promise": row.promise, "unit": row.unit}
    failure = f"the test itself broke: exit {done.returncode}"
    return broken | {"count": 0, "figures": {}, "failed": 1, "failures": [failure], **provenance()}


def known() -> dict[str, dict[str, Any]]:
    """What earlier runs found, by row."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def keep(line: dict[str, Any]) -> None:
    """Put a row's line into the results and the page, all or nothing."""
    results = known() | {line["row"]: line}
    _replace(RESULTS, json.dumps(dict(sorted(results.items())), indent=1) + "\n")
    if PAGE.exists():
        text = PAGE.read_text()
        before, after = text.partition(MARKS[0])[0], text.partition(MARKS[1])[2]
        _replace(PAGE, before + MARKS[0] + table(dict(sorted(results.items()))) + MARKS[1] + after)


def _replace(path: Path, text: str) -> None:
    part = path.with_suffix(".tmp")
    part.write_text(text)
    os.replace(part, path)


def table(results: dict[str, dict[str, Any]]) -> str:
    """The page's table, from the results alone."""
    lines = ["| row | promise | tried | broken | measured | on |", "|---|---|---|---|---|---|"]
    for name, line in results.items():
        figures = "; ".join(f"{k} {_plain(v)}" for k, v in line["figures"].items())
        tried = f"{line['count']:,} {line['unit']}"
        on = f"{line['date'][:10]}, {line['hardware']['gpu'] or line['hardware']['cpu']}"
        cells = (name, line["promise"], tried, str(line["failed"]), figures, on)
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Run the rows that are asked for; the exit status says whether all promises held."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--only", nargs="*", metavar="NAME", help="modules or rows; all by default")
    parser.add_argument("--again", action="store_true", help="also rows that passed at this commit")
    parser.add_argument("--short", action="store_true", help="CI's counts; nothing is written")
    asked = parser.parse_args(refuse_repeated(sys.argv[1:]))
    jobs = [(module, row) for module, rows in modules().items() for row in rows]
    jobs = [(m, r) for m, r in jobs if not asked.only or {m, r.name} & set(asked.only)]
    jobs = [(m, r) for m, r in jobs if r.ci or not asked.short]
    commit, past, failed = provenance()["commit"], known(), []
    bar = tqdm(jobs)
    for module, row in bar:
        bar.set_description(row.name)
        before = past.get(row.name, {"passed": False})
        if before["passed"] and before["commit"] == commit and not (asked.again or asked.short):
            continue
        line = run(module, row, asked.short)
        if not asked.short:
            keep(line)
        if not line["passed"]:
            failed.append(row.name)
            tqdm.write(f"{row.name} FAILED: {line['failures']}")
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
