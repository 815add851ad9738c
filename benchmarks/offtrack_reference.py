"""What reality looks like under actions that were recorded on another track.

    python -m benchmarks.offtrack_reference

Half of a card's long dreams are driven by recorded actions, which fit another track: the car leaves
the road, in dreams as in reality. So those dreams are compared with the real environment under the
same actions, and not with well driven episodes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from worldsim.data import Dataset, NativeDataset
from worldsim.data.columns import columns_of
from worldsim.data.resize import area_resize, crop_frames
from worldsim.evaluate.long_rollouts import LOOK_EVERY, WINDOW, look, recorded_actions, windows
from worldsim.evaluate.plan import EvaluationPlan
from worldsim.evaluate.report import write_card
from worldsim.flags import refuse_repeated
from worldsim.recipes.car_racing import landmarks as car_racing
from worldsim.store.provenance import provenance

from . import RESULTS
from .noise_floor import Crop, Job, Twin, at_start


@dataclass(frozen=True)
class Drive:
    """Actions (T, 3), and the episode in whose middle somebody begins to play them."""

    job: Job
    actions: NDArray[np.float32]


def chunks(env: Twin, actions: NDArray[np.float32], crop: Crop) -> Iterator:
    """Every 4th chunk as it was seen, (2, height, width, 3); nothing more once the episode ends."""
    for t, action in enumerate(actions):
        env.shown = (t + 1) % LOOK_EVERY == 0
        frames = []
        for _ in range(2):
            frame, _, over, _, _ = env.step(action)
            if over:
                return
            frames.append(frame)
        if env.shown:
            yield np.stack([crop_frames(frame, crop) for frame in frames])


def drive(one: Drive) -> Tensor:
    """What was seen every 4th step: (n, 2, H, W, 3) uint8."""
    episode = one.job.episode
    env = at_start(one.job, len(episode) // 2)
    size = episode.frames.shape[1], episode.frames.shape[2]
    seen = [area_resize(pair, size) for pair in chunks(env, one.actions, one.job.crop)]
    none = np.zeros((0, 2, *size, 3), np.uint8)
    return torch.from_numpy(np.stack(seen) if seen else none)


def drives(data: Dataset, plan: EvaluationPlan) -> list[Drive]:
    """The very actions of the card's dreams that are not driven by sight, each on another track."""
    test, environment = data.split("test"), data.spec.environment
    assert environment is not None
    episodes = [test.episode(i) for i in range(min(plan.episodes, len(test)))]
    recorded = [columns_of(e, data.spec.action).actions for e in episodes]
    actions = recorded_actions(recorded, plan.dreams, plan.dream_steps)
    made = []
    for row in range(1, plan.dreams, 2):
        other = episodes[(row + len(episodes) // 2) % len(episodes)]
        job = Job(other, [], [], 0, environment.warmup, environment.crop)
        made.append(Drive(job, actions[row].numpy()))
    return made


def summarise(seen: list[Tensor]) -> dict[str, Any]:
    """Windows of looks as long as the dreams', and the shares of frames with road and car."""
    whole = [windows(look(frames)) for frames in seen if len(frames) >= WINDOW // LOOK_EVERY]
    last = torch.cat([frames[:, -1] for frames in seen])
    return {
        "drives": len(seen),
        "looks": len(last),
        "windows": torch.cat(whole).tolist(),
        "road": car_racing.has_road(last).float().mean().item(),
        "car": car_racing.has_car(last).float().mean().item(),
    }


def main(
    data: Path = Path("data/car-racing"),
    workers: int = 2,
    out: Path = RESULTS / "offtrack-reference-car-racing.json",
) -> None:
    """Drive the real test tracks by the actions that the card's long dreams are given.

    Args:
        data: the recorded test episodes of `car-racing`.
        workers: processes.
        out: the JSON file, for `--offtrack-reference` of `python -m benchmarks.fidelity`.
    """
    made = drives(NativeDataset(data), EvaluationPlan())
    with ProcessPoolExecutor(workers) as pool:
        seen = list(tqdm(pool.map(drive, made), total=len(made), desc="drives"))
    figures = summarise(seen)
    named = {"format": "worldsim-offtrack-reference", **figures}
    write_card(named | {"provenance": provenance()}, out)
    print(f"{figures['looks']} looks, road {figures['road']:.1%}, car {figures['car']:.1%}")
    print(f"wrote {out}")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, args=refuse_repeated(sys.argv[1:]))
