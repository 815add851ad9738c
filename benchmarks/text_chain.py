"""The whole chain in small: captions -> a tiny world -> prompts, judged by a probe of real frames.

CarRacing at 32x32 under four weathers and three lights, which are functions of the finished frame,
so that a few recorded drives exist in all twelve combinations. It proves that words arrive, not how
good a world can be: that is for `scenery` on a faster machine.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from worldsim.core import ActionSpec
from worldsim.data.dataset import Caption, DatasetSpec, Episode
from worldsim.data.native import NativeDataset, NativeWriter
from worldsim.data.resize import area_resize
from worldsim.pipeline import train
from worldsim.recipes.car_racing.captions import Wording, caption
from worldsim.recipes.car_racing.drivers import pursue
from worldsim.recipes.car_racing.scenery import LIGHTS, WEATHERS, Scenery, shown
from worldsim.train.recipe import QUICK
from worldsim.world.diffusion import DiffusionWorld

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


def recorded(folder: Path, chunks: int, seeds: int) -> tuple[NativeDataset, list[Drive]]:
    """The data set, and the drives of the test split."""
    action = ActionSpec(kind="continuous", low=(-1.0, 0.0, 0.0), high=(1.0, 1.0, 1.0))
    spec = DatasetSpec(
        name="weathers", frame_shape=(*SIZE, 3), fps=50.0, chunk=CHUNK, action=action,
        has_rewards=True, has_text=True,
    )  # fmt: skip
    writer, test = NativeWriter(folder, spec), []
    for split, span in SEEDS.items():
        drives = [drive(s, chunks) for s in tqdm(span[:seeds], desc=split, file=sys.stderr)]
        for episode in episodes(drives, split):
            writer.write(split, episode)
        test = drives
    return writer.dataset(), test


def trained(data: NativeDataset, folder: Path, steps: int) -> DiffusionWorld:
    """A world of some 100 thousand parameters."""
    parts = {
        name: replace(part, fit=replace(part.fit, batch=8, bf16=False))
        for name in ("vae", "forced", "teacher", "distill") for part in [getattr(QUICK, name)]
    }  # fmt: skip
    for name in ("forced", "teacher", "distill"):
        parts[name] = replace(parts[name], from_nothing=0.5)
    parts["distill"] = replace(parts["distill"], targets=10, dreamt=0.0)
    recipe = replace(QUICK, **parts)
    return train(
        data, out=folder / "world", run=folder / "run", preset="tiny", steps=steps, recipe=recipe,
        changed={"dim": 96, "depth": 4, "heads": 2, "widths": (24, 48), "channels": 8},
        compile=False, card=False, overwrite=True, num_steps=2,
    )  # fmt: skip


class Probe(nn.Module):
    """Light and weather from a frame; trained on real frames alone."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.SiLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.SiLU(),
            nn.Conv2d(32, 64, 3, 2, 1), nn.SiLU(), nn.Flatten(),
            nn.Linear(64 * 16, len(LIGHTS) + len(WEATHERS)),
        )  # fmt: skip

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 32, 32, 3) uint8 -> logits of lights and of weathers."""
        x = rearrange(frames.float() / 127.5 - 1, "b h w c -> b c h w")
        light, weather = self.body(x).split((len(LIGHTS), len(WEATHERS)), -1)
        return light, weather

    @torch.no_grad()
    def right(self, frames: Tensor, pairs: Sequence[Pair]) -> Tensor:
        """Whether light and weather are told right, (B, 2) bool."""
        found = torch.stack([x.argmax(-1) for x in self(frames)], 1)
        return found == torch.tensor([(LIGHTS.index(a), WEATHERS.index(b)) for a, b in pairs])


def probe_of(drives: Sequence[Drive], steps: int) -> Probe:
    """A probe trained on every combination of these drives."""
    torch.manual_seed(0)
    frames, truth = [], []
    for one in drives:
        for light, weather in COMBINATIONS:
            seen = one.seen((light, weather))
            frames.append(torch.from_numpy(seen))
            label = torch.tensor([LIGHTS.index(light), WEATHERS.index(weather)])
            truth.append(label.expand(len(seen), -1))
    x, y, probe = torch.cat(frames), torch.cat(truth), Probe()
    optimizer = torch.optim.AdamW(probe.parameters(), 2e-3)
    for _ in range(steps):
        rows = torch.randint(len(x), (64,))
        light, weather = probe(x[rows])
        loss = F.cross_entropy(light, y[rows, 0]) + F.cross_entropy(weather, y[rows, 1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return probe.eval()


@torch.no_grad()
def changed(
    world: DiffusionWorld, drives: Sequence[Drive], wording: Wording, guidance: float, steps: int,
    *, shuffled: bool = False,
) -> tuple[Sequence[Pair], Tensor, Tensor]:  # fmt: skip
    """Dreams that begin by day in clear weather and are then told another light and weather.

    Returns what was said, the dreams' frames and the twins', (rows, steps, 32, 32, 3).
    """
    rng, context = np.random.default_rng(7), world.spec.context
    first = context + 4
    pairs = [pair for _ in drives for pair in COMBINATIONS]
    day = [one.seen(("day", "clear"), first - context, first) for one in drives]
    begin = torch.from_numpy(np.stack(day)).repeat_interleave(len(COMBINATIONS), 0)
    acts = torch.from_numpy(np.stack([d.actions for d in drives]))
    acts = acts.repeat_interleave(len(COMBINATIONS), 0)
    said = [pairs[(i + 5) % len(pairs)] if shuffled else p for i, p in enumerate(pairs)]
    tokens = world.prompt([told(rng, pair, wording) for pair in said])
    state = world.encode(begin, acts[:, first - context : first]).prompted(tokens, guidance)
    frames = []
    for t in range(steps):
        state, _ = world.step(state, acts[:, first + t])
        frames.append(world.decode(state)[:, -1])
    twins = [one.seen(pair, first, first + steps)[1::CHUNK] for one in drives
             for pair in COMBINATIONS]  # fmt: skip
    return pairs, torch.stack(frames, 1), torch.from_numpy(np.stack(twins))


def begun(world: DiffusionWorld, wording: Wording, guidance: float, seeds: int) -> Tensor:
    """Last frames of videos that begin with words alone, of every combination `seeds` times."""
    rng = np.random.default_rng(8)
    return torch.stack([
        world.generate([], frames=12, text=told(rng, pair, wording), seed=seed,
                       guidance=guidance)[-1]
        for seed in range(seeds) for pair in COMBINATIONS
    ])  # fmt: skip


def chain(folder: Path, *, quick: bool = False) -> dict[str, Any]:
    """Record, train, prompt and judge."""
    chunks, seeds, steps = (30, 1, 12) if quick else (60, 6, 2400)
    data, test = recorded(folder / "data", chunks, seeds)
    world = trained(data, folder, steps)
    probe = probe_of([drive(s, chunks) for s in range(6, 7 if quick else 9)], 20 if quick else 400)
    real = [(p, d.seen(p)[-1]) for d in test for p in COMBINATIONS]
    pairs, frames = zip(*real, strict=True)
    found: dict[str, Any] = {
        "probe on unseen real frames": _share(probe, torch.from_numpy(np.stack(frames)), pairs)
    }
    for guidance in (1.0, 2.0):
        for wording in ("train", "paraphrase", "unseen"):
            told_pairs, dreams, twins = changed(world, test, wording, guidance, 12)
            name = f"changed, {wording}, guidance {guidance:g}"
            for after in (1, 4, 12):
                shares = _share(probe, dreams[:, after - 1], told_pairs)
                found[f"{name}, after {after} chunks"] = shares
            if wording == "train":
                other = changed(world, test, wording, guidance, 12, shuffled=True)[1]
                errors = [((x.float() - twins.float()) ** 2).mean() for x in (other, dreams)]
                found[f"error, shuffled over true text, guidance {guidance:g}"] = float(
                    errors[0] / errors[1]
                )
        alone = begun(world, "train", guidance, 1 if quick else 3)
        pairs = list(COMBINATIONS) * (len(alone) // len(COMBINATIONS))
        found[f"from words alone, guidance {guidance:g}"] = _share(probe, alone, pairs)
    return found


def _share(probe: Probe, frames: Tensor, pairs: Sequence[Pair]) -> dict[str, float]:
    """Shares of attributes told right, of seen combinations and of those that were held out."""
    right = probe.right(frames, pairs).float()
    held = torch.tensor([pair in HELD_OUT for pair in pairs])
    return {"seen": float(right[~held].mean()), "held-out": float(right[held].mean())}
