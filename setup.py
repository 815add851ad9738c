"""What pyproject.toml cannot say: the README as an index of packages shows it.

Such an index has neither the folder's pictures nor its pages, so links into the folder become their
text, and a row of pictures and texts a list.
"""

import re
from pathlib import Path

from setuptools import setup

ROWS = r"^\| <img [^>]*> \| (.*) \|$"
HEADS = r"^\| \| \|\n\|---\|---\|\n(?=- )"
PICTURES = r"^!\[[^\]]*\]\((?!https?://)[^)]*\)\n\n"
LINKS = r"\[([^\]]*)\]\((?!https?://)[^)]*\)"


def readme(text: str) -> str:
    """The README (Markdown) without links into its folder."""
    for pattern, instead in ((ROWS, r"- \1"), (HEADS, ""), (PICTURES, ""), (LINKS, r"\1")):
        text = re.sub(pattern, instead, text, flags=re.MULTILINE)
    return text


if __name__ == "__main__":
    text = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
    setup(long_description=readme(text), long_description_content_type="text/markdown")
