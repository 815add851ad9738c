"""The manual: it builds, its code runs, its commands exist, it speaks the field's language."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

import worldsim
import worldsim.evaluate
from worldsim.cli.frame import VERBS, function_of

REPO = Path(__file__).resolve().parent.parent
MANUAL = [REPO / "README.md", *sorted((REPO / "docs").rglob("*.md"))]
MANUAL = [page for page in MANUAL if "journal" not in page.parts]
RUNNING = [
    "README.md", "docs/tutorials/first-dream.md", "docs/tutorials/plan.md",
    "docs/how-to/generate.md", "docs/how-to/real-environment.md",
]  # fmt: skip
NAMES = {"face", "scene", "caution", "twins", "foreign", "lines", "clumsy", "stray", "doubt",
         "signs", "judge", "strange", "practise", "improve", "dreamlike", "noised", "cont",
         "told", "said", "found", "kept", "how", "who"}  # fmt: skip
WORDS = 600  # of the README
DIALECT = {  # words of ours -> the field's
    "house": "packages", "room": "package", "rooms": "packages", "twins": "noise floor",
    "foreign": "off-track reference", "clumsy": "unskilled", "stray": "distracted",
    "practise": "model-free", "practised": "model-free", "improve": "dyna", "doubt": "uncertainty",
    "judge": "calibrator", "dreamlike": "drift-augmented", "caution": "trust policy",
    "throw-away": "belongs to the journal", "one go": "belongs to the journal",
}  # fmt: skip


def name(page: Path) -> str:
    return page.relative_to(REPO).as_posix()


def blocks(page: Path, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Dead links, missing pages and names that mkdocstrings does not find are warnings."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(tmp_path.rglob("*.py"))
    python, commands = (
        (tmp_path / f"reference/{page}.html").read_text() for page in ("python", "commands")
    )
    packages = (worldsim.collect, worldsim.data, worldsim.envs, worldsim.evaluate)
    public = {name for package in (worldsim, *packages) for name in package.__all__}
    assert not [name for name in sorted(public) if f'.{name}"' not in python]
    assert not [verb for verb in VERBS if f'id="{verb}"' not in commands]


@pytest.mark.parametrize("page", RUNNING)
def test_the_code_on_a_page_runs(page: str, tmp_path: Path, monkeypatch: Any) -> None:
    """All its Python in order, in an empty folder; what it does fifty times, twice."""
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks(REPO / page, "python"))
    exec(compile(code.replace("range(50)", "range(2)"), page, "exec"), {"__name__": "page"})


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = (REPO / "README.md").read_text()
    assert len(text.split()) < WORDS
    found = re.findall(r"\]\(([^)]+)\)|src=\"([^\"]+)\"", text)
    targets = ["".join(pair).partition("#")[0] for pair in found]
    missing = [t for t in targets if not t.startswith("http") and not (REPO / t).exists()]
    assert not missing


def prose(page: Path) -> Iterator[str]:
    """Lines that people wrote for people: no code, no tables, which results write."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for line in text.splitlines():
        if not line.startswith(("|", "    ")):
            yield re.sub(r"`[^`]*`|\]\([^)]*\)", "", line)


def test_the_manual_speaks_the_fields_language() -> None:
    pattern = re.compile(rf"\b({'|'.join(DIALECT)})\b", re.IGNORECASE)
    lines = [(name(page), line) for page in MANUAL for line in prose(page)]
    found = [f"{page}: {m.group()} in: {x}" for page, x in lines for m in pattern.finditer(x)]
    assert not found, "\n".join(found)


def parts(identifier: str) -> set[str]:
    words = re.findall(r"[A-Z]?[a-z]+", identifier)
    return {word.lower() for word in words}


def test_public_names_are_the_fields() -> None:
    flags = [flag for verb in VERBS.values() for flag in function_of(verb).__annotations__]
    public = [*worldsim.__all__, *VERBS, *flags]
    assert not {word for word in public if parts(word) & NAMES}


def lines(page: Path) -> Iterator[str]:
    """Lines of the page's shell blocks and of its indented ones, continued ones joined."""
    indented = re.findall(r"(?:^    .*\n)+", page.read_text(), re.MULTILINE)
    for block in [*blocks(page, "sh"), *indented]:
        for line in block.replace("\\\n", " ").splitlines():
            yield from re.split(r";|&&|\bdo\b", line.strip().partition("  #")[0])


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every `worldsim ...` and `python -m ...` in a block of the manual."""
    for page in MANUAL:
        for line in lines(page):
            if re.match(r" *(worldsim|python -m (worldsim|benchmarks)[. ]) *", line):
                words = shlex.split(line.replace("$s", "0"), comments=True)
                yield name(page), words if words[0] == "worldsim" else words[2:]


def idle(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same flags, and nothing happens."""

    @wraps(function)
    def nothing(*args: Any, **kwargs: Any) -> None: ...

    return nothing


@pytest.mark.parametrize(("page", "words"), list(commands()), ids=lambda x: str(x)[:60])
def test_a_command_on_a_page_exists(page: str, words: list[str]) -> None:
    import tyro

    program, *words = words
    if program != "worldsim":  # a benchmark or an example: the file is there
        path = program.removeprefix("worldsim.").replace("examples", "docs/examples")
        assert (REPO / f"{path.replace('.', '/')}.py").exists(), program
    elif not words[0].startswith("--"):
        tyro.cli(idle(function_of(VERBS[words[0]])), args=words[1:])
