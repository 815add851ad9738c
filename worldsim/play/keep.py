"""What was played, kept on disk: a film for people, an episode for training."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

from worldsim.core import WorldError

from .film import enlarge, save_film
from .session import Session

FILM_HEIGHT = 384  # pixels, at least half of it


def keep(session: Session, what: Literal["film", "data"], folder: Path) -> Path:
    """Write the episode up to the present into `folder`; returns the file or folder."""
    if not session.now.step:
        raise WorldError("nothing to save: play a step first")
    return film(session, folder)


def film(session: Session, folder: Path) -> Path:
    """An mp4 of the episode up to the present, every frame of every step."""
    spec = session.world.spec
    times = max(1, FILM_HEIGHT // spec.frame_shape[0])
    pictures = (enlarge(f, times) for m in session.played() for f in m.frames)
    path = folder / f"{spec.name}-{datetime.now():%Y%m%d-%H%M%S-%f}.mp4"
    save_film(path, pictures, spec.fps)
    return path
