"""A room imports downwards only: this reads every import in the house and holds the floors."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.sources import files, nodes

FLOORS = (
    (
        "core",
        "rows",
        "states",
        "errors",
        "fields",
        "actions",
        "config",
        "files",
        "flags",
        "verbs",
        "metrics",
        "nn",
        "diffusion",
    ),
    ("models",),
    ("world", "presets"),
    ("worlds", "store", "data"),
    ("collect", "train"),
    ("recipes", "costs"),
    ("envs", "agents", "evaluate"),
    ("play", "pipeline", "latent_actions", "video", "hub", "shards"),
    ("__init__", "__main__", "cli", "benchmarks", "examples"),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS, 1) for room in rooms}
STRANGERS = {frozenset({"envs", "agents"}): "what they share is the protocols in core"}
MAPPED = ("envs", "agents", "benchmarks")  # served as worldsim.NAME through links
TORCHRL = {"torchrl", "tensordict"}
TORCHRL_HOMES = ("envs/torchrl_env.py", "worldsim/collect/adapters.py")


class Import(NamedTuple):
    file: str  # relative to the repository
    line: int
    room: str  # the room that imports
    target: str  # absolute module, such as worldsim.core
    climbs: bool  # written as `from ..x import`


def package_of(file: str) -> list[str]:
    """The package a file lives in: envs/gym_env.py -> [worldsim, envs]."""
    parts = list(Path(file).parts[:-1])
    return ["worldsim", *parts] if parts[0] in MAPPED else parts


def room_of(module: str) -> str | None:
    """`worldsim.nn.conv` -> nn; None outside the house."""
    first, *rest = module.split(".")
    if first == "worldsim":
        return rest[0] if rest else "__init__"
    return first if first in MAPPED else None


def home_of(file: str) -> str:
    """The room of a file: worldsim/nn/conv.py -> nn, worldsim/world/diffusion.py -> world."""
    top, *rest = Path(file).with_suffix("").parts
    return rest[0] if top == "worldsim" else top


def targets(node: ast.AST, package: list[str]) -> Iterator[str]:
    """The modules that one syntax node imports, absolute."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package[: len(package) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        if base == "worldsim":  # `from worldsim import nn` means the room, other names the roof
            rooms = (a.name for a in node.names)
            yield from (f"worldsim.{name}" if name in FLOOR else "worldsim" for name in rooms)
        else:
            yield base
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
            yield node.args[0].value


@cache
def imports(root: Path) -> list[Import]:
    """All imports of the house, in functions and under TYPE_CHECKING too."""
    found = []
    for path in files(root):
        file = path.relative_to(root).as_posix()
        for node in nodes(path):
            climbs = isinstance(node, ast.ImportFrom) and node.level > 1
            for target in targets(node, package_of(file)):
                found.append(Import(file, node.lineno, home_of(file), target, climbs))  # type: ignore[attr-defined]
    return found


def fault(found: Import) -> str | None:
    """Why this import may not stand, or None."""
    here, there = found.room, room_of(found.target)
    top = found.target.split(".")[0]
    if top in TORCHRL and found.file not in TORCHRL_HOMES and here != "agents":
        return f"torchrl stays in {', '.join(TORCHRL_HOMES)} and agents/"
    if top in MAPPED:
        return f"import it as worldsim.{top}: users have folders of that name"
    if there is None:
        return None
    if found.climbs:
        return "across folders imports are absolute"
    if missing := {here, there} - FLOOR.keys():
        return f"no floor for {sorted(missing)}: give it one here and in architecture.md"
    if reason := STRANGERS.get(frozenset({here, there})):
        return f"{here} and {there} never import each other: {reason}"
    if FLOOR[there] > FLOOR[here]:
        return f"{here} (floor {FLOOR[here]}) imports upwards from {there} (floor {FLOOR[there]})"
    return None


def faults(root: Path) -> list[str]:
    named = [(found, fault(found)) for found in imports(root)]
    return [f"{i.file}:{i.line}: {i.target}: {why}" for i, why in named if why]


def circle(root: Path) -> list[str]:
    """Rooms of one floor that import each other in a circle, empty if none do."""
    graph: dict[str, set[str]] = {}
    for found in imports(root):
        there = room_of(found.target)
        if there and there != found.room:
            graph.setdefault(found.room, set()).add(there)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_rooms_import_downwards_only(root: Path) -> None:
    assert len(files(root)) > 5
    assert not faults(root), "\n".join(faults(root))


def test_the_docs_draw_the_same_floors(root: Path) -> None:
    text = (root / "docs/explanation/architecture.md").read_text()
    drawn = dict(re.findall(r"^\| (\d) \| ((?:`\w+`,? ?)+)\|", text, re.MULTILINE))
    assert {int(n): set(re.findall(r"\w+", rooms)) for n, rooms in drawn.items()} == {
        number: set(rooms) for number, rooms in enumerate(FLOORS, 1)
    }


def test_no_circle_on_a_floor(root: Path) -> None:
    assert not circle(root), " -> ".join(circle(root))


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("worldsim/core.py", "def f():\n    from worldsim import cli", "core (floor 1) imports up"),
        ("worldsim/world/a.py", "import_module('worldsim.train')", "imports upwards from train"),
        ("worldsim/train/vae.py", "from ..data import clips", "imports are absolute"),
        ("worldsim/nn/a.py", "import worldsim.attic", "no floor for ['attic']"),
        ("agents/planners.py", "import worldsim.envs.gym_env", "never import each other"),
        ("envs/gym_env.py", "import envs.vector_env", "import it as worldsim.envs"),
        ("benchmarks/a.py", "import torchrl", "torchrl stays in"),
    ],
)
def test_a_planted_fault_is_named(tmp_path: Path, file: str, line: str, complaint: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(f"from worldsim.core import x\n{line}\n")
    [found] = faults(tmp_path)
    assert found.startswith(f"{file}:{2 + line.count(chr(10))}: ") and complaint in found


def test_imports_are_light_and_environments_and_agents_do_without_torchrl(root: Path) -> None:
    code = (
        "import sys, gymnasium, worldsim\n"
        "heavy = {'torch', 'torchrl', 'tensordict', 'pygame', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert gymnasium.spec('WorldSim-v0').entry_point == 'worldsim.envs:WorldSimEnv'\n"
        "sys.modules['torchrl'] = sys.modules['tensordict'] = None\n"
        "import worldsim.agents, worldsim.world\n"
        "assert worldsim.envs.WorldSimEnv and 'torch' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
