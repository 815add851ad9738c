"""The account of a world: what training, a step and a crowd of agents cost, as a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from worldsim.core import WorldError
from worldsim.train.recipe import Recipe

from .devices import Device, crossover, devices_needed, devices_to_hold
from .flops import Networks, stages

Row = tuple[str, str, str, str]


@dataclass(frozen=True, kw_only=True)
class Use:
    """How a world is used, and how well a device is.

    Attributes:
        steps: env steps in all.
        passes: denoising passes a step.
        pixels: whether every step is decoded.
        batch: envs stepped together.
        agents: that act at the same time,
        rate: each so many times a second,
        peak_factor: and so many times more often when most is asked.
        utilisation: share of the device's peak that is reached; 0.4 is what large trainings report
            (PaLM 46%, Llama 3 38 to 43%), small networks run one by one reach far less.
    """

    steps: float = 1e6
    passes: int = 1
    pixels: bool = True
    batch: int = 64
    agents: int = 1000
    rate: float = 25.0
    peak_factor: float = 2.0
    utilisation: float = 0.4

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "agents", "rate"):
            if not getattr(self, name) > 0:
                raise WorldError(f"{name}: expected more than 0, got {getattr(self, name)}")


def step_seconds(networks: Networks, use: Use, device: Device) -> float:
    """Least device time of one env step, stepped in batches."""
    flops = sum(networks.step(use.passes, pixels=use.pixels).values())
    traffic = networks.traffic(use.batch, use.passes, pixels=use.pixels)
    time = device.seconds(use.batch * flops, traffic, utilisation=use.utilisation)
    return time / use.batch


def serving(networks: Networks, use: Use, device: Device) -> int:
    """Devices that serve all agents at the busiest moment: in time, and each in its memory."""
    seconds = step_seconds(networks, use, device)
    busy = devices_needed(use.agents * use.rate, seconds, peak_factor=use.peak_factor)
    weights = networks.weight_bytes(pixels=use.pixels)
    return max(ceil(busy), devices_to_hold(use.agents, networks.state_bytes, weights, device))


def table(networks: Networks, recipe: Recipe, use: Use, device: Device) -> str:
    """The account as plain text, a line each: what, FLOPs, least device time, remark."""
    step = sum(networks.step(use.passes, pixels=use.pixels).values())
    total = sum(stage.flops for stage in stages(networks, recipe))
    traffic = networks.traffic(use.batch, use.passes, pixels=use.pixels)
    wanted = f"{use.agents:,} agents at {use.rate:g} steps/s, {use.peak_factor:g} x at the peak"
    rows = [
        ("", "FLOPs", "device time", ""),
        *_training(networks, recipe, use, device),
        *_stepping(networks, use, device),
        ("crossover", "", "", f"after {crossover(total, step):,.0f} env steps"),
        ("devices to serve", "", "", f"{serving(networks, use, device):,} for {wanted}"),
        ("memory of an env", "", "", f"{networks.state_bytes:,} bytes, "
         f"{networks.kv_bytes:,} of them keys and values"),
        ("memory traffic", "", "", f"{traffic:,} bytes for a step of {use.batch:,} envs"),
    ]  # fmt: skip
    wide = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        f"{a:{wide[0]}}  {b:>{wide[1]}}  {c:>{wide[2]}}  {d}".rstrip() for a, b, c, d in rows
    )


def _training(networks: Networks, recipe: Recipe, use: Use, device: Device) -> Iterator[Row]:
    def row(name: str, flops: float, remark: str = "") -> Row:
        return (
            name,
            f"{flops:.3g}",
            span(device.seconds(flops, utilisation=use.utilisation)),
            remark,
        )

    runs = stages(networks, recipe)
    for run in runs:
        yield row(f"training: {run.name}", run.flops, f"{run.steps} steps of {run.batch} clips")
    yield row("training", sum(run.flops for run in runs))


def _stepping(networks: Networks, use: Use, device: Device) -> Iterator[Row]:
    parts = networks.step(use.passes, pixels=use.pixels)
    flops, seconds = sum(parts.values()), step_seconds(networks, use, device)

    def row(name: str, count: float, remark: str = "") -> Row:
        return name, f"{count * flops:.3g}", span(count * seconds), remark

    for name, cost in parts.items():
        yield f"env step: {name}", f"{cost:.3g}", "", f"{cost / flops:.1%}"
    yield row("env step", 1, f"{networks.tokens} tokens a chunk, {1 / seconds:,.0f} steps/s")
    yield row("a million env steps", 1e6)
    yield row(f"{use.steps:.3g} env steps", use.steps)


def span(seconds: float) -> str:
    """Time in the unit that suits it."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"
