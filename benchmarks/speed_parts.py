"""What `benchmarks.rollout_speed` measures, one function a question."""

from __future__ import annotations

import gc
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from tqdm import tqdm

from worldsim.core import row_keys
from worldsim.costs.flops import Networks
from worldsim.envs import WorldSimEnv, WorldSimVectorEnv
from worldsim.presets import Sizes
from worldsim.world.compiled import compiled
from worldsim.world.diffusion import DiffusionWorld
from worldsim.world.point import PointWorld

VIEWS = {
    "view", "expand", "permute", "transpose", "t", "slice", "select", "unsqueeze", "squeeze",
    "_unsafe_view", "split", "split_with_sizes", "unbind", "detach", "alias", "as_strided",
}  # fmt: skip
SYNCS = {"_local_scalar_dense", "item", "nonzero", "equal"}


@dataclass(frozen=True)
class Contender:
    """Something that steps `batch` environments at every call of `step`."""

    name: str
    batch: int
    passes: int
    mode: str
    step: Callable[[], Any]
    pixels: bool = True
    side: int = 64
    flops: float | None = None
    kept: int | None = None

    @property
    def turn(self) -> int:
        """Steps in a row: about as long as the others'."""
        return 10 if self.name == "worldsim" and self.batch == 1 else 2


@dataclass(frozen=True)
class Ours:
    """A way to step a world of ours."""

    world: DiffusionWorld
    side: int
    batch: int
    passes: int
    fast: bool
    pixels: bool


