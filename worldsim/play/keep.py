"""What was played, kept on disk: a film for people, an episode for training."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np

from worldsim.core import WorldError
from worldsim.data.dataset import DatasetSpec, Episode
from worldsim.data.native import NativeWriter

from .film import enlarge, save_film
from .session import Session

FILM_HEIGHT = 384  # pixels, at least half of it


def keep(session: Session, what: Literal["film", "data"], folder: Path) -> Path:
    """Write the episode up to the present into `folder`; returns the file or folder."""
    if not session.now.step:
        raise WorldError("nothing to save: play a step first")
    return film(session, folder) if what == "film" else recording(session, folder)


def film(session: Session, folder: Path) -> Path:
    """An mp4 of the episode up to the present, every frame of every step."""
    spec = session.world.spec
    times = max(1, FILM_HEIGHT // spec.frame_shape[0])
    pictures = (enlarge(f, times) for m in session.played() for f in m.frames)
    path = folder / f"{spec.name}-{_stamp()}.mp4"
    save_film(path, pictures, spec.fps)
    return path


def recording(session: Session, folder: Path) -> Path:
    """Add the episode up to the present to the dataset `folder/NAME` of our own format.

    The first chunk has no known action. Where the oldest moments were dropped it begins later.
    """
    spec, played = session.world.spec, session.played()
    data = DatasetSpec(
        name=f"{spec.name}-played",
        frame_shape=spec.frame_shape,
        fps=spec.fps,
        chunk=spec.chunk,
        action=spec.action,
        has_rewards=True,
    )
    noop = np.asarray(session.controls.noop)
    actions = [played[0].action, *(m.action for m in played[1:])]
    dtype = np.int64 if spec.action.is_discrete else np.float32
    episode = Episode(
        name=f"play-{_stamp()}",
        frames=np.concatenate([m.frames for m in played]),
        chunk=spec.chunk,
        fps=spec.fps,
        actions=np.stack([noop if a is None else np.asarray(a) for a in actions]).astype(dtype),
        known=np.array([a is not None for a in actions]),
        rewards=np.array([m.reward for m in played], np.float32),
        terminated=played[-1].terminated,
        truncated=not played[-1].terminated,
        policy=" and ".join(dict.fromkeys(m.driver for m in played[1:])),
    )
    target = folder / f"{spec.name}-played"
    NativeWriter(target, data).write("train", episode)
    return target


def _stamp() -> str:
    return f"{datetime.now():%Y%m%d-%H%M%S-%f}"
