"""Caption a data set of which some episodes are captioned."""

from __future__ import annotations

import math
from pathlib import Path

import tyro

from worldsim.core import WorldError
from worldsim.data.open import open_dataset
from worldsim.train.captioner import CaptionerTraining, read_examples, recaption, told_in


def caption(
    data: tyro.conf.Positional[str],
    *,
    out: Path,
    examples: Path | None = None,
    wordings: int = 2,
    steps: int = 1200,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    chunk: int | None = None,
    fps: float | None = None,
) -> None:
    """Learn from some captions and label the rest; writes a copy of the data in our own format.

    Args:
        data: a folder of films, of episodes, or what else `worldsim.open` takes.
        out: the folder to write; new.
        examples: a CSV with columns file and text, and first and stop in chunks where a caption
            speaks of a stretch; by default the captions that the data has itself.
        wordings: captions for each stretch of the others.
        steps: of the captioner's training.
        seed: names every random choice.
        size: (height, width) to resize films to, divisible by 8.
        chunk: frames an action holds for.
        fps: frames a second to resample films to.
    """
    if out.exists():
        raise WorldError(f"out: expected a new folder, got {out}, which exists; name another")
    if wordings < 1 or steps < 1:
        raise WorldError(f"wordings, steps: expected 1 or more, got {wordings} and {steps}")
    opened = open_dataset(data, size=size, chunk=chunk, fps=fps)
    told = told_in(opened) if examples is None else read_examples(examples, opened)
    if not told:
        raise WorldError(f"examples: expected captions, got none in {data}; give --examples FILE")
    training = CaptionerTraining(steps=steps, seed=seed)
    made, right = recaption(opened, told, out, training, wordings=wordings)
    judged = "" if math.isnan(right) else f"; {right:.0%} of words right where captions were kept"
    print(f"{out}: {len(told)} of {len(made)} episodes had captions, now all do{judged}")
