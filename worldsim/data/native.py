"""A folder of episodes: what was recorded, how, and the files of each split."""

import json
import math
import re
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from worldsim.files import atomic_path, open_plain

from .episode import MAX_BYTES as MAX_EPISODE
from .episode import Episode, EpisodeError, load_episode

FORMAT = "worldsim-episodes"
VERSION = 1
MAX_BYTES = 2**20  # of dataset.json
SPLITS = {"train": (0, 1000), "val": (1000, 1050), "test": (5000, 5050)}  # seeds [first, stop)
RESERVED_SEED = 10_000  # seeds from here up belong to nobody's training, tuning or testing


class DatasetError(ValueError):
    """A folder that is not a worldsim dataset, or a description that cannot be one."""


@dataclass(frozen=True, kw_only=True)
class ActionInfo:
    """The action space: ``continuous`` with bounds `low` and `high` (A,), or ``discrete`` with `n`.

    Raises DatasetError for bounds that are empty, unequal in length, not finite or crossed.
    """

    kind: Literal["continuous", "discrete"]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    n: int = 0

    def __post_init__(self) -> None:
        bounds = list(zip(self.low, self.high, strict=False))
        continuous = (
            self.n == 0
            and len(self.low) == len(self.high) > 0
            and all(math.isfinite(a) and math.isfinite(b) and a < b for a, b in bounds)
        )
        discrete = self.n >= 1 and not self.low and not self.high
        if {"continuous": continuous, "discrete": discrete}.get(self.kind) is not True:
            raise DatasetError(
                "action: expected {kind: continuous, low, high} with finite low < high of one "
                f"length, or {{kind: discrete, n >= 1}}, got {self}"
            )

    def to_json(self) -> dict[str, Any]:
        """The JSON object of the format: only the keys of its kind."""
        if self.kind == "discrete":
            return {"kind": self.kind, "n": self.n}
        return {"kind": self.kind, "low": list(self.low), "high": list(self.high)}


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What ``dataset.json`` says.

    env_id, env_kwargs: the Gymnasium environment ("" and {} if there was none).
    chunk: frames per action. fps: of the stored frames, before chunking.
    frame_shape: (H, W, 3). action: the action space.
    source: where frames came from. crop: (top, bottom, left, right) kept of the source, or None.
    warmup: no-op frames dropped after reset. splits: seeds [first, stop) of each split.
    Raises DatasetError where a value does not fit.
    """

    env_id: str
    chunk: int
    fps: float
    frame_shape: tuple[int, int, int]
    action: ActionInfo
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    source: Literal["observation", "render", "recording"] = "recording"
    crop: tuple[int, int, int, int] | None = None
    warmup: int = 0
    splits: dict[str, tuple[int, int]] = field(default_factory=lambda: dict(SPLITS))

    def __post_init__(self) -> None:
        shape = self.frame_shape
        rules = {
            "chunk": (_whole(self.chunk, 1), "a whole number >= 1"),
            "fps": (_positive(self.fps), "a number > 0"),
            "frame_shape": (_row(shape, 3, 1) and shape[2] == 3, "(H, W, 3), H and W >= 1"),
            "env_id": (isinstance(self.env_id, str), "a string"),
            "env_kwargs": (isinstance(self.env_kwargs, dict), "an object of keywords"),
            "source": (
                self.source in ("observation", "render", "recording"),
                "observation, render or recording",
            ),
            "crop": (self.crop is None or _row(self.crop, 4, 0), "(top, bottom, left, right)"),
            "warmup": (_whole(self.warmup, 0), "a whole number >= 0"),
            "splits": (_disjoint(self.splits), "disjoint {name: (first, stop)}"),
        }
        for name, (fits, expected) in rules.items():
            if not fits:
                got = repr(getattr(self, name))[:200]
                raise DatasetError(f"{name}: expected {expected}, got {got}")

    def save(self, folder: Path | str) -> None:
        """Write ``dataset.json`` into `folder`, all or nothing."""
        values = {"format": FORMAT, "version": VERSION} | asdict(self)
        values["action"] = self.action.to_json()
        with atomic_path(Path(folder) / "dataset.json") as part:
            part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path | str) -> "DatasetInfo":
        """Read ``dataset.json`` of `folder`. Raises DatasetError if missing, foreign or unfit."""
        path = Path(folder) / "dataset.json"
        try:
            with open_plain(path) as file:
                text = file.read(MAX_BYTES + 1)
            if len(text) > MAX_BYTES:
                raise DatasetError(f"size: expected at most {MAX_BYTES} bytes, got more")
            return _parse(json.loads(text.decode(), object_pairs_hook=_unique))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise DatasetError(
                f"{path}: expected the description of a {FORMAT} folder, got {str(error)[:500]}; "
                "record one with the collect command or write it with DatasetInfo.save"
            ) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise DatasetError(f"repeated keys among {sorted({key for key, _ in pairs})[:20]}")
    return values


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0


def _row(values: object, length: int, least: int) -> bool:
    if not isinstance(values, tuple) or len(values) != length:
        return False
    return all(_whole(value, least) for value in values)


def _disjoint(splits: object) -> bool:
    if not isinstance(splits, dict) or not all(_row(span, 2, 0) for span in splits.values()):
        return False
    if not all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in splits):  # they are folders
        return False
    spans = sorted(splits.values())
    ordered = all(first < stop for first, stop in spans)
    return ordered and all(a[1] <= b[0] for a, b in zip(spans, spans[1:], strict=False))


def _parse(values: Any) -> DatasetInfo:
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise DatasetError(f'format: expected "{FORMAT}", got another file')
    if values.get("version") != VERSION:
        raise DatasetError(f"version: expected {VERSION}, got {values.get('version')!r}")
    body = {key: value for key, value in values.items() if key not in ("format", "version")}
    _check_keys(body, DatasetInfo)
    action = body.get("action")
    if not isinstance(action, dict):
        raise DatasetError(f"action: expected an object, got {action!r}")
    _check_keys(action, ActionInfo)
    if isinstance(splits := body.get("splits"), dict):
        body["splits"] = {name: _tuple(span) for name, span in splits.items()}
    body["action"] = ActionInfo(**{key: _tuple(value) for key, value in action.items()})
    return DatasetInfo(**{key: _tuple(value) for key, value in body.items()})


def _check_keys(values: dict[str, Any], kind: type[DatasetInfo] | type[ActionInfo]) -> None:
    known = {item.name for item in fields(kind)}
    if unknown := sorted(set(values) - known):
        raise DatasetError(f"unknown keys {unknown}, expected some of {sorted(known)}")
    required = (MISSING, MISSING)
    needed = {f.name for f in fields(kind) if (f.default, f.default_factory) == required}
    if missing := sorted(needed - set(values)):
        raise DatasetError(f"missing keys {missing}")


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset folder: `info`, the files of a split, and checked reading of one of them.

    max_bytes: files that unpack to more are refused, before any of it is read.
    """

    folder: Path
    info: DatasetInfo
    max_bytes: int = MAX_EPISODE

    def episodes(self, split: str) -> list[Path]:
        """Episode files of `split` in order of seed; files still being written are not listed.

        Raises DatasetError for a split that the dataset does not have.
        """
        if split not in self.info.splits:
            raise DatasetError(f"split: expected one of {sorted(self.info.splits)}, got {split!r}")
        return sorted((self.folder / split).glob("episode_*.npz"))

    def path(self, split: str, seed: int) -> Path:
        """Where the episode of `seed` lies."""
        return self.folder / split / f"episode_{seed:06d}.npz"

    def load(self, path: Path) -> Episode:
        """An episode that fits `info` and lies where its seed belongs, so that none slips into
        another split. Raises EpisodeError if broken, misplaced, or of another dataset."""
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise EpisodeError(path, "file", f"a file within {self.folder}", str(path.resolve()))
        episode, info = load_episode(path, max_bytes=self.max_bytes), self.info
        split, name = path.parent.name, self.path("", episode.seed).name
        first, stop = info.splits.get(split, (0, 0))
        if not first <= episode.seed < stop or path.name != name:
            expected = f"the seed in its name, within [{first}, {stop}) of {split}/"
            raise EpisodeError(path, "seed", expected, episode.seed)
        if episode.chunk != info.chunk or episode.frames.shape[1:] != info.frame_shape:
            expected = f"chunks of {info.chunk} frames {info.frame_shape}"
            got = f"chunks of {episode.chunk} frames {episode.frames.shape[1:]}"
            raise EpisodeError(path, "frames", expected, got)
        _check_actions(path, episode, info.action)
        return episode


def _check_actions(path: Path, episode: Episode, action: ActionInfo) -> None:
    values = episode.actions
    if action.kind == "discrete":
        fits = values.ndim == 1 and values.min() >= 0 and values.max() < action.n
        expected = f"whole numbers from 0 to {action.n - 1}"
    else:
        wide = values.ndim == 2 and values.shape[1] == len(action.low)
        # bounds were float32 in the environment: compare with that much slack
        fits = wide and bool((values >= [a - 1e-5 for a in action.low]).all())
        fits = fits and bool((values <= [b + 1e-5 for b in action.high]).all())
        expected = f"{len(action.low)} numbers from {action.low} to {action.high}"
    if not fits:
        got = f"{values.dtype} {values.shape} from {values.min()} to {values.max()}"
        raise EpisodeError(path, "actions", expected, got)


def open_dataset(folder: Path | str) -> Dataset:
    """The dataset in `folder`. Raises DatasetError if ``dataset.json`` is missing or foreign."""
    return Dataset(folder=Path(folder), info=DatasetInfo.load(folder))
