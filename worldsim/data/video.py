"""A folder of video files as a dataset, with or without a table of actions beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from .dataset import DatasetSpec, Episode, unfit
from .decode import Film, FilmFrames, probe
from .indexed import Fit, FittedFrames, IndexedDataset, file_hash, say
from .tables import SUFFIXES, Table, action_spec, read_tables

FILMS = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".ogv",
    ".flv", ".wmv", ".gif", ".y4m", ".nut", ".3gp",
)  # fmt: skip
SAME_RATE = 0.01  # films whose rate differs less from the dataset's are taken frame by frame


@dataclass(frozen=True)
class _Source:
    film: Film
    name: str
    table: Table | None
    fps: float | None  # to resample to


def is_film_folder(folder: Path) -> bool:
    """Whether a video file lies in the folder, or in one below it."""
    return any(path.suffix.lower() in FILMS for path in folder.rglob("*"))


class VideoDataset(IndexedDataset):
    """Every video file in `folder` and below is an episode, called by its path in there.

    A film of another rate than the dataset's, or of a rate that varies, is resampled: each frame
    is the newest at its time. Rotation flags are applied, transparency is dropped.

    Args:
        folder: of the films. Beside FILM may lie a table FILM.csv or FILM.parquet (or with the
            film's suffix replaced), or one table in `folder` with a column `file`; see `tables`.
        size: (height, width) to resize to; None keeps them, padded to sides divisible by 8.
        chunk: frames a chunk; 1 where there are actions, as a row is a frame.
        fps: frames a second; the films' median by default.

    Raises DatasetError that names the file and what does not fit.
    """

    def __init__(
        self, folder: Path | str, *, size: tuple[int, int] | None = None,
        chunk: int | None = None, fps: float | None = None,
    ) -> None:  # fmt: skip
        self.folder = Path(folder).absolute()
        paths = sorted(p for p in self.folder.rglob("*") if p.suffix.lower() in FILMS)
        paths = [p for p in paths if not p.name.startswith(".")]
        if not paths:
            expected = f"video files ({' '.join(FILMS)})"
            raise unfit(self.folder, "folder", expected, "none", "give another folder")
        films = [probe(path) for path in tqdm(paths, desc="films", leave=False, delay=2)]
        tables = _tables(self.folder, paths)
        rate = fps or sorted(film.fps for film in films)[(len(films) - 1) // 2]  # that of a film
        names = [path.relative_to(self.folder).as_posix() for path in paths]
        self._sources = [
            _Source(film, name, tables.get(film.path), _rate(film, rate, name))
            for film, name in zip(films, names, strict=True)
        ]
        for source in self._sources:
            _check_rows(source)
        self._fits = [Fit.of(film.size, size, self.folder.name) for film in films[:1]] + [
            Fit.of(film.size, size, name) if film.size != films[0].size else None
            for film, name in zip(films[1:], names[1:], strict=True)
        ]  # said once for films that are alike
        spec = self._spec(rate, 1 if tables and chunk is None else chunk or 1)
        counts = [len(FilmFrames(s.film, s.fps)) // spec.chunk for s in self._sources]
        kept = [i for i, count in enumerate(counts) if count]
        self._sources = [self._sources[i] for i in kept]
        self._fits = [self._fits[i] or self._fits[0] for i in kept]
        super().__init__(spec, [s.name for s in self._sources], [counts[i] for i in kept])

    def _spec(self, fps: float, chunk: int) -> DatasetSpec:
        targets = {fit.target for fit in self._fits if fit is not None}
        if len(targets) > 1:
            expected, got = "frames of one size", f"{sorted(targets)}"
            raise unfit(self.folder, "frames", expected, got, "give size=(height, width)")
        tables = [s.table for s in self._sources if s.table is not None]
        action = action_spec([t.actions for t in tables if t.actions is not None])
        if chunk > 1 and any(t.actions is not None or t.rewards is not None for t in tables):
            expected = "1, as tables have a row for each frame"
            raise unfit(self.folder, "chunk", expected, chunk, "take chunk=1")
        return DatasetSpec(
            name=self.folder.resolve().name, frame_shape=(*next(iter(targets)), 3), fps=fps,
            chunk=chunk, action=action, has_rewards=any(t.rewards is not None for t in tables),
            has_text=any(t.text for t in tables),
        )  # fmt: skip

    def _read(self, place: int) -> Episode:
        source, fit, spec = self._sources[place], self._fits[place], self.spec
        assert fit is not None
        count = self._lengths[place] * spec.chunk
        frames = FittedFrames(FilmFrames(source.film, source.fps), fit, count)
        told: dict[str, Any] = {} if source.table is None else _columns(source.table, spec)
        return Episode(name=source.name, frames=frames, chunk=spec.chunk, fps=spec.fps, **told)

    def _key(self, place: int) -> str:
        source = self._sources[place]
        paths = [source.film.path, *([source.table.path] if source.table else [])]
        return " ".join(file_hash(path) for path in paths)


def _rate(film: Film, rate: float, name: str) -> float | None:
    """The rate to resample to, None to take the film frame by frame."""
    if film.steady and abs(film.fps / rate - 1) < SAME_RATE:
        return None
    kind = f"{film.fps:.3g}" if film.steady else f"a varying {film.fps:.3g}"
    say(f"{name}: resampled from {kind} to {rate:.4g} frames a second")
    return rate


def _tables(folder: Path, films: list[Path]) -> dict[Path, Table]:
    """The table of each film that has one."""
    found: dict[Path, Table] = {}
    beside = {
        film: path
        for film in films
        for stem in (film, film.with_suffix(""))
        for path in (stem.with_name(stem.name + suffix) for suffix in SUFFIXES)
        if path.exists()
    }
    for film, path in beside.items():
        tables = read_tables(path)
        if set(tables) != {""}:
            raise unfit(path, "columns", "none called file, as it is one film's", "one")
        found[film] = tables[""]
    taken, there = {*beside.values()}, {*films}
    for path in sorted(p for p in folder.glob("*") if p.suffix in SUFFIXES):
        if path in taken:
            continue
        for name, table in read_tables(path).items():
            film = folder / name
            if film not in there:
                raise unfit(path, "file", f"a film in {folder}", name or "no column called file")
            found[film] = table
    return found


def _check_rows(source: _Source) -> None:
    """Refuse a table that has not a row for each frame, before anything is made of it."""
    table = source.table
    if table is None:
        return
    if source.fps is not None:
        expected = "films of one steady rate where there are tables"
        raise unfit(source.film.path, "fps", expected, f"{source.film.fps:.3g}", "leave fps out")
    frames, rows = len(source.film.times), len(table)
    if (table.actions is not None or table.rewards is not None) and rows != frames:
        expected = f"{frames} rows, one for each frame of {source.name}"
        raise unfit(table.path, "rows", expected, rows, "write a row for each frame")


def _columns(table: Table, spec: DatasetSpec) -> dict[str, Any]:
    told: dict[str, Any] = {"text": table.text}
    if table.rewards is not None:
        told["rewards"] = table.rewards
    if table.actions is not None:
        known = ~np.isnan(table.actions).any(axis=-1)
        actions = np.where(np.asarray(known)[:, None], table.actions, spec.action.least)
        if spec.action.kind == "none":
            return told
        actions = actions if spec.action.shape else actions[:, 0]
        dtype = np.int64 if spec.action.is_discrete else np.float32
        told |= {"actions": actions.astype(dtype), "known": known}
    return told
