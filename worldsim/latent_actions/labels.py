"""Few labels: which action led into which chunk of a recording, for a share of its chunks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldsim.core import ActionSpec, WorldError
from worldsim.data.columns import columns_of
from worldsim.data.dataset import Dataset
from worldsim.data.tables import action_spec, actions_in, numbers_in, read_columns


@dataclass(frozen=True)
class Labels:
    """Actions of some chunks.

    Attributes:
        action: their kind.
        rows: for an episode's name its labelled chunks (n,) int64 and their actions (n, *action).
    """

    action: ActionSpec
    rows: Mapping[str, tuple[NDArray[np.int64], Tensor]]

    def __len__(self) -> int:
        """Labelled chunks."""
        return sum(len(chunks) for chunks, _ in self.rows.values())

    @staticmethod
    def of(data: Dataset, share: float = 1.0, *, count: int | None = None, seed: int = 0) -> Labels:
        """A share of the actions that were recorded, drawn at random; `count` of them if given.

        Raises WorldError where the recording has none, or for a share that is none.
        """
        if not 0 < share <= 1:
            raise WorldError(f"labels: expected a share above 0 to 1, got {share}")
        found: list[tuple[str, int, Tensor]] = []
        for place in range(len(data)):
            episode = data.episode(place)
            columns = columns_of(episode, data.spec.action)
            for chunk in columns.known.nonzero()[:, 0].tolist():
                found.append((episode.name, chunk, columns.actions[chunk]))
        if not found or data.spec.action.kind == "none":
            raise WorldError(f"labels: expected recorded actions in {data.spec.name}, got none")
        order = np.random.default_rng(seed).permutation(len(found))
        picked = order[: count or max(1, round(share * len(found)))]
        rows: dict[str, list[tuple[int, Tensor]]] = {}
        for name, chunk, action in (found[i] for i in sorted(picked.tolist())):
            rows.setdefault(name, []).append((chunk, action))
        return Labels(data.spec.action, {k: _columns(v) for k, v in rows.items()})

    @staticmethod
    def read(path: Path | str) -> Labels:
        """A table, CSV or Parquet: columns `episode`, `chunk`, and `action` or several `action_*`.

        Raises DatasetError or WorldError for any other.
        """
        path, columns = Path(path), read_columns(Path(path))
        values = actions_in(path, columns)
        if not {"episode", "chunk"} <= columns.keys() or values is None:
            raise WorldError(
                f"labels: expected columns episode, chunk and action or action_* in {path}, got "
                f"{sorted(columns)[:20]}"
            )
        chunks = numbers_in(path, "chunk", columns)
        whole = chunks.ndim == 1 and bool(((chunks == np.round(chunks)) & (chunks < 2**40)).all())
        if not (whole and len(values) and np.isfinite(values).all()):
            raise WorldError(f"labels: expected rows of finite numbers and whole chunks in {path}")
        spec = action_spec([values])
        actions = torch.from_numpy(values).to(spec.dtype)
        rows: dict[str, list[tuple[int, Tensor]]] = {}
        for name, chunk, action in zip(columns["episode"], chunks, actions, strict=True):
            entry = action if spec.shape else action[0]
            rows.setdefault(str(name), []).append((int(chunk), entry))
        return Labels(spec, {k: _columns(v) for k, v in rows.items()})

    def check(self, data: Dataset) -> None:
        """Raise WorldError for labels of other episodes, other chunks or other actions."""
        own = data.spec.action
        if own.kind not in ("none", self.action.kind) or (
            own.kind != "none" and own.shape != self.action.shape
        ):
            raise WorldError(
                f"labels: expected actions of {data.spec.name}, {own}, got {self.action}; give the "
                "labels of this recording"
            )
        lengths = dict(zip(data.names, data.lengths, strict=True))
        for name, (chunks, _) in self.rows.items():
            if name not in lengths:
                some = list(lengths)[:3]
                raise WorldError(f"labels: expected episodes such as {some}, got {name!r}")
            if chunks.min() < 0 or chunks.max() >= lengths[name]:
                raise WorldError(
                    f"labels: expected chunks 0 to {lengths[name] - 1} of {name!r}, got "
                    f"{chunks.min()} to {chunks.max()}; count chunks of {data.spec.chunk} frames"
                )


def labels_for(data: Dataset, labels: Any, seed: int = 0) -> Labels | None:
    """What a user gave as labels: nothing, a share of the recorded actions, a table, or `Labels`.

    Raises WorldError unless they are of this recording.
    """
    if labels is None or isinstance(labels, Labels):
        found = labels
    elif isinstance(labels, int | float):
        found = Labels.of(data, float(labels), seed=seed)
    else:
        found = Labels.read(labels)
    if found is not None:
        found.check(data)
    return found


def _columns(entries: list[tuple[int, Tensor]]) -> tuple[NDArray[np.int64], Tensor]:
    chunks, actions = zip(*entries, strict=True)
    return np.array(chunks, np.int64), torch.stack(list(actions))
