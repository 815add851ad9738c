"""The parts of `benchmarks.gpu`; each prints its figures as a line of JSON, or what it lacks."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from worldsim.flags import refuse_repeated

from .parts import lacking, tell

NEEDED = ("gymnasium", "tensordict", "einops", "safetensors", "av")
FRAME = (64, 64)
GOALS = {  # of an H200, docs/explanation/speed.md
    "B1_p50_ms": ("<=", 0.35), "B1_p99_ms": ("<=", 0.5), "B1024_steps_s": (">=", 250_000),
    "B32_over_B1": ("<=", 1.15), "state_MiB": ("<=", 0.5),
}  # fmt: skip


def check(device: str) -> torch.device:
    """The device; ends the part where it or a package is missing."""
    absent = [name for name in NEEDED if find_spec(name) is None]
    if absent:
        lacking(f"packages {', '.join(absent)}: pip install -e .")
    if device == "cuda" and not torch.cuda.is_available():
        lacking("a CUDA device")
    return torch.device(device)


def judged(figures: dict[str, Any], device: str) -> dict[str, Any]:
    """The figures with the goals that they reach or miss; goals are for a GPU."""
    if device != "cuda":
        return figures
    for name, (sign, goal) in GOALS.items():
        if name in figures:
            met = figures[name] <= goal if sign == "<=" else figures[name] >= goal
            figures[f"{name}_goal"] = f"{sign} {goal:g}: {'met' if met else 'missed'}"
    return figures


# --- tests ---


def tests(device: str, name: str, quick: bool) -> dict[str, Any]:
    """The tests of tests/gpu, on the device."""
    check(device)
    if find_spec("pytest") is None or not Path("tests/gpu").is_dir():
        lacking("pytest and a checkout: pip install -e '.[dev]'")
    command = [sys.executable, "-m", "pytest", "-q", "tests/gpu", "-p", "no:cacheprovider"]
    env = os.environ | {"WORLDSIM_TEST_DEVICE": device}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    lines = done.stdout.splitlines() or [done.stderr[-200:]]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"passed": done.returncode == 0, "result": lines[-1], "failed": failed}


# --- speed ---


def timed(step: Callable[[], Any], device: torch.device, budget: float) -> list[float]:
    """Seconds of single steps, each waited for, for about `budget` seconds and 20 of them."""
    found: list[float] = []
    begun = time.perf_counter()
    while len(found) < 20 or time.perf_counter() - begun < budget:
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
        if len(found) >= 20 and time.perf_counter() - begun > budget:
            break
    return found


def speed(device: str, name: str, quick: bool) -> dict[str, Any]:
    """Steps of car-racing on frames of 64 x 64, pixels out, one pass; eager or compiled."""
    from worldsim.core import row_keys
    from worldsim.store.folder import load
    from worldsim.world.compiled import compiled

    from .speed_parts import sized

    place = check(device)
    world = sized(load("pendulum" if quick else "car-racing", place), 32 if quick else FRAME[0])
    world = world.with_num_steps(1)
    world = compiled(world) if name == "compiled" else world
    figures: dict[str, Any] = {"passes": 1, "side": world.spec.frame_shape[0]}
    times: dict[int, list[float]] = {}
    for batch in (1, 8) if quick else (1, 32, 256, 1024):
        state = world.reset(row_keys(range(batch)).to(place))
        action = world.spec.action.blank(batch, device=place)

        def step(state: Any = state, action: Any = action) -> None:
            world.decode(world.step(state, action)[0])

        for _ in range(3):
            step()
        times[batch] = timed(step, place, 1.0 if quick else 8.0)
        figures[f"B{batch}_p50_ms"] = 1e3 * median(times[batch])
        figures[f"B{batch}_p99_ms"] = 1e3 * quantiles(times[batch], n=100)[98]
        figures[f"B{batch}_steps_s"] = batch / median(times[batch])
    if 32 in times:
        figures["B32_over_B1"] = median(times[32]) / median(times[1])
    return judged(figures, device)


def memory(device: str, name: str, quick: bool) -> dict[str, Any]:
    """Bytes of a row's state, and whether many steps take memory."""
    from worldsim.core import row_keys
    from worldsim.store.folder import load

    place, batch = check(device), 8 if quick else 256
    world = load("pendulum" if quick else "car-racing", place)
    state = world.reset(row_keys(range(batch)).to(place))
    action = world.spec.action.blank(batch, device=place)
    each = sum(x.nbytes for x in vars(state).values()) / batch
    used = []
    for count in (20, 20) if quick else (100, 1000):
        for _ in range(count):
            state, _ = world.step(state, action)
        used.append(torch.cuda.memory_allocated() if place.type == "cuda" else 0)
    figures = {"state_MiB": each / 2**20, "grown_bytes": used[1] - used[0]}
    return judged(figures, device)


# --- training ---


