"""Devices as plain numbers: how long work takes, and how many of them serve a crowd.

The time of a piece of work is that of its slower half (the roofline of Williams et al. 2009): its
arithmetic at a stated share of the peak, or its memory traffic at full bandwidth.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isfinite

from worldsim.core import WorldError


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device as its maker states it.

    Attributes:
        peak: dense bf16 FLOP/s; a multiply-add is two. Makers also print figures for sparse
            matrices, which are twice as high and not meant here.
        bandwidth: bytes/s to and from its memory.
        memory: bytes.
    """

    peak: float
    bandwidth: float
    memory: float

    def seconds(self, flops: float, traffic: float = 0.0, *, utilisation: float = 1.0) -> float:
        """Time for `flops` at `utilisation` of the peak and `traffic` bytes of memory traffic."""
        if not 0 < utilisation <= 1:
            raise WorldError(
                f"utilisation: expected a share of the peak above 0 and up to 1, got {utilisation}"
            )
        return max(flops / (self.peak * utilisation), traffic / self.bandwidth)


DEVICES = {
    "a100": Device(peak=312e12, bandwidth=2.039e12, memory=80e9),
    "h100": Device(peak=989.4e12, bandwidth=3.35e12, memory=80e9),
    "h200": Device(peak=989.4e12, bandwidth=4.8e12, memory=141e9),
    "b200": Device(peak=2250e12, bandwidth=8e12, memory=180e9),
    "rtx4090": Device(peak=165.2e12, bandwidth=1.008e12, memory=24e9),
    "zen5-core": Device(peak=520e9, bandwidth=39e9, memory=12 * 2**30),
}
"""By the names the command line knows. Sources:

a100: SXM 80 GB, NVIDIA A100 datasheet (bf16, dense).
h100: SXM5, NVIDIA H100 Tensor Core GPU Architecture, table 2 (989.4 TFLOP/s bf16, dense).
h200: SXM, NVIDIA H200 datasheet; it prints 1,979 TFLOP/s with sparsity, the H100's silicon.
b200: NVIDIA DGX B200 datasheet, an eighth of the machine: 72 PFLOP/s fp8 with sparsity is 18
    dense in bf16, 64 TB/s, 1,440 GB.
rtx4090: NVIDIA Ada GPU architecture, appendix A (bf16 with fp32 accumulation, dense).
zen5-core: measured on the machine of docs/journal/log.md, which has two and 24 GiB: torch's bf16
    matrix products reach 1,040 GFLOP/s on both, and one copies 256 MiB at 39 GB/s, read and
    written.
"""


def device_named(name: str) -> Device:
    """The device of this name; raises WorldError for one that nobody wrote down."""
    if name not in DEVICES:
        raise WorldError(
            f"device: expected one of {', '.join(DEVICES)}, got {name!r}; "
            "worldsim.costs.devices.Device takes any other's peak, bandwidth and memory"
        )
    return DEVICES[name]


def crossover(training: float, use: float) -> float:
    """Uses after which using has cost more than training; both in FLOPs."""
    if use <= 0:
        raise WorldError(f"use: expected more than 0 FLOPs, got {use}")
    return training / use


def devices_needed(rate: float, seconds: float, *, peak_factor: float = 1.0) -> float:
    """Devices busy when `rate` uses a second, of `seconds` device time each, come in on average.

    peak_factor: how far demand rises above its average. The answer is a fraction: round it up last.
    """
    for name, value in (("rate", rate), ("seconds", seconds)):
        if not (isfinite(value) and value >= 0):
            raise WorldError(f"{name}: expected a finite number from 0 up, got {value}")
    if not peak_factor >= 1:
        raise WorldError(
            f"peak_factor: expected 1 (even demand) or more, got {peak_factor}; "
            "it is the busiest moment over the average"
        )
    return rate * seconds * peak_factor


def devices_to_hold(count: int, each: float, shared: float, device: Device) -> int:
    """Devices whose memory holds `count` states of `each` bytes, `shared` bytes on every one."""
    room = device.memory - shared
    if each > room:
        raise WorldError(
            f"memory: expected at least {(shared + each) / 1e9:.3g} GB for the networks and one "
            f"state, got {device.memory / 1e9:.3g} GB; take a larger device or a smaller preset"
        )
    return ceil(count / (room // each))
