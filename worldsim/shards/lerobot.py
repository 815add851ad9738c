"""A LeRobot v3.0 folder made of shards: a film and a table each, numbered through at the end.

Where a row lies in the whole data set hangs on how long all episodes before it are. So a shard's
table is kept aside with numbers of its own, and the last process to end moves it into place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldsim.data.archive import ArchiveWriter, open_archive
from worldsim.data.captions import by_chunk
from worldsim.data.dataset import DatasetSpec, Episode
from worldsim.data.encode import write_film
from worldsim.data.export import CRF, frames_of
from worldsim.data.lerobot_export import (
    CAMERA,
    DATA,
    GOP,
    VIDEO,
    Statistics,
    described,
    episode_row,
    info,
    rows_of,
    write_json,
    write_table,
    write_tasks,
)  # fmt: skip
from worldsim.files import atomic_path, clear_leftovers

from .manifest import ShardEntry

ASIDE = "shards"
MAX_ROWS = 2**32  # bytes of a column
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


class LeRobot:
    """See `worldsim.shards.sinks.ShardSink`; needs pyarrow."""

    def __init__(self, folder: Path, spec: DatasetSpec) -> None:
        self.folder, self.spec = folder, spec

    def _aside(self, shard: int) -> Path:
        return self.folder / ASIDE / f"rows-{shard:06d}.npz"

    def _film(self, shard: int) -> Path:
        return self.folder / VIDEO.format(video_key=CAMERA, **_place(shard))

    def write(self, shard: int, episodes: Iterator[Episode]) -> list[Path]:
        """Write the film, and the rows numbered from 0 aside."""
        film, aside, parts = self._film(shard), self._aside(shard), []
        for path in (film, aside):
            path.parent.mkdir(parents=True, exist_ok=True)
            clear_leftovers(path)

        def frames() -> Iterator[NDArray[np.uint8]]:
            first, tasks = 0, {}
            for index, episode in enumerate(episodes):
                numbers = np.array([tasks.setdefault(t, len(tasks)) for t in by_chunk(episode)])
                parts.append(rows_of(episode, self.spec, index, first, numbers))
                first += len(episode.frames)
                yield from frames_of(episode)

        with atomic_path(film) as part:
            write_film(part, frames(), self.spec.fps, crf=CRF, gop=GOP, threads=1)
        with atomic_path(aside) as part, part.open("wb") as file:
            archive = ArchiveWriter(file)
            for name in parts[0]:
                archive.add(name, np.concatenate([p[name] for p in parts]))
            archive.close()
        return [film, aside]

    def finish(self, shards: Sequence[ShardEntry]) -> list[Path]:
        """Number the rows through and describe the whole; `info.json` comes last."""
        said = [dict.fromkeys(t for e in s.episodes for t in e.texts) for s in shards]
        tasks = {t: n for n, t in enumerate(dict.fromkeys(t for texts in said for t in texts))}
        lengths = [[e.chunks * self.spec.chunk for e in s.episodes] for s in shards]
        before = [0, *accumulate(sum(part) for part in lengths)]
        count = [0, *accumulate(len(part) for part in lengths)]
        statistics, episodes = Statistics(), []
        for shard, entry in enumerate(shards):
            rows = self._rows(shard)
            numbers = rows["episode_index"]
            rows["task_index"] = np.array([tasks[text] for text in said[shard]])[rows["task_index"]]
            rows["episode_index"] = numbers + count[shard]
            rows["index"] = rows["index"] + before[shard]
            path = self.folder / DATA.format(**_place(shard))
            clear_leftovers(path)
            write_table(path, rows)
            statistics.add(rows)
            starts = [0, *accumulate(lengths[shard])]
            for n, (episode, length) in enumerate(zip(entry.episodes, lengths[shard], strict=True)):
                index, row = count[shard] + n, before[shard] + starts[n]
                place = starts[n], self.spec.fps, _place(shard)
                episodes.append(episode_row(index, episode.texts, row, length, *place))
        return self._describe(episodes, tasks, statistics, len(shards))

    def _describe(
        self, episodes: list[dict[str, Any]], tasks: dict[str, int], statistics: Statistics,
        shards: int,
    ) -> list[Path]:  # fmt: skip
        write_table(self.folder / EPISODES, described(episodes))
        write_tasks(self.folder / "meta/tasks.parquet", tasks)
        write_json(self.folder / "meta/stats.json", statistics.summary())
        write_json(self.folder / "meta/info.json", info(self.spec, episodes, tasks))
        meta = [EPISODES, "meta/tasks.parquet", "meta/stats.json", "meta/info.json"]
        data = [self.folder / DATA.format(**_place(n)) for n in range(shards)]
        return [*(self.folder / m for m in meta), *data, *(self._film(n) for n in range(shards))]

    def _rows(self, shard: int) -> dict[str, NDArray[Any]]:
        with open_archive(self._aside(shard)) as archive:
            return {name: archive.read(name, "ifb", None, MAX_ROWS) for name in archive.members}


def _place(shard: int) -> dict[str, int]:
    return {"chunk_index": shard // 1000, "file_index": shard % 1000}
