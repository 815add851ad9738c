"""The wheel holds the whole house, and works beside a user's own `envs/` and `agents/`."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.sources import nodes

MAPPED = {name: f"worldsim/{name}" for name in ("envs", "agents", "benchmarks")}
MAPPED["docs/examples"] = "worldsim/examples"
REPO = Path(__file__).resolve().parent.parent
WHOLE = "pendulum"


def project() -> dict:
    return tomllib.loads((REPO / "pyproject.toml").read_text())


def wheel_files(root: Path) -> set[str]:
    """What the wheel must hold, read from the tree: sources, the type marker, worlds, the page."""
    tops = ("worldsim", *MAPPED)
    sources = (p for top in tops for p in (root / top).rglob("*.py"))
    folders = (root / "worldsim/worlds", root / "worldsim/play/page")
    data = (p for folder in folders for p in folder.rglob("*") if p.is_file())
    files = {p.relative_to(root).as_posix() for p in (*sources, *data)}
    top = re.compile(rf"^({'|'.join(MAPPED)})(?=/)")
    named = {top.sub(lambda m: MAPPED[m.group()], f) for f in files} | {"worldsim/py.typed"}
    return {f for f in named if "__pycache__" not in f}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built offline from a copy, so that no earlier build leaks into it.

    The copy lacks the links, as a source archive and some file systems do: the mapping must serve.
    Of the bundled worlds one is whole; the files of the others are empty, and quick to pack.
    """
    copy, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    skip = shutil.ignore_patterns("__pycache__", "results")
    for top in ("worldsim", *MAPPED):
        shutil.copytree(REPO / top, copy / top, symlinks=True, ignore=skip)
    for link in MAPPED.values():
        (copy / link).unlink()
    for path in (copy / "worldsim/worlds").glob("*/*"):
        if path.parent.name not in (WHOLE, "__pycache__"):
            path.write_bytes(b"")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(REPO / name, copy)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "-w", str(out), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = out.glob("worldsim-*.whl")
    return path


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The unpacked wheel, and a user's folder whose own envs/ and agents/ must not be touched."""
    site, home = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("home")
    zipfile.ZipFile(wheel).extractall(site)
    for name in MAPPED:
        (home / name).mkdir(parents=True)
        (home / name / "__init__.py").write_text("raise AssertionError('the user owns this')\n")
    return site, home


def run_there(code: str, elsewhere: tuple[Path, Path]) -> str:
    site, home = elsewhere
    env = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-c", code]  # -c puts the user's folder first on the path
    done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_folder_with_code_is_a_listed_package(root: Path) -> None:
    inits = {f.rpartition("/")[0].replace("/", ".") for f in wheel_files(root) if f[-3:] == ".py"}
    assert set(project()["tool"]["setuptools"]["packages"]) == inits
    missing = [p for p in inits if f"{p.replace('.', '/')}/__init__.py" not in wheel_files(root)]
    assert not missing, f"no __init__.py in {missing}"


@pytest.mark.parametrize(("folder", "link"), MAPPED.items())
def test_the_links_serve_python_at_the_root(root: Path, folder: str, link: str) -> None:
    assert os.readlink(root / link) == f"../{folder}"


def test_the_wheel_holds_the_tree_and_nothing_else(wheel: Path, root: Path) -> None:
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    assert names == wheel_files(root)


def test_the_wheel_says_who_it_is(wheel: Path) -> None:
    folder = "worldsim-{}.dist-info".format(project()["project"]["version"])
    archive = zipfile.ZipFile(wheel)
    text = archive.read(f"{folder}/METADATA").decode()
    assert "License-Expression: Apache-2.0" in text and "Requires-Python: >=3.11" in text
    assert "Apache License" in archive.read(f"{folder}/licenses/LICENSE").decode()
    assert "- **Play** in the browser" in text
    links = re.findall(r"(?:\]\(|(?:src|href)=.)([^)\"'\s]+)", text.partition("\n\n")[2])
    assert not [link for link in links if not link.startswith("http")]