def sized(world: DiffusionWorld, height: int) -> DiffusionWorld:
    """The same networks on frames of another height, padded with black."""
    spec = world.spec
    now, width, _ = spec.frame_shape
    if height == now:
        return world
    more = height - now
    frames = F.pad(world.starts.frames, (0, 0, 0, 0, more // 2, more - more // 2))
    shape = (height // 8, width // 8, spec.latent_shape[2])
    spec = replace(spec, frame_shape=(height, width, 3), latent_shape=shape)
    starts = replace(world.starts, frames=frames)
    config = replace(world.config, spec=spec)
    return DiffusionWorld(config, world.vae, world.dynamics, starts, world.card)


def networks(world: DiffusionWorld) -> Networks:
    """What the account of compute knows a world by."""
    c = world.config
    sizes = Sizes(vae=c.vae, dit=c.dit, heads=c.heads, context=c.spec.context)
    return Networks(sizes, c.spec.frame_shape[:2], c.spec.action)


def ours(how: Ours) -> Contender:
    """A contender that steps, and draws where pixels are asked for."""
    world = sized(how.world, how.side).with_num_steps(how.passes)
    account = networks(world)
    world = compiled(world) if how.fast else world
    device = world.device
    state = world.reset(row_keys(range(how.batch)).to(device))
    action = world.spec.action.blank(how.batch, device=device)

    def step() -> None:
        nonlocal state
        state, _ = world.step(state, action)
        if how.pixels:
            world.decode(state)
        if device.type == "cuda":
            torch.cuda.synchronize()

    step()
    mode = f"compiled {world.dtype}" if how.fast else "eager float32"  # type: ignore[attr-defined]
    flops = sum(account.step(how.passes, pixels=how.pixels).values())
    return Contender(
        "worldsim", how.batch, how.passes, mode, step, how.pixels, how.side,
        flops, account.state_bytes,
    )  # fmt: skip


def roofline(device: torch.device) -> dict[str, Callable[[], float]]:
    """How many FLOPs a second matrix products reach, and bytes a second copies: to be called."""
    cuda = device.type == "cuda"
    n, big = (8192, 2**30) if cuda else (1024, 2**26)
    peaks: dict[str, Callable[[], float]] = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        peaks[name] = lambda a=a, b=b: 2 * n**3 / seconds(lambda: a @ b, cuda)
    source = torch.zeros(big, dtype=torch.uint8, device=device)
    there = torch.empty_like(source)
    peaks["copy"] = lambda: 2 * big / seconds(lambda: there.copy_(source), cuda)
    return peaks


def seconds(work: Callable[[], Any], cuda: bool = False) -> float:
    """CPU time of `work` on this thread, or wall time on a device."""
    clock = time.perf_counter if cuda else time.process_time
    begun = clock()
    work()
    if cuda:
        torch.cuda.synchronize()
    return clock() - begun


def measure(rows: list[Contender], rounds: int, peaks: dict[str, Any]) -> list[dict[str, Any]]:
    """All contenders in turn, `rounds` times; the peaks between them."""
    cpu: list[list[float]] = [[] for _ in rows]
    wall: list[list[float]] = [[] for _ in rows]
    reached: dict[str, list[float]] = {name: [] for name in peaks}
    for turn in tqdm(range(rounds + 1), desc="rounds"):
        for name, work in peaks.items():
            reached[name].append(work())
        for i, row in enumerate(rows):
            for _ in range(row.turn):
                begun = time.perf_counter()
                spent = seconds(row.step)
                if turn:  # the first round warms up
                    cpu[i].append(spent)
                    wall[i].append(time.perf_counter() - begun)
    peaks.update({name: median(values[1:]) for name, values in reached.items()})
    return [_line(row, c, w, peaks) for row, c, w in zip(rows, cpu, wall, strict=True)]


def _line(row: Contender, cpu: list[float], wall: list[float], peaks: dict[str, Any]) -> Any:
    typical, dtype = median(cpu), "bfloat16" if "bfloat16" in row.mode else "float32"
    rate = row.batch / typical
    line: dict[str, Any] = {
        "name": row.name, "mode": row.mode, "batch": row.batch, "passes": row.passes,
        "pixels": row.pixels, "side": row.side, "steps": len(cpu),
        "cpu_ms_per_env_step": 1e3 / rate, "env_steps_per_cpu_second": rate,
        "wall_ms_p50": 1e3 * median(wall), "wall_ms_p99": 1e3 * float(np.quantile(wall, 0.99)),
        "cpu_ms_p50": 1e3 * typical, "cpu_ms_p99": 1e3 * float(np.quantile(cpu, 0.99)),
    }  # fmt: skip
    if row.flops:
        line |= {"flops_per_env_step": row.flops, "bytes_per_env": row.kept}
        line["share_of_gemm_peak"] = row.flops * rate / peaks[dtype]
    return line


class Launches(TorchDispatchMode):
    """Counts operators that do work, as an accelerator would launch them, and waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name not in VIEWS:
            self.count["syncs" if name in SYNCS else "launches"] += 1
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def traced(world: DiffusionWorld, passes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Operators of an uncompiled step and of its picture, and waits for the device among them."""
    found = []
    for count in passes:
        one = world.with_num_steps(count)
        state = one.reset(row_keys([0]).to(world.device))
        action = world.spec.action.blank(1, device=world.device)
        one.step(state, action)
        with Launches() as step:
            state, _ = one.step(state, action)
        with Launches() as picture:
            one.decode(state)
        total = step.count + picture.count
        found.append(
            {"passes": count, "step": step.count["launches"],
             "picture": picture.count["launches"], "syncs": total["syncs"]}
        )  # fmt: skip
    return found


def wrappers(steps: int = 400, rounds: int = 5) -> dict[str, float]:
    """Microseconds that each face adds to a world's own step, on a world in closed form.

    There the step costs little, so the difference of two medians is no difference of two noises.
    Both walk on: a step from one and the same state, over and over, finds its data at hand.
    """
    from worldsim.envs import WorldSimTorchRL

    world: Any = PointWorld()
    env, many = WorldSimEnv(world), WorldSimVectorEnv(8, world)
    td_env = WorldSimTorchRL(world, batch_size=[8], observation="frame", resets=False)
    env.reset(seed=0)
    many.reset(seed=0)
    td = td_env.reset()
    action, actions = env.action_space.sample(), many.action_space.sample()
    td["action"] = td_env.action_spec.zero()

    def single() -> None:
        if env.step(action)[2:4] != (False, False):
            env.reset()

    def rows() -> None:
        td.pop("next", None)  # as in a rollout; what lies there is merged into the step's result
        td_env.step(td)

    one = walker(world, torch.as_tensor(np.asarray(action))[None])
    eight = walker(world, torch.as_tensor(actions))
    pairs = {
        "gymnasium": (single, one),
        "vector": (lambda: many.step(actions), eight),
        "torchrl": (rows, eight),
    }
    spent: dict[str, list[list[float]]] = {name: [[], []] for name in pairs}
    for _ in range(rounds):
        for name, both in pairs.items():
            for work, times in zip(both, spent[name], strict=True):
                times.extend(seconds(work) for _ in range(steps // rounds))
    return {name: 1e6 * (median(a) - median(b)) for name, (a, b) in spent.items()}


def walker(world: Any, action: torch.Tensor) -> Callable[[], None]:
    """A step and its picture with no face around them, each from where the last one led."""
    walk = [world.reset(row_keys(range(len(action))))]

    @torch.no_grad()
    def step() -> None:
        walk[0], _ = world.step(walk[0], action)
        world.decode(walk[0])

    return step


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def horizon(world: DiffusionWorld, late: int, early: int = 100) -> dict[str, Any]:
    """A late step against an early one, and what the steps between have left in memory."""
    fast = compiled(sized(world, 64).with_num_steps(1))
    action = fast.spec.action.blank(1, device=fast.device)

    def walk(state: Any, steps: int) -> Any:
        for _ in range(steps):
            state, _ = fast.step(state, action)
        return state

    old = walk(fast.reset(row_keys([0]).to(fast.device)), early)
    held, size = sum(x.nbytes for x in vars(old).values()), resident()
    for _ in tqdm(range(20), desc=f"{late} steps"):
        old = walk(old, (late - early) // 20)
    gc.collect()
    grown = resident() - size
    young = walk(fast.reset(row_keys([0]).to(fast.device)), early)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(100):
        for state, kept in zip((young, old), times, strict=True):
            kept.append(seconds(lambda state=state: fast.step(state, action)))
    return {
        "early": early, "late": int(old.age[0]), "ratio": median(times[1]) / median(times[0]),
        "state_bytes_grown": sum(x.nbytes for x in vars(old).values()) - held,
        "resident_bytes_grown": grown,
    }  # fmt: skip


def fan_out(world: DiffusionWorld, candidates: int = 64, plan: int = 3) -> dict[str, Any]:
    """A planner's candidates from one state: sharing the past against copying it."""
    world = world.with_num_steps(1)
    state = world.reset(row_keys([0]).to(world.device))
    action = world.spec.action.blank(candidates, device=world.device)
    found: dict[str, Any] = {"candidates": candidates, "plan": plan}
    ways: dict[str, Callable[[], Any]] = {
        "copied": lambda: state.repeat(candidates),
        "shared": lambda: world.fan_out(state, candidates),
    }
    for name, begin in ways.items():
        times = []
        for _ in range(5):
            times.append([])
            now, spent = begin(), seconds(begin)
            kept = [sum(x.nbytes for k, x in vars(now).items() if k in ("cache", "prefix"))]
            for _ in range(plan):
                begun = time.process_time()
                now, _ = world.step(now, action)
                times[-1].append(1e3 * (time.process_time() - begun))
                kept.append(sum(x.nbytes for k, x in vars(now).items() if k in ("cache", "prefix")))
            times[-1][0] += 1e3 * spent
        found[name] = {"bytes": kept, "cpu_ms": [median(t) for t in zip(*times, strict=True)]}
    return found
