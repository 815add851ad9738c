"""Train a world."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import tyro

from worldsim.core import WorldError
from worldsim.data.open import open_dataset
from worldsim.data.sized import Windows
from worldsim.data.view import WithoutActions, WithoutStates
from worldsim.pipeline import train as train_world
from worldsim.recipes.registry import TRAININGS

from .flags import SizeName, use_threads

RunFolder = Annotated[Path | None, tyro.conf.arg(aliases=["--run-folder"])]
"""torchrun's argparse takes `--run`, wherever it stands, for its own `--run-path` in short."""

SeveralSizes = tyro.conf.UseAppendAction[tuple[tuple[int, int], ...]]


def train(
    data: tyro.conf.Positional[str],
    out: Path,
    size: tuple[int, int] | None = None,
    sizes: SeveralSizes = (),
    windows: Windows = "centred",
    lengths: tuple[int, ...] = (),
    chunk: int | None = None,
    fps: float | None = None,
    camera: str | None = None,
    hours: float | None = None,
    steps: int | None = None,
    preset: SizeName | None = None,
    dim: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    kv_heads: int | None = None,
    time_every: int | None = None,
    patch: tuple[int, int] | None = None,
    mlp: int | None = None,
    context: int | None = None,
    channels: int | None = None,
    widths: tuple[int, int] | None = None,
    blocks: tuple[int, int] | None = None,
    begin: str | None = None,
    recipe: str | None = None,
    state: bool = True,
    latent_actions: bool = False,
    latent_model: Path | None = None,
    ignore_actions: bool = False,
    run: RunFolder = None,
    device: str | None = None,
    bf16: bool = True,
    batch: int | None = None,
    strategy: Literal["auto", "ddp", "fsdp2"] = "auto",
    activation_checkpointing: bool = False,
    compile: bool | None = None,
    seed: int = 0,
    num_steps: int = 2,
    time_limit: int | None = None,
    card: bool = True,
    tensorboard: bool = False,
    wandb: bool = False,
    threads: int | None = None,
    overwrite: bool = False,
) -> None:
    """Train a world on recorded video: VAE, teacher, student, trust and card. Goes on if killed.

    Args:
        data: a folder of ours or of video files, or what `worldsim.open` takes (minari:, lerobot:).
        out: the world folder to write; its name is the world's.
        size: (height, width) that frames of films, Minari or LeRobot are resized to.
        sizes: (height, width) to train on, given once for each: frames are cropped to its shape and
            reduced. The world is stepped at the first.
        windows: of `sizes`, in training: the largest in the middle, or half of them drawn, nearer
            and moved, for sizes that the world is not trained on.
        lengths: chunks of shorter clips, so that short films and single pictures count, too.
        chunk: frames a step of the world, for films.
        fps: frames a second that films are resampled to.
        camera: which camera of several, or "tile".
        hours: budget of time, split over all stages.
        steps: budget of optimiser steps instead; with neither, the recipe's own.
        preset: sizes of the networks; by default tiny for up to an hour of CPU, else small.
        dim: width of the DiT.
        depth: its blocks.
        heads: its attention heads.
        kv_heads: heads of keys and values over time.
        time_every: attention over time in every so many-th block.
        patch: (height, width) of its patches.
        mlp: hidden width over dim.
        context: chunks that the next one is predicted from.
        channels: of a latent.
        widths: the VAE's channels at 1/4 and 1/8 of the side.
        blocks: its residual blocks there.
        begin: a world, bundled or a folder, whose networks go on here; no teacher is trained then.
        recipe: losses, rates and numbers of steps of a recording of ours: car-racing-state or
            scenery.
        state: whether the world knows the state vector, where the recording has one.
        latent_actions: tell the world actions that are inferred from the video, too; a recording
            without actions gives a world that is stepped by eight codes.
        latent_model: a model that infers them, from `worldsim label --save-model`.
        ignore_actions: take the recording as video without actions.
        run: folder of checkpoints and logs; runs/NAME by default. Under torchrun on Python 3.11 say
            --run-folder: torchrun takes --run for its own.
        device: cpu, cuda, cuda:N or mps; the accelerator by default if there is one.
        bf16: multiply in bfloat16 where that is fast.
        batch: clips a step, of all processes together; by default the recipe's.
        strategy: under torchrun, how processes hold a network: ddp whole, fsdp2 in shards.
        activation_checkpointing: compute activations again instead of keeping them: less memory.
        compile: fuse the networks; by default where the run is long enough for it to pay.
        seed: names every random choice.
        num_steps: denoising steps in which the world draws a chunk.
        time_limit: steps after which an episode is truncated; by default the data's.
        card: measure fidelity and trust at the end.
        tensorboard: write event files for TensorBoard into the run folder.
        wandb: log to Weights & Biases.
        threads: CPU threads; all by default.
        overwrite: replace a world that is there.
    """
    use_threads(threads)
    changed = {
        "dim": dim, "depth": depth, "heads": heads, "kv_heads": kv_heads, "patch": patch,
        "time_every": time_every, "mlp": mlp, "context": context, "channels": channels,
        "widths": widths, "blocks": blocks,
    }  # fmt: skip
    opened = open_dataset(data, size=size, chunk=chunk, fps=fps, camera=camera)
    opened = WithoutActions(opened) if ignore_actions else opened
    changed = {name: value for name, value in changed.items() if value is not None}
    if recipe is not None and recipe not in TRAININGS:
        raise WorldError(f"recipe: expected one of {list(TRAININGS)}, got {recipe!r}; or none")
    train_world(
        opened if state else WithoutStates(opened), out=out, begin=begin,
        recipe=None if recipe is None else TRAININGS[recipe](), preset=preset, hours=hours,
        steps=steps, run=run, device=device, seed=seed, bf16=bf16, batch=batch, strategy=strategy,
        activation_checkpointing=activation_checkpointing, compile=compile, changed=changed,
        num_steps=num_steps, sizes=sizes or None, windows=windows,
        lengths=lengths,
        conditions=("latent_action",) if latent_actions or latent_model else (),
        latent_actions=latent_model, time_limit=time_limit, card=card,
        tensorboard=tensorboard, wandb=wandb, overwrite=overwrite,
    )  # fmt: skip
    if os.environ.get("RANK", "0") == "0":
        print(f"saved {out}; step through it: worldsim play {out}")