EXTRAS = (
    "Box2D h5py huggingface_hub matplotlib minari moviepy pyarrow pygame ray starlette tensorboard "
    "tokenizers uvicorn wandb websockets wordllama"
)


def test_the_wheel_works_beside_the_users_own_folders_and_without_extras(
    elsewhere: tuple[Path, Path],
) -> None:
    """All but the page's server and the window, which are imported by `play` alone."""
    code = (
        "import importlib, pkgutil, sys\n"
        f"sys.modules.update(dict.fromkeys({EXTRAS!r}.split()))\n"
        "import gymnasium\n"
        f"env = gymnasium.make('worldsim:WorldSim-v0', world='{WHOLE}')\n"
        "env.reset(seed=0)\n"
        "obs, *_ = env.step(env.action_space.sample())\n"
        "assert env.observation_space.contains(obs)\n"
        "import worldsim, worldsim.envs, worldsim.agents, worldsim.benchmarks.rollout_speed\n"
        "print(worldsim.__file__, worldsim.envs.__file__, worldsim.agents.__file__)\n"
        "for found in pkgutil.iter_modules(worldsim.__path__, 'worldsim.'):\n"
        "    if found.name in ('worldsim.benchmarks', 'worldsim.examples'): continue\n"
        "    for part in [found, *pkgutil.walk_packages([found.module_finder.path + '/' +\n"
        "            found.name.partition('.')[2]], found.name + '.')]:\n"
        "        if part.name.rpartition('.')[2] == '__main__': continue\n"
        "        try: importlib.import_module(part.name)\n"
        "        except Exception as error: print(part.name, error)"
    )
    first, *failed = run_there(code, elsewhere).splitlines()
    assert all(Path(p).is_relative_to(elsewhere[0]) for p in first.split()), first
    assert {line.split()[0] for line in failed} == {"worldsim.play.server", "worldsim.play.window"}


def test_the_version_is_told_once() -> None:
    import worldsim

    assert worldsim.__version__ == project()["project"]["version"]


def third_party(files: list[Path]) -> set[str]:
    """Top-level names that files import from outside Python and the house."""
    found = [node for p in files for node in nodes(p)]
    names = {a.name for n in found if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module or "" for n in found if isinstance(n, ast.ImportFrom) and not n.level}
    house = {"worldsim", *MAPPED, *sys.stdlib_module_names}
    return {name.split(".")[0] for name in names} - house


def distributions(requirements: list[str]) -> set[str]:
    names = (re.match(r"[\w.-]+", r) for r in requirements)
    found = {re.sub(r"[-_.]+", "-", n.group()).lower() for n in names if n}
    return found - {"worldsim"}  # an extra may name others of ours


def test_every_import_is_a_declared_dependency(root: Path) -> None:
    files = [p for top in ("worldsim", *MAPPED) for p in (root / top).rglob("*.py")]
    table = project()["project"]
    extras = [r for rs in table["optional-dependencies"].values() for r in rs]
    declared = distributions([*table["dependencies"], *extras])
    providers = importlib.metadata.packages_distributions()
    found = {m: distributions(providers.get(m, [m])) for m in third_party(files)}
    assert "torch" in found
    undeclared = [module for module, names in found.items() if not names & declared]
    assert not undeclared, f"add to pyproject.toml: {undeclared}"


def test_every_dependency_is_pinned(root: Path) -> None:
    pins = [line for line in (root / "constraints.txt").read_text().splitlines() if "==" in line]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins), (
        "no build tags: torch==2.13.0"
    )
    table = project()["project"]
    extras = [r for rs in table["optional-dependencies"].values() for r in rs]
    assert distributions([*table["dependencies"], *extras]) <= distributions(pins)


def test_the_installed_versions_lie_in_the_declared_ranges() -> None:
    packaging = pytest.importorskip("packaging.requirements")
    for text in project()["project"]["dependencies"]:
        need = packaging.Requirement(text)
        assert need.specifier.contains(importlib.metadata.version(need.name)), text
