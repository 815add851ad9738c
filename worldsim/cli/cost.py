"""What a world costs."""

from __future__ import annotations

import tyro

from worldsim.core import ActionSpec
from worldsim.costs.cluster import cluster_named
from worldsim.costs.cluster_report import Load, cluster_table
from worldsim.costs.devices import device_named
from worldsim.costs.flops import Networks
from worldsim.costs.report import Use
from worldsim.costs.report import table as account_table
from worldsim.presets import SIZES
from worldsim.train.recipe import Recipe

from .flags import SizeName


def cost(
    preset: SizeName = "small",
    device: str = "h200",
    frame: tuple[int, int] = (56, 64),
    actions: int = 3,
    use: tyro.conf.OmitArgPrefixes[Use] = Use(),  # noqa: B008
    recipe: Recipe = Recipe(),  # noqa: B008
    gpus: int | None = None,
    node: int | None = None,
    inside: float | None = None,
    outside: float | None = None,
    load: Load = Load(),  # noqa: B008
) -> None:
    """Print what training, stepping and serving a world cost: FLOPs, device time, devices.

    With --gpus: what training on so many costs, with DDP and with FSDP2.

    Args:
        preset: the networks' size.
        device: a100, h100, h200, b200, rtx4090 or zen5-core.
        frame: (height, width) in pixels, divisible by 8.
        actions: entries of a continuous action; 0 for a choice, which is looked up.
        use: how the world is used.
        recipe: how it is trained; the bundled world's, whatever the preset.
        gpus: how many train together; the account is then of that.
        node: GPUs of a machine, by default 8.
        inside: GB/s from a GPU to others of its machine, by default the device's usual link.
        outside: GB/s from a GPU to other machines.
        load: what they train on.
    """
    spec = ActionSpec(kind="discrete", n=2)  # of how many costs nothing
    if actions:
        spec = ActionSpec(kind="continuous", low=(-1.0,) * actions, high=(1.0,) * actions)
    networks = Networks(SIZES[preset](), frame, spec)
    if gpus is not None:
        cluster = cluster_named(device, gpus, node, inside, outside)
        print(cluster_table(networks, recipe, cluster, load))
        return
    print(account_table(networks, recipe, use, device_named(device)))
