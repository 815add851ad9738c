"""The simulated table of docs/explanation/scaling-out.md: 1 to 4,096 GPUs, computed, not measured.

python -m benchmarks.scale_out_page
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import tyro

from worldsim.core import ActionSpec
from worldsim.costs.cluster import cluster_named
from worldsim.costs.cluster_report import Load, account
from worldsim.costs.flops import Networks, stages
from worldsim.flags import refuse_repeated
from worldsim.presets import SIZES
from worldsim.train.recipe import Recipe

PUSH = ActionSpec(kind="continuous", low=(-1.0,) * 3, high=(1.0,) * 3)
HEAD = (
    "preset|GPUs|clips a step|DDP sends|FSDP2 sends|DDP holds|FSDP2 holds|"
    "DDP step|FSDP2 step|DDP MFU|FSDP2 MFU"
)


def rows(preset: str, frame: tuple[int, int], load: Load, gpus: tuple[int, ...]) -> Iterator[str]:
    """Lines of the table for the second run of a teacher, on H100s."""
    networks, recipe = Networks(SIZES[preset](), frame, PUSH), Recipe()
    teacher = stages(networks, recipe)[2]
    for count in gpus:
        cluster = cluster_named("h100", count)
        ddp, fsdp2 = (
            account(networks, teacher, recipe.teacher.targets, cluster, load, strategy)
            for strategy in ("ddp", "fsdp2")
        )
        if count == 1:
            fsdp2 = ddp
        yield "|".join([
            preset, f"{count:,}", f"{ddp.batch:,}",
            *(f"{x.sent.bytes / 1e9:.2f} GB" for x in (ddp, fsdp2)),
            *(f"{x.memory.total / 1e9:.1f} GB" for x in (ddp, fsdp2)),
            *(f"{1e3 * x.time.step:.0f} ms" for x in (ddp, fsdp2)),
            *(f"{x.mfu:.0%}" for x in (ddp, fsdp2)),
        ])  # fmt: skip


def main(
    presets: tuple[str, ...] = ("base", "xl"), frame: tuple[int, int] = (56, 64),
    clips: int = 64, gpus: tuple[int, ...] = (1, 8, 64, 512, 4096),
) -> None:  # fmt: skip
    """Print the table.

    Args:
        presets: sizes of the networks.
        frame: (height, width) in pixels.
        clips: a GPU and step.
        gpus: how many.
    """
    load = Load(clips=clips, checkpointed=True)
    print(f"|{HEAD}|\n|{'---|' * (HEAD.count('|') + 1)}")
    for preset in presets:
        for row in rows(preset, frame, load, gpus):
            print(f"|{row}|")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, args=refuse_repeated(sys.argv[1:]))
