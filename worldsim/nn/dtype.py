"""How narrow a device may multiply: bfloat16 where that is its fast type, else float32.

A processor that knows bfloat16 is not always fast at it. On an AMD EPYC (Zen 5) AVX-512's dot
products are; on an Intel Xeon, whose units for it are the AMX tiles, they have half the speed of
float32 where a virtual machine hides the tiles (83 against 150 GFLOP/s a core).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Narrow = Literal["float32", "bfloat16"]


def fast_dtype(device: torch.device) -> Narrow:
    """The narrowest type that `device` multiplies at full speed."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    able = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    intel = str(able.get("cpu_name", "")).startswith("Intel")
    fast = able.get("amx_bf16") or (able.get("avx512_bf16") and not intel)
    return "bfloat16" if fast else "float32"


def narrow(device: torch.device, *, on: bool = True) -> torch.autocast:
    """A region where networks multiply in `fast_dtype`; `on=False` leaves all in float32."""
    enabled = on and fast_dtype(device) == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


@contextmanager
def default_float32() -> Iterator[None]:
    """A region where new tensors are float32, whatever the process's default is."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def numerics(device: torch.device) -> str:
    """Settings of this process that decide how sums are rounded, as a line to compare."""
    kind = device.type
    autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else "off"
    parts = {
        "default dtype": torch.get_default_dtype(),
        "autocast": autocast,
        "matmul precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "mkldnn": torch.backends.mkldnn.enabled,  # type: ignore[attr-defined]
    }
    if kind == "cuda":
        cudnn = torch.backends.cudnn
        parts |= {"cudnn": cudnn.enabled, "cudnn deterministic": cudnn.deterministic,
                  "cudnn benchmark": cudnn.benchmark, "cudnn tf32": cudnn.allow_tf32}  # fmt: skip
    return ", ".join(f"{name} {value}" for name, value in parts.items()).replace("torch.", "")
