"""A world whose step and picture are compiled for the machine, one program a batch size.

On a CPU a program is made ahead of time (torch.export, AOTInductor): weights are cast, packed and
frozen into it, and no Python is left inside. It is kept as a file, so only the first process that
asks for it waits. On an accelerator it is torch.compile's, replayed as one CUDA graph a call.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import fields
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from worldsim.config import to_json
from worldsim.core import Conditions, Prediction, WorldError, WorldState
from worldsim.files import atomic_path, open_plain, read_bytes, write_text
from worldsim.nn.dtype import Narrow, fast_dtype, numerics
from worldsim.nn.tables import Tables

from .diffusion import DiffusionWorld, Sampling
from .fanned import FannedState
from .uncertainty import Trust

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

RECIPE = 2
"""How programs are made; another way is another number, so that old ones are not found."""

Program = Callable[..., Any]
"""Tensors in, a tensor or a tuple of them out."""


def compiled(
    world: DiffusionWorld,
    batch: int | None = None,
    dtype: Narrow | None = None,
) -> CompiledWorld:
    """`world` with a compiled `step` and `decode`: the same states, the same keys, more speed.

    batch: rows to make ready for; other sizes are compiled when they first come.
    dtype: of weights and activations within the networks; states stay float32. None takes bfloat16
        where the device multiplies it fast. Rounded dreams drift from float32 ones as any two
        dreams do; what that costs in fidelity is measured in docs/explanation/speed.md.

    Compiling takes a minute or two for each size, once: programs are kept in `cache_folder()`.
    Where nothing can be compiled (no C++ compiler) it warns and runs as `world` does; an error in
    what is to be compiled is raised.
    """
    if dtype is not None and dtype not in DTYPES:
        raise WorldError(f"dtype: expected one of {list(DTYPES)} or None, got {dtype!r}")
    if batch is not None and batch < 1:
        raise WorldError(f"batch: expected at least 1, got {batch}")
    made = CompiledWorld(world, dtype or fast_dtype(world.device))
    if batch is not None:
        made.warm_up(batch)
    return made


def cache_folder() -> Path:
    """Where programs are kept: $WORLDSIM_CACHE, or `worldsim` among the user's caches.

    They are native code that this process made and will run: keep it to yourself.
    """
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("WORLDSIM_CACHE") or Path(user) / "worldsim")


class CompiledWorld(DiffusionWorld):
    """A `DiffusionWorld` that runs programs in place of its networks; made by `compiled`.

    Start clips are encoded by the networks themselves, in float32. Results of two calls never share
    memory, and rows of one batch do not know each other; another batch size is another program and
    may round differently.
    """

    def __init__(self, world: DiffusionWorld, dtype: str) -> None:
        vars(self).update(vars(world))
        self.dtype = dtype
        self._narrow = _narrowed(world, DTYPES[dtype])
        self._programs: dict[tuple[Any, ...], Program] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_programs": {}}

    def with_sampling(self, sampling: Sampling) -> CompiledWorld:
        """The same weights drawn from in another way, by other programs."""
        return CompiledWorld(super().with_sampling(sampling), self.dtype)

    def with_trust(self, trust: Trust | None) -> CompiledWorld:
        """The same world with another calibration, in other programs."""
        return CompiledWorld(super().with_trust(trust), self.dtype)

    def to(self, device: torch.device | str) -> CompiledWorld:
        """Move the weights; programs are made again."""
        super().to(device)
        self._narrow = _narrowed(self, DTYPES[self.dtype])
        self._programs.clear()
        return self

    def warm_up(self, batch: int, *, pixels: bool = True) -> None:
        """Make the programs for `batch` rows now rather than in the first step."""
        key = torch.zeros(batch, 2, dtype=torch.int64, device=self.device)
        state = self.reset(key)
        self.step(state)
        if pixels:
            self.decode(state)

    def advance(
        self, state: WorldState, given: Conditions, key: Tensor
    ) -> tuple[WorldState, Prediction]:
        """See `DiffusionWorld.advance`."""
        kind, count = type(state), len(fields(state))

        def step(world: DiffusionWorld, *tensors: Tensor) -> tuple[Tensor, ...]:
            held, said = kind(*tensors[:count]), Conditions(*tensors[count:-1])
            following, prediction = DiffusionWorld.advance(world, held, said, tensors[-1])
            return (*_parts(following), *_parts(prediction))

        out = self._run("step", step, (*_parts(state), *_parts(given), key))
        told = len(fields(Prediction))
        known = WorldState if len(out) - told == len(fields(WorldState)) else FannedState
        return known(*out[:-told]), Prediction(*out[-told:])

    def decode_latents(self, latent: Tensor, previous: Tensor, filled: Tensor) -> Tensor:
        """See `DiffusionWorld.decode_latents`."""
        return self._run("decode", DiffusionWorld.decode_latents, (latent, previous, filled))

    def _run(self, name: str, fn: Program, given: tuple[Tensor, ...]) -> Any:
        """`fn(world, *given)`, by the program for these shapes."""
        given = tuple(x.contiguous() for x in given)  # programs take strides for granted
        shapes = (name, *(x.shape for x in given))
        program = self._programs.get(shapes)
        if program is None:
            program = self._programs[shapes] = self._make(shapes, fn, given)
        return program(*given)

    @torch.no_grad()
    def _make(self, shapes: tuple[Any, ...], fn: Program, given: tuple[Tensor, ...]) -> Program:
        fn(self._narrow, *given)  # refuses what does not fit in our words, and fills tables
        network = self._network(shapes[0])
        for module in network.modules():
            if isinstance(module, Tables):
                module.settle()
        task = _Task(partial(fn, self._narrow), network)
        try:
            if self.device.type != "cpu":
                return _replayed(task, given)
            file = cache_folder() / f"{self._name(shapes, network)}.pt2"
            return _ahead_of_time(task, given, file, f"{shapes[0]}, {len(given[0])} rows")
        except ToolchainError as error:
            reason = str(error.__cause__).strip().partition("\n")[0] or repr(error.__cause__)
            warnings.warn(
                f"{shapes[0]}: not compiled, so it runs uncompiled, in float32: {reason}. "
                "A compiled world needs a C++ compiler on a CPU (g++), Triton on a GPU, and a "
                "folder for its programs that can be written ($WORLDSIM_CACHE)",
                RuntimeWarning,
                stacklevel=2,
            )
            return partial(fn, self)

    def _network(self, name: str) -> nn.Module:
        """What the program of that name runs: its weights, and what it judges with, are in it."""
        parts = {"step": (self._narrow.dynamics, self._narrow.trust), "decode": (self._narrow.vae,)}
        return nn.ModuleList(filter(None, parts[name]))

    def _name(self, shapes: tuple[Any, ...], network: nn.Module) -> str:
        """A hash of all that a program depends on: what runs, on which weights, sizes, machine."""
        settings = (RECIPE, shapes, self.dtype, to_json(self.config), torch.__version__)
        machine = (torch.get_num_threads(), sorted(torch.cpu.get_capabilities().items()))
        digest = sha256(repr((settings, machine, numerics(self.device))).encode())
        home = Path(__file__).parents[1]
        for package in ("nn", "models", "diffusion", "world"):
            for file in sorted((home / package).rglob("*.py")):
                digest.update(file.read_bytes())
        for name in ("core.py", "rows.py", "states.py", "actions.py"):
            digest.update((home / name).read_bytes())
        for tensor in network.state_dict().values():
            digest.update(tensor.float().cpu().numpy().tobytes())
        return f"{shapes[0]}-{digest.hexdigest()[:32]}"


class _Task(nn.Module):
    """What is compiled: a function, and the network it runs, whose weights can be frozen."""

    def __init__(self, fn: Program, network: nn.Module) -> None:
        super().__init__()
        self.fn, self.network = fn, network

    def forward(self, *tensors: Tensor) -> Any:
        return self.fn(*tensors)


def _narrowed(world: DiffusionWorld, dtype: torch.dtype) -> DiffusionWorld:
    """The same world with what a step multiplies in `dtype`; heads, statistics, trust stay."""
    vae, dynamics = deepcopy(world.vae), deepcopy(world.dynamics)
    vae.decoder.to(dtype)
    dynamics.dit.to(dtype)
    dynamics.conditioning.to(dtype)
    more = world.starts, world.card, world.trust, world.latent_actions
    return DiffusionWorld(world.config, vae, dynamics, *more)


class ToolchainError(Exception):
    """Compilers, their files or their libraries failed: its cause says how."""


TOOLCHAIN = (RuntimeError, OSError, ImportError, subprocess.SubprocessError)
"""What compiling and loading raise where a tool or the disk fails; tracing is outside of it."""


def _ahead_of_time(task: _Task, given: tuple[Tensor, ...], file: Path, title: str) -> Program:
    """The program in `file`; made, with a line of progress, where there is no whole one."""
    if _whole(file):
        with suppress(RuntimeError, OSError):  # of another build
            return torch._inductor.aoti_load_package(str(file))
    with tqdm(total=2, desc=f"compiling {title} (once)", unit="part") as line:
        graph = torch.export.export(task, given, strict=False)
        line.update()
        try:
            _package(graph, file)
            line.update()
            return torch._inductor.aoti_load_package(str(file))
        except TOOLCHAIN as error:
            raise ToolchainError from error


def _package(graph: Any, file: Path) -> None:
    """Compile into `file` with its SHA-256 beside it, each all or nothing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=file.parent) as folder:
        made = Path(folder) / "program.pt2"
        torch._inductor.aoti_compile_and_package(
            graph, package_path=str(made), inductor_configs={"freezing": True}
        )
        digest = _digest(made)
        with atomic_path(file) as part:
            os.replace(made, part)
    write_text(_seal(file), digest)


def _whole(file: Path) -> bool:
    """Whether the program is the one that was made; a damaged one may compute something else."""
    try:
        return read_bytes(_seal(file), 64).decode() == _digest(file)
    except (OSError, ValueError):
        return False


def _seal(file: Path) -> Path:
    return file.with_suffix(".sha256")


def _digest(file: Path) -> str:
    digest = sha256()
    with open_plain(file) as opened:
        while piece := opened.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def _replayed(task: _Task, given: tuple[Tensor, ...]) -> Program:
    """Captured as a CUDA graph when first called; a replay writes where the last one wrote."""
    options: dict[str, Any] = {"triton.cudagraphs": True, "freezing": True}
    run = torch.compile(task, dynamic=False, options=options)

    def program(*given: Tensor) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        out = run(*given)
        return out.clone() if isinstance(out, Tensor) else tuple(x.clone() for x in out)

    try:
        program(*given)  # compiles; `given` went through the networks already
    except TOOLCHAIN as error:
        raise ToolchainError from error
    return program


def _parts(rows: WorldState | Conditions | Prediction) -> tuple[Tensor, ...]:
    return tuple(getattr(rows, field.name) for field in fields(rows))
