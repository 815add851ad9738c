"""CarRacing at 32x32 under four weathers and three lights, with captions of both.

These are functions of the finished frame, so that a few drives exist in many combinations.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import gymnasium
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from worldsim.core import ActionSpec
from worldsim.data.dataset import Caption, DatasetSpec, Episode
from worldsim.data.native import NativeDataset, NativeWriter
from worldsim.data.resize import area_resize
from worldsim.files import atomic_folder
from worldsim.recipes.car_racing.captions import Wording, caption
from worldsim.recipes.car_racing.drivers import pursue
from worldsim.recipes.car_racing.scenery import LIGHTS, WEATHERS, Scenery, shown

SIZE, CHUNK, WARMUP, SPAN = (32, 32), 2, 50, 15
COMBINATIONS = tuple(product(LIGHTS, WEATHERS))
HELD_OUT = (("night", "fog"), ("dusk", "rain"))
SEEN = tuple(pair for pair in COMBINATIONS if pair not in HELD_OUT)
SEEDS = {"train": range(40), "val": range(1000, 1001), "test": range(5000, 5003)}
Pair = tuple[str, str]


@dataclass(frozen=True)
class Drive:
    """Raw frames (N * CHUNK, 96, 96, 3), actions (N, 3) that led into the chunks, rewards (N,)."""

    frames: NDArray[np.uint8]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]

    def seen(self, pair: Pair, first: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """Chunks [first, stop) as they look at this light and in this weather, (n, 32, 32, 3)."""
        scenery, begin = Scenery(light=pair[0], weather=pair[1]), first * CHUNK
        raw = self.frames[begin : None if stop is None else stop * CHUNK]
        whole = [shown(x, scenery, WARMUP + begin + t)[:84, 6:90] for t, x in enumerate(raw)]
        return area_resize(np.stack(whole), SIZE)


def drive(seed: int, chunks: int) -> Drive:
    """One drive by the skilled driver, with some noise."""
    env, rng = gymnasium.make("CarRacing-v3"), np.random.default_rng(seed)
    env.reset(seed=seed)
    for _ in range(WARMUP):
        env.step(np.zeros(3, np.float32))
    frames, actions, rewards = [], [], []
    for _ in range(chunks):
        noise = 0.15 * rng.standard_normal(3)
        action = np.clip(pursue(env, top_speed=55) + noise, [-1, 0, 0], 1).astype(np.float32)
        reward = 0.0
        for _ in range(CHUNK):
            frame, one, *_ = env.step(action)
            frames.append(frame)
            reward += float(one)
        actions.append(action)
        rewards.append(reward)
    env.close()
    return Drive(np.stack(frames), np.stack(actions), np.array(rewards, np.float32))


def told(rng: np.random.Generator, pair: Pair, wording: Wording = "train") -> str:
    """A caption of light and weather."""
    truth = {"light": pair[0], "weather": pair[1]}
    return caption(rng, truth, says=frozenset(truth), wording=wording).text


def episodes(drives: Sequence[Drive], split: str) -> list[Episode]:
    """Each drive in every combination of the split; in half of them another one every `SPAN`."""
    rng, made = np.random.default_rng(len(split)), []
    pairs = SEEN if split != "test" else COMBINATIONS
    for number, one in enumerate(drives):
        count = len(one.actions)
        spans = [(a, min(a + SPAN, count)) for a in range(0, count, SPAN)]
        for place in range(len(pairs)):
            turns = (1 + number) * (place % 2)
            shown = [pairs[(place + turns * i) % len(pairs)] for i in range(len(spans))]
            captions = tuple(
                Caption(first=a, stop=b, text=told(rng, pair))
                for (a, b), pair in zip(spans, shown, strict=True) for _ in range(4)
            )  # fmt: skip
            parts = [one.seen(pair, *span) for span, pair in zip(spans, shown, strict=True)]
            made.append(
                Episode(
                    name=f"{split}-{number:02d}-{place:02d}",
                    frames=np.concatenate(parts),
                    chunk=CHUNK,
                    fps=50.0,
                    actions=one.actions,
                    rewards=one.rewards,
                    captions=captions,
                )
            )
    return made


def recorded(folder: Path, chunks: int, seeds: int) -> NativeDataset:
    """The data set of these drives: `seeds` of the training split, and some of the others; what is
    in `folder` already, if anything is."""
    if folder.exists():
        return NativeDataset(folder)
    action = ActionSpec(kind="continuous", low=(-1.0, 0.0, 0.0), high=(1.0, 1.0, 1.0))
    spec = DatasetSpec(
        name="weathers", frame_shape=(*SIZE, 3), fps=50.0, chunk=CHUNK, action=action,
        has_rewards=True, has_text=True,
    )  # fmt: skip
    with atomic_folder(folder) as part:
        writer = NativeWriter(part, spec)
        for split, span in SEEDS.items():
            drives = [drive(s, chunks) for s in tqdm(span[:seeds], desc=split, file=sys.stderr)]
            for episode in episodes(drives, split):
                writer.write(split, episode)
    return NativeDataset(folder)
