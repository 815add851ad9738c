"""Reports within pages of docs: what a command writes stands between two marks."""

from pathlib import Path

BEGIN, END = "<!-- report -->", "<!-- /report -->"


def put(page: Path, report: str, mark: str = "report") -> None:
    """Put Markdown between two of the page's marks, in place of what was there."""
    begin, end = (x.replace("report", mark) for x in (BEGIN, END))
    before, rest = page.read_text().split(begin)
    _, after = rest.split(end)
    page.write_text(f"{before}{begin}\n\n{report}\n\n{end}{after}")
