"""Label a recording with actions that are inferred from its video."""

from __future__ import annotations

from pathlib import Path

import tyro

from worldsim.core import WorldError
from worldsim.data.open import open_dataset
from worldsim.latent_actions.labelling import label as infer
from worldsim.latent_actions.labelling import opened_model
from worldsim.latent_actions.training import train_latent_actions
from worldsim.store.folder import load
from worldsim.store.latent_actions import save_labels

from .flags import use_threads


def label(
    data: tyro.conf.Positional[str],
    out: Path,
    model: Path | None = None,
    world: str | None = None,
    save_model: Path | None = None,
    labels: str | None = None,
    codes: bool = False,
    dim: int = 6,
    moves: bool = False,
    steps: int | None = None,
    size: tuple[int, int] | None = None,
    chunk: int | None = None,
    fps: float | None = None,
    camera: str | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> None:
    """Infer what led into every chunk of recorded video, with a confidence each.

    By a model that there is already, or by one that is trained on this recording first.

    Args:
        data: a folder of ours or of video files, or what `worldsim.open` takes.
        out: the file of labels to write.
        model: a model that `--save-model` wrote.
        world: a world that infers actions, whose model labels.
        save_model: where to keep the model that is trained here.
        labels: few labels for its training: a table (episode, chunk, action), or a share of the
            recorded actions such as 0.025.
        codes: train a model of eight codes.
        dim: numbers of a latent action of a model that is trained here.
        moves: its latent actions move the picture, for cameras that go along with the player.
        steps: of its training; 4000 by default, 1500 with --moves.
        size: (height, width) that frames of films, Minari or LeRobot are resized to.
        chunk: frames a chunk, for films.
        fps: frames a second that films are resampled to.
        camera: which camera of several, or "tile".
        seed: names every random choice.
        threads: CPU threads; all by default.
    """
    use_threads(threads)
    if model is not None and world is not None:
        raise WorldError("world: expected none beside a model; give one of them")
    if out.exists():
        raise WorldError(f"out: expected a new file, got {out}, which exists; choose another")
    opened = open_dataset(data, size=size, chunk=chunk, fps=fps, camera=camera)
    if model is None and world is None:
        used = train_latent_actions(
            opened, _labels(labels), out=save_model, codes=codes, dim=dim, moves=moves, steps=steps,
            seed=seed,
        )  # fmt: skip
    else:
        used = opened_model(model if model is not None else load(str(world)))
    found = infer(opened, used)
    save_labels(found, out)
    sure = [float(x) for part in found.confidence.values() for x in part if x > 0]
    mean = sum(sure) / len(sure) if sure else 0.0
    told = f"{len(sure)} of {sum(opened.lengths)} chunks, mean confidence {mean:.2f}"
    print(f"labelled {told}: {out}")


def _labels(given: str | None) -> float | str | None:
    """A share where it is a number, else a path."""
    try:
        return None if given is None else float(given)
    except ValueError:
        return given