def train(device: str, name: str, quick: bool) -> dict[str, Any]:
    """Steps of the teacher's training by the real loop, and their share of the device's peak."""
    from worldsim.core import ActionSpec
    from worldsim.costs.flops import Networks, denoising
    from worldsim.models.conditioning import ConditioningConfig
    from worldsim.models.dynamics import Dynamics
    from worldsim.presets import SIZES
    from worldsim.train.dynamics import DynamicsTrainingConfig, train_dynamics
    from worldsim.train.loop import FitConfig

    place, sizes = check(device), SIZES[name]()
    action = ActionSpec(kind="continuous", low=(-1.0,) * 3, high=(1.0,) * 3)
    targets, batch, steps = (2, 2, 4) if quick else (10, 32, 30)
    networks = Networks(sizes, FRAME, action)
    with torch.device(place):
        channels, said = sizes.vae.channels, ConditioningConfig(action=action)
        model = Dynamics(sizes.dit, sizes.heads, channels, said)
    fit = FitConfig(steps=steps, batch=batch, bf16=place.type == "cuda")
    training = DynamicsTrainingConfig(fit=fit, targets=targets, compile=place.type == "cuda")
    ends: list[float] = []

    def watch(run: Any, found: dict[str, float]) -> None:
        if place.type == "cuda":
            torch.cuda.synchronize()
        ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        data = recording(channels, action)
        train_dynamics(data, model, sizes.context, training, Path(folder), watch)
    late = ends[steps // 3 :]  # the first ones compile
    seconds = median(b - a for a, b in zip(late[:-1], late[1:], strict=True))
    flops, peak = batch * denoising(networks, targets), measured_peak(place)
    figures = {"parameters": sum(p.numel() for p in model.parameters()), "batch": batch,
               "step_ms": 1e3 * seconds, "TFLOP_step": flops / 1e12,
               "MFU_of_measured_peak": flops / seconds / peak,
               "measured_peak_TFLOPs": peak / 1e12}  # fmt: skip
    return figures | stated(place, flops / seconds)


def stated(place: torch.device, rate: float) -> dict[str, float]:
    """The share of the peak that the device's maker states, where it is known."""
    from worldsim.costs.devices import DEVICES

    if place.type != "cuda":
        return {}
    called = torch.cuda.get_device_name(place).lower().replace(" ", "")
    known = next((d for name, d in DEVICES.items() if name in called), None)
    return {} if known is None else {"MFU": rate / known.peak}


def recording(channels: int, action: Any) -> Any:
    """Latents of noise: what a step costs does not depend on them."""
    from worldsim.data.latents import LatentRecording
    from worldsim.data.windows import Windows

    count, size = 64, (FRAME[0] // 8, FRAME[1] // 8)
    latents = torch.randn(count, *size, channels).half()
    actions = torch.rand(count, *action.shape) * 2 - 1
    known = torch.ones(count, dtype=torch.bool)
    return LatentRecording(
        latents, actions, torch.zeros(count), torch.ones(count), Windows((count,)),
        rewards_known=known, continue_known=known,
    )  # fmt: skip


def measured_peak(place: torch.device) -> float:
    """FLOP/s of a matrix product: bfloat16 on a GPU, float32 on a CPU."""
    side, dtype = (8192, torch.bfloat16) if place.type == "cuda" else (512, torch.float32)
    a = torch.randn(side, side, device=place, dtype=dtype)
    for _ in range(3):
        torch.mm(a, a)
    return 2 * side**3 / median(timed(lambda: torch.mm(a, a), place, 0.5))


# --- two processes ---


def two(device: str, name: str, quick: bool) -> dict[str, Any]:
    """Two processes, NCCL on two GPUs and gloo on a CPU: bandwidth, and one FSDP2 step."""
    check(device)
    if device == "cuda" and torch.cuda.device_count() < 2:
        lacking("a second CUDA device")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
               "-m", __spec__.name if __spec__ else "benchmarks.gpu_rows", "rank",
               "--device", device, *(["--quick"] if quick else [])]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-1500:])
    return json.loads(done.stdout.splitlines()[-1])


def rank(device: str, name: str, quick: bool) -> dict[str, Any]:
    """One of the two: sums a buffer over both, and trains a sharded DiT for some steps."""
    from torch import distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    place = torch.device(f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else "cpu")
    if device == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    numbers = torch.ones(2**18 if quick else 2**28, device=place)
    seconds = median(timed(lambda: dist.all_reduce(numbers), place, 0.5))
    mesh = init_device_mesh(device, (2,))
    torch.manual_seed(0)
    width = 64 if quick else 4096
    model = torch.nn.Sequential(*(torch.nn.Linear(width, width) for _ in range(4))).to(place)
    for block in model:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    for _ in range(3):
        loss = model(torch.ones(8, width, device=place)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    figures = {"all_reduce_GB_s": numbers.nbytes / seconds / 1e9, "falls": losses[-1] < losses[0]}
    first = dist.get_rank() == 0
    dist.destroy_process_group()
    if not first:
        sys.exit(0)
    return figures


PARTS = {"tests": tests, "speed": speed, "memory": memory, "train": train, "two": two, "rank": rank}


def main() -> None:
    """Run a part by name."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--name", default="")
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args(refuse_repeated(sys.argv[1:]))
    tell(PARTS[asked.part](asked.device, asked.name, asked.quick))


if __name__ == "__main__":
    main()
