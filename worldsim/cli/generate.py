"""Generate video from words, pictures and clips."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import tyro

from worldsim.core import WorldError, WorldModel
from worldsim.data.encode import container_of, write_film
from worldsim.files import atomic_path
from worldsim.store.folder import load
from worldsim.video import generate as draw
from worldsim.worlds import DEFAULT

from .media import read_media

LONGEST = 3600  # seconds of a video
From = Annotated[Path | None, tyro.conf.arg(name="from")]


def generate(
    text: tyro.conf.Positional[str | None] = None,
    *,
    world: str = DEFAULT,
    out: Path = Path("video.mp4"),
    seconds: float = 4.0,
    size: tuple[int, int] | None = None,
    begin: From = None,
    to: Path | None = None,
    loop: bool = False,
    back: bool = False,
    guidance: float | None = None,
    num_steps: int | None = None,
    seed: int = 0,
) -> None:
    """Generate video from words, pictures and clips, and write it as a film.

    Args:
        text: what is to be seen, in a world that was trained with captions.
        world: a bundled world's name or a world folder.
        out: the film.
        seconds: how long, what is given included.
        size: height and width, from 16 up; the world's own by default.
        begin: a picture or clip that the video begins with.
        to: a picture or clip that it ends with.
        loop: let it end with the frames that it begins with.
        back: let `--from` be the end, and draw what led up to it.
        guidance: from 1 up, how much more strongly than in the recording the words are followed.
        num_steps: denoising steps a chunk, the world's own by default.
        seed: names the randomness.
    """
    container, model = container_of(out), load(world)
    if not 0 < seconds <= LONGEST:
        raise WorldError(f"seconds: expected above 0 to {LONGEST}, got {seconds}")
    frames = max(1, round(seconds * model.spec.fps))
    given = placed(model, size, frames, begin, to, loop=loop, back=back)
    if text is None and not given:
        raise WorldError("text: expected words, or a picture or clip by --from; got neither")
    video = draw(
        text, given, world=model, frames=frames, size=size, guidance=guidance,
        num_steps=num_steps, seed=seed,
    )  # fmt: skip
    with atomic_path(out) as part:
        write_film(part, iter(video.numpy()), model.spec.fps, container=container)
    print(f"{out}: {len(video)} frames of {video.shape[1]}x{video.shape[2]}")


def placed(
    world: WorldModel, size: tuple[int, int] | None, frames: int, begin: Path | None,
    to: Path | None, *, loop: bool, back: bool,
) -> list[tuple[Any, int]]:  # fmt: skip
    """What is given and where it lies; raises WorldError where flags contradict each other."""
    if (loop or back) and (begin is None or to is not None or (loop and back)):
        raise WorldError("loop, back: expected one of them, with --from and without --to")
    shape, chunk = size or world.spec.frame_shape[:2], world.spec.chunk
    first, last = (
        None if path is None else read_media(path, shape, world.spec.fps) for path in (begin, to)
    )

    def end(media: Any) -> tuple[Any, int]:
        whole = media[: frames // chunk * chunk]
        return whole, max(0, frames - len(whole)) // chunk * chunk

    given = []
    if first is not None:
        given = [end(first)] if back else [(first[:frames], 0)]
    if last is not None:
        given.append(end(last))
    if loop and first is not None:
        given.append(end(first[:chunk]))
    return given
