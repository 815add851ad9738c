"""What a perfect simulator would score: the real CarRacing on twin tracks.

    python -m benchmarks.noise_floor

A twin is the recorded episode's own track as far as it was in sight when the clip began, and a
stretch of another real track from there on. Replaying the recorded actions on it gives a future
that the context and the actions do not rule out: a draw from the simulator that a world model
learns. Twins are compared with what was recorded as dreams are, so their curve is the noise floor
of every horizon: no dream that draws one future can be expected above it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import tyro
from gymnasium.envs.box2d.car_racing import BORDER, TRACK_WIDTH, CarRacing
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from worldsim import metrics
from worldsim.core import ActionSpec
from worldsim.data import Dataset, Episode, NativeDataset
from worldsim.data.resize import area_resize, crop_frames
from worldsim.evaluate import horizon
from worldsim.evaluate.clips import Clips, Recorded, cut_clips, even_starts
from worldsim.evaluate.report import write_card
from worldsim.flags import refuse_repeated
from worldsim.store.provenance import provenance

from . import RESULTS

CONTEXT, HORIZON, STARTS = 6, 60, 4  # those of the fidelity card
ACTION = ActionSpec(kind="continuous", low=(-1.0, 0.0, 0.0), high=(1.0, 1.0, 1.0))
AHEAD, ASIDE, BEHIND = 37.0, 31.0, 13.0  # world units in sight around the car: 16.2 pixels each
REACH = 60  # tiles ahead within which the road in sight is taken to be one piece
MATCH = 8  # tiles whose bends a donor should share with the road up to the seam
LENGTH = 70  # tiles of a donor: further than 60 steps lead at full speed
CHOICE = 100  # best fitting places, of which every twin takes a random one
DONORS = range(1100, 1140)  # seeds of the tracks that twins go on with: in nobody's data

Crop = tuple[int, int, int, int] | None
"""(top, bottom, left, right) of a frame that was recorded; all of it if None."""

Track = NDArray[np.float64]
"""(N, 3): heading, x, y of every tile."""


class Piece(NamedTuple):
    """A stretch of road: its tiles, and the place of the first one on its track."""

    tiles: Track
    first: int


class Twin(CarRacing):
    """CarRacing that renders only when asked to and whose road can be laid anew."""

    shown = False

    def _render(self, mode: str) -> Any:
        return super()._render(mode) if self.shown else None

    def tiles(self) -> Track:
        """The track as it is."""
        return np.array([point[1:4] for point in self.track])

    def sees(self, tiles: Track) -> NDArray[np.bool_]:
        """Which of these tiles would be in sight, (N,)."""
        assert self.car is not None
        angle, (x, y) = self.car.hull.angle, self.car.hull.position
        dx, dy = tiles[:, 1] - x, tiles[:, 2] - y
        aside = dx * math.cos(angle) + dy * math.sin(angle)
        ahead = -dx * math.sin(angle) + dy * math.cos(angle)
        room = TRACK_WIDTH + BORDER
        inside = (ahead > -BEHIND - room) & (ahead < AHEAD + room)
        return inside & (abs(aside) < ASIDE + room)

    def lay(self, pieces: Sequence[Piece]) -> None:
        """Replace the road by these pieces: as `_create_track` does it, kerbs included."""
        for tile in self.road:
            self.world.DestroyBody(tile)
        self.road, self.road_poly = [], []
        self.tile_visited_count = 0  # so that no lap is finished on a road without an end
        for piece in pieces:
            kerbs = kerbed(piece.tiles[:, 0])
            for i in range(1, len(piece.tiles)):
                here, there = piece.tiles[i], piece.tiles[i - 1]
                self._lay_tile(here, there, piece.first + i, kerb=bool(kerbs[i]))

    def _lay_tile(self, here: Track, there: Track, place: int, *, kerb: bool) -> None:
        corners = strip(here, there, -TRACK_WIDTH, TRACK_WIDTH)
        self.fd_tile.shape.vertices = corners
        tile = self.world.CreateStaticBody(fixtures=self.fd_tile)
        tile.userData = tile
        tile.color = self.road_color + 0.01 * (place % 3) * 255
        tile.road_visited, tile.road_friction, tile.idx = False, 1.0, place
        tile.fixtures[0].sensor = True
        self.road_poly.append((corners, tile.color))
        self.road.append(tile)
        if kerb:
            side = np.sign(there[0] - here[0])
            edge = strip(here, there, side * TRACK_WIDTH, side * (TRACK_WIDTH + BORDER))
            self.road_poly.append((edge, (255, 255, 255) if place % 2 == 0 else (255, 0, 0)))


def strip(here: Track, there: Track, left: float, right: float) -> list[tuple[float, float]]:
    """Corners of the piece of road between two tiles, from `left` to `right` of its middle."""

    def beside(tile: Track, by: float) -> tuple[float, float]:
        return tile[1] + by * math.cos(tile[0]), tile[2] + by * math.sin(tile[0])

    return [beside(here, left), beside(here, right), beside(there, right), beside(there, left)]


def kerbed(heading: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which tiles have kerbs: those of four bends in one direction, as in CarRacing."""
    bend = np.diff(heading, prepend=heading[0])
    hard = np.zeros(len(bend), bool)
    for i in range(4, len(bend)):
        last = bend[i - 3 : i + 1]
        if (abs(last) > 0.31 * 0.2).all() and abs(np.sign(last).sum()) == 4:
            hard[i - 3 : i + 1] = True
    return hard


