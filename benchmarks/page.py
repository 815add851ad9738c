"""Reports within pages of docs: what a command writes stands between two marks."""

from pathlib import Path

BEGIN, END = "<!-- report -->", "<!-- /report -->"


def put(page: Path, report: str) -> None:
    """Put Markdown between the page's marks, in place of what was there."""
    before, rest = page.read_text().split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n\n{report}\n\n{END}{after}")
