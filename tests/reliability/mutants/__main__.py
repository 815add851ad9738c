"""Plant every fault of faults.py in a copy of the source and see our tests notice it.

    python -m tests.reliability.mutants                  all; goes on where it was stopped
    python -m tests.reliability.mutants "late NaN"       some, by name
    python -m tests.reliability.mutants --fresh          all anew

The tests of every fault must pass without it first, or a fault that they "notice" means nothing.
What was found is kept by a hash of fault, source and tests, so only what changed runs again. Tests
run in forks of a process that has torch in memory already: a fault costs a second or two.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import gymnasium  # noqa: E402, F401
import hypothesis  # noqa: E402, F401
import pytest  # noqa: E402
import safetensors.torch  # noqa: E402, F401
import torch  # noqa: E402, F401
import torchrl.envs  # noqa: E402, F401
from tqdm import tqdm  # noqa: E402

from tests.reliability.mutants.faults import FAULTS, Fault  # noqa: E402
from worldsim.flags import refuse_repeated

ROOT = Path(__file__).resolve().parents[3]
COPIED = ("worldsim", "envs", "agents", "tests", "pyproject.toml")
RESULTS = ROOT / "build/mutants.json"
PATIENCE = 300.0  # CPU seconds; a fault may make a test run for ever
KILLED, SURVIVED, PASSED = "killed", "survived", "passed"


def copy_source(folder: Path) -> None:
    """All that the tests need; the bundled worlds are large, never changed, and linked to."""
    worlds = ROOT / "worldsim/worlds"
    skip = shutil.ignore_patterns("__pycache__", *(p.name for p in worlds.iterdir() if p.is_dir()))
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, symlinks=True, ignore=skip)
        else:
            shutil.copy(source, folder / name)
    for world in (p for p in worlds.iterdir() if p.is_dir() and p.name != "__pycache__"):
        (folder / "worldsim/worlds" / world.name).symlink_to(world)


def plant(fault: Fault, folder: Path) -> None:
    path = folder / fault.file
    source = path.read_text()
    if source.count(fault.old) != 1:
        count = source.count(fault.old)
        raise SystemExit(f"{fault.name}: {fault.old!r} occurs {count} times in {fault.file}")
    path.write_text(source.replace(fault.old, fault.new))


def run_tests(folder: Path, tests: list[str]) -> int:
    """pytest's exit code for the copy in `folder`, from a fork; 124 where it ran for too long."""
    child = os.fork()
    if child == 0:
        os.setsid()
        signal.setitimer(signal.ITIMER_PROF, PATIENCE)  # SIGPROF ends the process
        os._exit(_tested(folder, tests))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _tested(folder: Path, tests: list[str]) -> int:
    os.chdir(folder)
    sys.path[:] = [str(folder), *(p for p in sys.path if p and Path(p).resolve() != ROOT)]
    os.environ["PYTHONPATH"] = str(folder)
    for name in [n for n in sys.modules if n.partition(".")[0] in ("tests", "worldsim")]:
        del sys.modules[name]
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        import worldsim

        if not Path(worldsim.__file__).resolve().is_relative_to(folder.resolve()):
            return 99  # it would be the unharmed source that passes
        options = ["-x", "-q", "-m", "", "-p", "no:cacheprovider", "--rootdir", str(folder)]
        return int(pytest.main([*options, "-c", str(folder / "pyproject.toml"), *tests]))


def mark(parts: list[bytes]) -> str:
    return sha256(b"\0".join(parts)).hexdigest()[:16]


def sources() -> bytes:
    files = sorted(p for top in COPIED[:-1] for p in (ROOT / top).rglob("*.py"))
    known = [p for p in files if "mutants" not in p.parts]
    return b"".join(p.read_bytes() for p in known)


def check(tests: list[str], fault: Fault | None) -> str:
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = Path(name)
        copy_source(folder)
        if fault is not None:
            plant(fault, folder)
        code = run_tests(folder, tests)
    if code == 99:
        raise SystemExit("the tests ran against the unharmed source")
    if fault is None:
        return PASSED if code == 0 else f"failed ({code})"
    return SURVIVED if code == 0 else KILLED


def main() -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("names", nargs="*", help="faults to plant; all if none is named")
    parser.add_argument("--fresh", action="store_true", help="believe no earlier result")
    asked = parser.parse_args(refuse_repeated(sys.argv[1:]))
    chosen = [f for f in FAULTS if not asked.names or f.name in asked.names]
    found: dict[str, dict[str, str]] = {}
    if RESULTS.exists() and not asked.fresh:
        found = json.loads(RESULTS.read_text())
    source, start = sources(), time.perf_counter()
    jobs = [(test, [test], None) for test in sorted({f.tests for f in chosen})]
    jobs += [(f.name, [f.tests], f) for f in chosen]
    for name, tests, fault in (bar := tqdm(jobs, "mutants")):
        seen = mark([source, repr(fault).encode()])
        if found.get(name, {}).get("mark") != seen or found[name]["result"] not in (KILLED, PASSED):
            found[name] = {"mark": seen, "result": check(tests, fault)}
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(found, indent=1))
        if fault is None and found[name]["result"] != PASSED:
            raise SystemExit(f"{name} fails without any fault: mend that first")
        if found[name]["result"] == SURVIVED:
            bar.write(f"survived: {name} ({tests[0]})")
    results = [found[f.name]["result"] for f in chosen]
    told = {"faults": len(results), KILLED: results.count(KILLED)}
    told["survivors"] = [f.name for f in chosen if found[f.name]["result"] == SURVIVED]
    print(json.dumps({"row": "B3", **told, "seconds": round(time.perf_counter() - start, 1)}))
    return int(results.count(KILLED) < len(results))


if __name__ == "__main__":
    sys.exit(main())