def graft(kept: Track, donor: Track, tile: int) -> Track:
    """`kept` and then the donor's tiles after `tile`, moved so that `tile` lies on the last one."""
    turn = kept[-1, 0] - donor[tile, 0]
    following = np.take(donor, range(tile + 1, tile + 1 + LENGTH), 0, mode="wrap")
    rest = following[:, 1:] - donor[tile, 1:]
    cos, sin = math.cos(turn), math.sin(turn)
    moved = rest @ np.array([[cos, sin], [-sin, cos]]) + kept[-1, 1:]
    added = np.concatenate([following[:, :1] + turn, moved], 1)
    return np.concatenate([kept, added])


def bends(heading: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turns from tile to tile, (N - 1,), the jump of a whole turn taken out."""
    return (np.diff(heading) + math.pi) % (2 * math.pi) - math.pi


def likely(kept: Track, donors: Sequence[Track]) -> list[tuple[int, int]]:
    """The tiles (donor, tile) whose last bends are most like those up to the seam, best first."""
    mine, found = bends(kept[-MATCH - 1 :, 0]), []
    for n, donor in enumerate(donors):
        windows = np.lib.stride_tricks.sliding_window_view(bends(donor[:, 0]), MATCH)
        unlike = ((windows - mine) ** 2).sum(1)
        found += [(cost, n, at + MATCH) for at, cost in enumerate(unlike.tolist())]
    return [(n, tile) for _, n, tile in sorted(found)[:CHOICE]]


@dataclass(frozen=True)
class Job:
    """One episode and the chunks of it from which twins begin."""

    episode: Episode
    starts: list[int]
    donors: list[Track]
    draws: int
    warmup: int
    crop: Crop


def donor_tracks(seeds: Sequence[int]) -> list[Track]:
    """Tracks to go on with."""
    env = Twin(render_mode=None)
    tracks = []
    for seed in seeds:
        env.reset(seed=seed)
        tracks.append(env.tiles())
    return tracks


def drive(env: Twin, actions: NDArray[np.float32], chunk: int) -> Iterator[Any]:
    """Play the actions; yields every frame's picture (None while nothing is shown).

    After an end within a chunk the last picture is repeated, as recordings do.
    """
    picture, over = None, False
    for action in actions:
        for _ in range(chunk):
            if not over:
                picture, _, over, _, _ = env.step(action)
            yield picture


def at_start(job: Job, start: int) -> Twin:
    """The environment as it was when the clip's first step began."""
    env = Twin(render_mode=None)
    env.reset(seed=job.episode.seed)
    for _ in range(job.warmup):
        env.step(np.zeros(3, np.float32))
    assert job.episode.actions is not None
    for _ in drive(env, job.episode.actions[:start], 2):
        pass
    return env


def in_sight(env: Twin) -> list[Piece]:
    """The road that stays: first the piece the car is on, up to the last tile in sight ahead and a
    third of the track back; then whatever else is in sight."""
    tiles = env.tiles()
    assert env.car is not None
    seen = env.sees(tiles)
    count, (x, y) = len(tiles), env.car.hull.position
    near = int(((tiles[:, 1] - x) ** 2 + (tiles[:, 2] - y) ** 2).argmin())
    ahead = [k for k in range(REACH) if seen[(near + k) % count]]
    first, last = near - count // 3, near + max(ahead, default=1)
    own = np.take(tiles, range(first, last + 1), 0, mode="wrap")
    own[:, 0] = np.unwrap(own[:, 0])
    taken = np.zeros(count, bool)
    taken[np.arange(first, last + 1) % count] = True
    rest = np.flatnonzero(seen & ~taken)
    others = np.split(rest, np.flatnonzero(np.diff(rest) > 1) + 1)
    return [Piece(own, first), *(Piece(tiles[i], int(i[0])) for i in others if len(i) > 1)]


def play(job: Job, start: int, draw: int | None) -> NDArray[np.uint8]:
    """What 60 chunks from `start` look like, on twin number `draw` or on the track itself."""
    env = at_start(job, start)
    if draw is not None:
        own, *others = in_sight(env)
        rng = np.random.default_rng([job.episode.seed or 0, start, draw])
        choice = rng.permutation(likely(own.tiles, job.donors))
        twins = (graft(own.tiles, job.donors[donor], tile) for donor, tile in choice)
        # some lead back into the picture, where no such road was seen
        unseen = (t for t in twins if not env.sees(t[len(own.tiles) + MATCH :]).any())
        env.lay([Piece(next(unseen), own.first), *others])
    env.shown = True
    assert job.episode.actions is not None
    actions = job.episode.actions[start : start + HORIZON]
    frames = [crop_frames(frame, job.crop) for frame in drive(env, actions, 2)]
    return area_resize(np.stack(frames), (job.episode.frames.shape[1], job.episode.frames.shape[2]))


def twins_of(job: Job) -> Tensor:
    """Squared error against the recording, (starts, draws, 60); ValueError if a replay differs."""
    errors = []
    for start in job.starts:
        real = torch.from_numpy(job.episode.frames[2 * start : 2 * (start + HORIZON)])
        if not np.array_equal(play(job, start, None), real.numpy()):
            raise ValueError(
                f"data: episode {job.episode.seed} does not replay from chunk {start}; it was "
                "recorded with other versions of gymnasium or Box2D: record the test tracks anew"
            )
        twins = [torch.from_numpy(play(job, start, draw)) for draw in range(job.draws)]
        errors.append(torch.stack([error_by_step(twin, real) for twin in twins]))
    return torch.stack(errors)


def error_by_step(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error of every chunk: two (120, H, W, 3) uint8 -> (60,)."""
    return metrics.squared_error(a, b).mean((-2, -1)).reshape(HORIZON, -1).mean(1)


def jobs(data: Dataset, episodes: int, draws: int) -> list[Job]:
    """The clips of the fidelity card, episode by episode."""
    environment = data.spec.environment
    assert environment is not None
    donors, crop = donor_tracks(DONORS), environment.crop
    made = []
    test = data.split("test")
    for place in range(min(episodes, len(test))):
        episode = test.episode(place)
        starts = even_starts(len(episode), CONTEXT, HORIZON, STARTS)
        made.append(Job(episode, starts, donors, draws, environment.warmup, crop))
    return made


def summarise(made: Sequence[Job], twins: Sequence[Tensor]) -> dict[str, Any]:
    """Twins beside persistence on the same clips, over all draws, by horizon."""
    clips = [
        cut_clips(Recorded.of(job.episode, ACTION), place, job.starts, CONTEXT, HORIZON)
        for place, job in enumerate(made)
    ]
    whole = Clips.cat([c for c in clips if c is not None])
    drawn = torch.cat(list(twins)).mean(1)
    still = horizon.persistence(whole)
    return {
        "clips": len(whole),
        "draws": made[0].draws,
        "psnr": {"noise_floor": horizon.curve(drawn), "persistence": horizon.curve(still)},
        "above_persistence": horizon.above_persistence(drawn, still, whole.cluster),
    }


def main(
    data: Path = Path("data/car-racing"),
    episodes: int = 50,
    draws: int = 2,
    workers: int = 2,
    out: Path = RESULTS / "noise-floor-car-racing.json",
) -> None:
    """Score the real environment on twin tracks against what was recorded.

    Args:
        data: the recorded test episodes of `car-racing`.
        episodes: test episodes.
        draws: twins a clip.
        workers: processes.
        out: the JSON file.
    """
    made = jobs(NativeDataset(data), episodes, draws)
    with ProcessPoolExecutor(workers) as pool:
        twins = list(tqdm(pool.map(twins_of, made), total=len(made), desc="twins"))
    figures = summarise(made, twins)
    write_card({"format": "worldsim-noise-floor", **figures, "provenance": provenance()}, out)
    worst = figures["above_persistence"]["worst"]
    print(f"next chunk {figures['above_persistence']['next']}")
    print(f"worst, at horizon {figures['above_persistence']['worst_horizon']}: {worst}")
    print(f"wrote {out}")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, args=refuse_repeated(sys.argv[1:]))
