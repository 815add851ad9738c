"""What this machine can do: what is installed, what is fast, what to do next."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata

import torch

from worldsim import __version__
from worldsim.nn.dtype import fast_dtype
from worldsim.world.compiled import cache_folder
from worldsim.worlds import names

from .extras import EXTRAS

SIDE = 1024  # of the matrices that are multiplied
SECONDS = 0.2  # of multiplying, for each type


def doctor() -> None:
    """Say what is installed, which device and dtype are fast here, and what the next step is."""
    for title, lines in (
        ("versions", versions()),
        ("extras", extras()),
        ("devices", devices()),
        ("compiling", compiling()),
        ("worlds", [", ".join(names()) or "none bundled"]),
        ("next", [next_step()]),
    ):
        for line in lines:
            print(f"{title:10} {line}", flush=True)
            title = ""


def versions() -> Iterator[str]:
    """Of worldsim, Python and what matters most."""
    python, system = platform.python_version(), f"{platform.system()} {platform.machine()}"
    yield f"worldsim {__version__}, Python {python}, {system}, {os.cpu_count()} cores"
    known = ("torch", "gymnasium", "torchrl", "tensordict", "numpy", "av")
    yield ", ".join(f"{name} {_version(name)}" for name in known)


def extras() -> Iterator[str]:
    """Which optional parts are installed, and how to get those that are not."""
    modules: dict[str, list[str]] = {}
    for module, extra in EXTRAS.items():
        modules.setdefault(extra, []).append(module)
    for extra, needed in modules.items():
        missing = [name for name in needed if importlib.util.find_spec(name) is None]
        yield f"{extra:12} " + (f"no: pip install 'worldsim[{extra}]'" if missing else "yes")


def devices() -> Iterator[str]:
    """Every device and how fast it multiplies in each type."""
    for name in _devices():
        device = torch.device(name)
        rates = {str(dtype).removeprefix("torch."): _rate(device, dtype) for dtype in _types()}
        figures = ", ".join(f"{kind} {rate:,.0f} GFLOP/s" for kind, rate in rates.items())
        yield f"{name} ({_model(device)}): {figures}; worldsim computes in {fast_dtype(device)}"
    if len(_devices()) == 1:
        yield "no GPU that torch can use; leave device='cpu'"


def compiling() -> Iterator[str]:
    """Whether compiled worlds can be made and kept."""
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    yield compiler or "no C++ compiler: install g++, or leave compile=False"
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free / 2**30
        yield f"cache {folder}: can be written, {free:.1f} GiB free"
    except OSError as error:
        yield f"cache {folder}: {error.strerror}; set WORLDSIM_CACHE to a folder of yours"


def next_step() -> str:
    """What to type now."""
    if not names():
        return "worldsim collect CartPole-v1: record a world of your own"
    if importlib.util.find_spec("uvicorn") is None:
        return f"worldsim info {names()[0]}; pip install 'worldsim[web]' to play it in the browser"
    return f"worldsim play {names()[0]}"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def _devices() -> list[str]:
    found = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return found + ["mps"] * torch.backends.mps.is_available()


def _types() -> tuple[torch.dtype, ...]:
    return torch.float32, torch.bfloat16


def _model(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor()
        return f"{name or 'unknown'}, {torch.get_num_threads()} threads"
    return platform.machine()


def _rate(device: torch.device, dtype: torch.dtype) -> float:
    """Billions of floating-point operations a second of a square matrix product."""
    a = torch.ones(SIDE, SIDE, device=device, dtype=dtype)
    (a @ a)[0, 0].item()  # whatever is set up at the first call
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        (a @ a)[0, 0].item()
        count += 1
    return 2 * SIDE**3 * count / (time.perf_counter() - began) / 1e9
